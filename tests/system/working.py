"""Processes that work in containers without a runtime: real cgroups, and the files in which the kubelet and docker have their names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

from otel_hostmetrics.kernel.hostfs import HostFS
from tests.live import cgroups
from tests.system.processes import Processes

# 10 ms of CPU time in 110 ms, until nobody holds the other end of its standard input.
_WORK = """
import select, sys, time
while not select.select([sys.stdin], [], [], 0.1)[0]:
    until = time.process_time() + 0.01
    while time.process_time() < until:
        pass
"""


class Container(NamedTuple):
    """One that runs; *pid* is the process in it."""

    id: str
    pid: int


def in_pod(processes: Processes, root: Path, identity: str, pod: tuple[str, str, str], name: str) -> Container:
    """Of a pod (namespace, name, uid), with a log as the kubelet has it below *root*."""
    namespace, pod_name, uid = pod
    logs = root / "var/log"
    (logs / f"pods/{namespace}_{pod_name}_{uid}/{name}").mkdir(parents=True)
    (logs / "containers").mkdir(exist_ok=True)
    (logs / f"containers/{pod_name}_{namespace}_{name}-{identity}.log").touch()
    return _running(processes, root, identity, cgroups.of_pod(identity, uid))


def of_docker(processes: Processes, root: Path, identity: str, name: str) -> Container:
    """With docker's file below *root*."""
    directory = root / "var/lib/docker/containers" / identity
    directory.mkdir(parents=True)
    (directory / "config.v2.json").write_text(json.dumps({"Name": f"/{name}"}))
    return _running(processes, root, identity, f"system.slice/docker-{identity}.scope")


def _running(processes: Processes, folder: Path, identity: str, path: str) -> Container:
    directory = processes.enter_context(cgroups.made(cgroups.accounted(HostFS()), path))
    process = processes.start(sys.executable, "-c", _WORK, log=folder / f"{identity}.log")
    Path(directory, "cgroup.procs").write_text(f"{process.pid}\n")
    return Container(identity, process.pid)
