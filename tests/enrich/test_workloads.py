"""From pids, cgroup paths and devices to one object per workload, on a procfs of the test's making."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.enrich import workloads as module
from otel_hostmetrics.enrich.names import Names
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.enrich.workloads import Workloads
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.telemetry import Telemetry

A, B = "a1" * 32, "b2" * 32
POD, HASH = "9a1b2c3d-1111-4222-8333-444455556666", "7260904bbd08e72e4dff95d9fccd2ee8"
PATH = f"/kubepods/besteffort/pod{POD}/{A}"
ALL = ("container.*", "k8s.*")


class Host:
    """A procfs and what is known of its containers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir(exist_ok=True)
        self.telemetry = Telemetry()
        self.refresh = Refresh((), 60, self.telemetry)

    def process(self, pid: int, *lines: str) -> None:
        (self.root / f"proc/{pid}").mkdir(exist_ok=True)
        (self.root / f"proc/{pid}/cgroup").write_text("".join(f"{line}\n" for line in lines))

    def know(self, **names: dict[str, dict[str, str]]) -> None:
        self.refresh.names = Names(**names)  # as the thread does it

    def workloads(self, chosen: tuple[str, ...] = ALL) -> Workloads:
        return Workloads(HostFS(str(self.root)), self.refresh, chosen, self.telemetry)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_container_is_one_object_however_it_is_found(host: Host) -> None:
    host.process(1, f"0::{PATH}")
    host.process(2, f"0::{PATH}")
    host.process(3, f"4:memory:{PATH}/inner", "0::/")
    found = host.workloads()
    first = found.process(1)
    assert first == {"container.id": A, "k8s.pod.uid": POD}
    assert found.process(2) is found.process(3) is found.cgroup(PATH) is first


def test_a_pid_that_comes_again_is_another_process(host: Host) -> None:
    host.process(1, f"0::/docker/{A}")
    found = host.workloads()
    assert (found.process(1) or {})["container.id"] == A
    host.process(1, f"0::/docker/{B}")
    assert (found.process(1) or {})["container.id"] == B
    host.process(1, "0::/system.slice/ssh.service")
    assert found.process(1) is None
    os.unlink(host.root / "proc/1/cgroup")
    with pytest.raises(Unavailable) as raised:
        found.process(1)
    assert raised.value.reason is Reason.ABSENT


def test_names_come_later_and_objects_change_only_where_their_content_does(host: Host) -> None:
    host.process(1, f"0::{PATH}")
    host.process(2, f"0::/docker/{B}")
    found = host.workloads()
    one, two = found.process(1), found.process(2)
    assert found.ask()
    assert not found.ask()
    host.know(containers={A: {"k8s.container.name": "app"}}, pods={POD: {"k8s.pod.name": "web-1"}})
    assert found.process(1) is one
    found.begin()
    named = found.process(1)
    assert named == {"container.id": A, "k8s.pod.uid": POD, "k8s.container.name": "app", "k8s.pod.name": "web-1"}
    assert found.process(2) is two
    host.know(containers={A: {"k8s.container.name": "app"}}, pods={POD: {"k8s.pod.name": "web-1"}})
    found.begin()
    assert found.process(1) is named


def test_a_static_pod_gets_the_uid_that_the_api_knows(host: Host) -> None:
    host.process(1, f"0::/kubepods/burstable/pod{HASH}/{A}")
    host.know(pods={HASH: {"k8s.pod.uid": POD, "k8s.pod.name": "etcd"}})
    assert host.workloads().process(1) == {"container.id": A, "k8s.pod.uid": POD, "k8s.pod.name": "etcd"}


def test_a_container_leads_to_its_pod_where_the_path_does_not(host: Host) -> None:
    host.process(1, f"0::/system.slice/docker-{A}.scope")
    host.know(containers={A: {"k8s.pod.uid": POD}}, pods={POD: {"k8s.pod.label.app": "web"}})
    told = {"k8s.pod.uid": POD, "k8s.pod.label.app": "web"}
    assert host.workloads().process(1) == {"container.id": A, "container.runtime.name": "docker", **told}


def test_only_what_is_chosen(host: Host) -> None:
    host.process(1, f"0::/kubepods/pod{POD}/crio-{A}")
    assert host.workloads(("k8s.pod.*",)).process(1) == {"k8s.pod.uid": POD}
    assert host.workloads(("nothing",)).process(1) is None


def test_devices_belong_to_the_container_by_its_object(host: Host) -> None:
    whose = {"k8s.pod.name": "web-1", "k8s.namespace.name": "default", "k8s.container.name": "app"}
    host.process(1, f"0::{PATH}")
    found = host.workloads()
    found.process(1)
    host.know(devices={"GPU-1": whose})
    found.begin()
    assert found.device("GPU-1") == whose
    assert found.device("GPU-2") is None
    host.know(containers={A: {**whose, "k8s.pod.uid": POD}}, devices={"GPU-1": whose})
    found.begin()
    assert found.device("GPU-1") is found.process(1)
    assert (found.device("GPU-1") or {})["container.id"] == A


def test_what_is_not_asked_for_any_more_is_forgotten(host: Host) -> None:
    host.process(1, f"0::{PATH}")
    found = host.workloads()
    first = found.process(1)
    found.cgroup(f"/docker/{B}")
    wanted: list[frozenset[str]] = []

    class Wanting(Refresh):
        def want(self, containers: frozenset[str], pods: frozenset[str]) -> None:
            wanted.append(containers)

    found._refresh = Wanting((), 60, host.telemetry)
    found.ask()
    for _ in range(2):
        found._sweep()  # a minute each
        assert found.process(1) is first
    found.cgroup("/docker/" + "c3" * 32)
    found.ask()
    assert wanted == [{A, B}, {A, "c3" * 32}]


def test_what_is_remembered_is_bounded(host: Host) -> None:
    found = host.workloads()
    for number in range(module._MOST + 10):
        found.cgroup(f"/user.slice/{number}")
    assert len(found._by_path) <= module._MOST
    assert len(found._workloads) == 1


def test_without_cgroup2_an_id_says_nothing(host: Host) -> None:
    (host.root / "proc/self").mkdir()
    (host.root / "proc/self/mountinfo").write_text("")
    found = host.workloads()
    for _ in range(2):
        with pytest.raises(Unavailable) as raised:
            found.cgroup_id(5)
        assert raised.value.reason is Reason.ABSENT
    found.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], object]:
    host = Host(tmp_path_factory.mktemp("host"))
    host.process(1)
    found = host.workloads()

    def ask(content: bytes) -> object:
        (host.root / "proc/1/cgroup").write_bytes(content)
        return found.process(1)

    return ask


@given(content=st.binary(max_size=300) | st.text(st.sampled_from("0:/kubepods-._docker" + A[:2]), max_size=120).map(str.encode))
def test_any_bytes_are_a_cgroup_file(shared, content: bytes) -> None:
    assert shared(content) is shared(content)


def test_workloads_with_and_without_names_are_counted(host: Host) -> None:
    def counted() -> dict[tuple[object, object], object]:
        column = host.telemetry.read()[0][rows.WORKLOADS]
        return {(each.attributes[rows.WORKLOAD_TYPE], each.attributes[rows.NAMED]): value for each, value in zip(*column, strict=True)}

    host.process(1, f"0::{PATH}")
    host.process(2, f"0::/docker/{B}")
    found = host.workloads()
    assert set(counted().values()) == {0}
    for pid in (1, 2):
        found.process(pid)
    found.ask()
    assert counted() == {("container", False): 2, ("container", True): 0, ("pod", False): 1, ("pod", True): 0}
    host.know(containers={A: {"k8s.container.name": "app"}}, pods={POD: {"k8s.pod.name": "web-1"}})
    found.begin()
    assert counted() == {("container", False): 1, ("container", True): 1, ("pod", False): 0, ("pod", True): 1}
    found._sweep()  # a minute each
    found.process(2)
    found._sweep()
    assert counted() == {("container", False): 1, ("container", True): 0, ("pod", False): 0, ("pod", True): 0}
