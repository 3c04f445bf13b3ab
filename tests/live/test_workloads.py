"""BPF objects of processes and cgroups that are containers by their cgroup's path: real cgroups, made by the test."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.enrich import build
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.enrich.workloads import Workloads as Resolver
from otel_hostmetrics.kernel import proc_cgroup
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Bpf as BpfSettings
from otel_hostmetrics.settings import Seconds, Settings, Workloads
from otel_hostmetrics.sources.bpf import Bpf
from otel_hostmetrics.telemetry import Telemetry
from tests.live import cgroups
from tests.live.bpfload import Loader
from tests.live.zoo import cgroup2

A, B = "a1" * 32, "b2" * 32
UID, OTHER = "9a1b2c3d-1111-4222-8333-444455556666", "0b0b0b0b-1111-4222-8333-444455556666"
NO_NAMES = Workloads(bundles=(), pod_logs="")


def container(identity: str, uid: str = UID, qos: str = "besteffort") -> contextlib.AbstractContextManager[str]:
    """A cgroup of the hierarchy that BPF sees."""
    return cgroups.made(cgroup2(), cgroups.of_pod(identity, uid, qos))


@contextlib.contextmanager
def inside(directory: str, *arguments: str) -> Iterator[dict[str, list[int]]]:
    """A process in that cgroup that has loaded objects; gives their ids and its own."""
    command = ["sh", "-c", f"echo $$ > {directory}/cgroup.procs && exec {sys.executable} -m tests.live.bpfload {' '.join(arguments)}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        loaded = json.loads(process.stdout.readline())
        yield {**loaded["ids"], "pid": [loaded["pid"]]}
        process.kill()
        process.wait()


class Cycle:
    """The BPF source with the stage behind it."""

    def __init__(self, **settings_of_bpf: object) -> None:
        bpf = BpfSettings(slow_interval=Seconds(0.001), **settings_of_bpf)  # type: ignore[arg-type]
        fs, settings = HostFS(), Settings(bpf=bpf, workloads=NO_NAMES)
        self._source = Bpf(fs, settings)
        self._source.open()
        self._stage = build(fs, settings.workloads, Telemetry())

    def read(self) -> Reading:
        reading = self._source.read()
        reading.columns = {metric: column for metric, column in reading.columns.items() if column.series}
        self._stage("bpf", reading)
        return reading

    def close(self) -> None:
        self._source.close()
        self._stage.close()


@pytest.fixture(params=["auto", "ids"])
def cycle(request: pytest.FixtureRequest) -> Iterator[Cycle]:
    each = Cycle(engine=request.param)
    yield each
    each.close()


def containers(reading: Reading, metric: Metric, attribute: str, ids: list[int]) -> set[object]:
    found = {
        str(each.attributes[attribute]): (each.resource or {}).get("container.id")
        for each in reading.columns[metric].series
        if attribute in each.attributes
    }
    return {found[str(number)] for number in ids}


def test_what_a_process_in_a_container_loads_is_its_containers(cycle: Cycle) -> None:
    with (
        container(A) as one,
        container(B) as two,
        inside(one, "--progs", "3", "--maps", "4", "--links", "1") as a,
        inside(two, "--progs", "2") as b,
    ):
        reading = cycle.read()
        for ids, identity in ((a, A), (b, B)):
            assert containers(reading, rows.PROGRAM_INFO, "id", ids["program"]) == {identity}
            assert containers(reading, rows.PROGRAM_MEMORY, "bpf.program.id", ids["program"]) == {identity}
            assert containers(reading, rows.OBJECT_HOLDER, "process.pid", ids["pid"]) == {identity}
        assert containers(reading, rows.MAP_INFO, "id", a["map"]) == {A}
        assert containers(reading, rows.LINK_INFO, "id", a["link"]) == {A}
        assert containers(reading, rows.LINK_ATTACHMENT, "bpf.link.id", a["link"]) == {A}
        assert containers(reading, rows.PROGRAM_MAP, "bpf.program.id", [a["program"][0]]) == {A}
        resources = {id(each.resource) for column in reading.columns.values() for each in column.series if each.resource}
        assert len(resources) == 2
        again = cycle.read()
        assert all(again.columns[metric].series is column.series for metric, column in reading.columns.items())


def test_our_own_objects_are_the_hosts(cycle: Cycle, loader: Loader) -> None:
    loader.bulk(2, 2, 1)
    reading = cycle.read()
    assert containers(reading, rows.PROGRAM_INFO, "id", loader.ids["program"]) == {None}


_ATTACH_AND_EXIT = """
import os, sys
from tests.live.bpfload import Loader
loader = Loader()
loader.attach_cgroup(loader.program("cgroup_device", 1, "device_filter"), sys.argv[1], "cgroup_device")
print(loader.ids["program"][0], flush=True)
os._exit(0)
"""


def test_a_program_that_nobody_holds_is_its_cgroups(cycle: Cycle) -> None:
    """As a container runtime leaves it: attached, and closed. It ends with the cgroup."""
    with container(A) as directory:
        command = [sys.executable, "-c", _ATTACH_AND_EXIT, directory]
        program = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=30).stdout)
        reading = cycle.read()
        assert containers(reading, rows.PROGRAM_INFO, "id", [program]) == {A}
        assert containers(reading, rows.CGROUP_PROGRAM, "bpf.program.id", [program]) == {A}


def test_a_link_to_a_cgroup_leads_there_by_the_cgroups_id() -> None:
    """Where neither holders nor attachments are looked up."""
    each = Cycle(holders=False, cgroups=False)
    with container(A) as directory, Loader() as loader:
        fd = loader.keep(os.open(directory, os.O_RDONLY | os.O_CLOEXEC))
        loader.link(loader.program("cgroup_skb", 1, attach="cgroup_inet_ingress"), fd, "cgroup_inet_ingress")
        reading = each.read()
        assert containers(reading, rows.LINK_INFO, "id", loader.ids["link"]) == {A}
        assert containers(reading, rows.PROGRAM_INFO, "id", loader.ids["program"]) == {A}
        assert reading.problems == []
        each.close()


def test_from_a_container_paths_are_cut_off_and_still_told() -> None:
    """An agent in a pod of its own, in a cgroup namespace as runtimes make one, with the host's /proc."""
    with container(A) as one, container(B, OTHER, "burstable") as own, inside(one, "--progs", "1") as a:
        said = _in_namespace(own, a["pid"][0])
        assert said.startswith("/../../")
        assert "kubepods.slice" not in said.split(" ")[0]
        assert said.endswith(f" {A} {UID}")


def _in_namespace(directory: str, pid: int) -> str:
    """In a child that has moved to *directory* and taken it for the root: the path of *pid*, and what the agent makes of it."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as file:
                file.write("0")
            if ctypes.CDLL(None, use_errno=True).unshare(0x02000000):  # CLONE_NEWCGROUP
                raise OSError(ctypes.get_errno(), "unshare")
            telemetry = Telemetry()
            refresh = Refresh((), 60, telemetry)
            told = Resolver(HostFS(), refresh, ("*",), telemetry).process(pid) or {}
            path = proc_cgroup.paths(proc_cgroup.read("/proc", pid))[0]
            answer = f"{path} {told.get('container.id')} {told.get('k8s.pod.uid')}"
        except BaseException as error:  # nothing may reach pytest, which runs in this child too
            answer = repr(error)
        os.write(send, answer.encode())
        os._exit(0)
    os.close(send)
    with open(receive, encoding="utf-8") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer
