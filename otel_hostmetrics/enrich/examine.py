"""Whether the configured ways to names work: each is asked once for all containers and pods that processes of this host are in."""

from __future__ import annotations

import contextlib
import time

from otel_hostmetrics.enrich import lookups
from otel_hostmetrics.enrich.names import Lookup, Names
from otel_hostmetrics.enrich.workloads import CONTAINER_ID
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import proc_cgroup
from otel_hostmetrics.kernel.cgroup_path import CgroupPath
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import State, Status
from otel_hostmetrics.settings import Workloads as Settings


def examine(fs: HostFS, settings: Settings) -> dict[str, tuple[Status, list[Unavailable]]]:
    """``workloads.NAME`` -> (status, problems), as of a source. What was asked for in the configuration and is absent has failed."""
    found = _inhabited(fs)
    containers = frozenset(each.container_id for each in found if CONTAINER_ID.fullmatch(each.container_id))
    pods = frozenset(each.pod_uid for each in found if each.pod_uid)
    return {f"workloads.{each.name}": _asked(each, containers, pods) for each in lookups(fs, settings)}


def _asked(lookup: Lookup, containers: frozenset[str], pods: frozenset[str]) -> tuple[Status, list[Unavailable]]:
    began = time.monotonic_ns()
    try:
        names = lookup.find(containers, pods)
    except Unavailable as error:
        return Status(State.FAILED, error.reason, str(error), error.needs, time.monotonic_ns() - began), []
    except Exception as error:  # a bug in one
        return Status(State.FAILED, None, repr(error), took_ns=time.monotonic_ns() - began), []
    took_ns, said = time.monotonic_ns() - began, _said(names, containers, pods)
    if names.problem is None:
        return Status(State.OK, None, said, took_ns=took_ns), []
    return Status(State.PARTIAL, names.problem.reason, said, took_ns=took_ns), [names.problem]


def _said(names: Names, containers: frozenset[str], pods: frozenset[str]) -> str:
    named = [(len(there & known.keys()), len(there), what) for there, known, what in (
        (containers, names.containers, "containers"), (pods, names.pods, "pods"),
    )]  # fmt: skip
    said = ", ".join(f"{known} of {there} {what}" for known, there, what in named)
    return f"{said}, {len(names.devices)} devices" if names.devices else said


def _inhabited(fs: HostFS) -> set[CgroupPath]:
    """What the cgroups of processes tell; those that exit meanwhile are left out."""
    found: set[CgroupPath] = set()
    with contextlib.suppress(Unavailable):  # no procfs: then nobody is known to be in any
        for name in fs.names(fs.proc()):
            if name.isascii() and name.isdecimal():
                with contextlib.suppress(Unavailable):
                    found.add(proc_cgroup.container(proc_cgroup.read(fs.proc(), int(name))))
    return found
