"""Cgroup paths and files of every runtime and driver that we know, and of none."""

from __future__ import annotations

import contextlib
import csv
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import proc_cgroup
from otel_hostmetrics.kernel.cgroup_path import NOTHING, CgroupPath, parse
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import mounts

_FILE = Path(__file__).parents[1] / "enrich/cgroup-vectors.tsv"
_FIELDS = ("container_id", "runtime", "pod_uid", "qos")
with _FILE.open(newline="") as file:
    VECTORS = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))

ID, OUTER, POD = "2b91d1ef79d0dfcb0ce6c6054b679f514f61e6fee0881e1ed25f868862e7987b", "ce" * 32, "9a1b2c3d-1111-4222-8333-444455556666"


def _wanted(row: dict[str, str]) -> CgroupPath:
    return CgroupPath(*("" if row[name] == "-" else row[name] for name in _FIELDS))


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["name"])
def test_vector(row: dict[str, str]) -> None:
    assert parse(row["path"]) == _wanted(row)


def test_there_are_vectors_of_every_kind() -> None:
    assert len(VECTORS) >= 51
    for name in _FIELDS:
        assert len({row[name] for row in VECTORS}) > 3, name


@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row["name"])
def test_a_cgroup_that_was_removed_is_still_named(row: dict[str, str]) -> None:
    assert parse(row["path"] + " (deleted)") == _wanted(row)


@pytest.mark.parametrize("cut", ["", "/..", "/../..", "/../../../.."])
@pytest.mark.parametrize("row", [row for row in VECTORS if not row["path"].startswith("/..")], ids=lambda row: row["name"])
def test_another_cgroup_namespace_only_lengthens_the_path(row: dict[str, str], cut: str) -> None:
    assert parse(cut + row["path"]) == _wanted(row)


@pytest.mark.parametrize("unit", [f"{ID}.service", f"{ID}.mount", f"{ID}-abc.service", f"podman-{ID}.timer"])
def test_a_unit_named_after_a_container_is_none(unit: str) -> None:
    assert parse(f"/system.slice/{unit}") == NOTHING


def test_docker_in_a_pod_is_a_container_of_that_pod() -> None:
    inner = parse(f"/kubepods/burstable/pod{POD}/{OUTER}/docker/{ID}")
    assert inner == CgroupPath(ID, "docker", POD, "Burstable")


def test_a_pods_own_cgroup_in_a_node_that_is_a_container_is_not_the_nodes() -> None:
    assert parse(f"/docker/{OUTER}/kubelet/kubepods/besteffort/pod{POD}") == CgroupPath("", "", POD, "BestEffort")


def test_monitors_in_a_podman_pod_are_no_container() -> None:
    assert parse(f"/libpod_parent/{OUTER}/conmon") == NOTHING


def test_a_virtual_machine_is_no_container() -> None:
    assert parse("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope") == NOTHING


@given(st.text(st.characters(exclude_categories=()), max_size=200) | st.lists(st.sampled_from(
    ["..", "kubepods", "docker", f"pod{POD}", ID, f"libpod-{ID}.scope", "conmon", "lxc", "ecs", "garden", "", "x"])).map("/".join)
)  # fmt: skip
def test_any_text_is_a_path(path: str) -> None:
    found = parse(path)
    assert found.container_id == "" or found.container_id in path.replace("\\x2d", "-") or found.runtime == "systemd-nspawn"
    assert found.qos in ("", "Guaranteed", "Burstable", "BestEffort")
    assert bool(found.qos) <= bool(found.pod_uid)


@given(st.binary(max_size=500) | st.lists(st.binary(max_size=80)).map(b"\n0::".join))
def test_any_bytes_are_a_file(content: bytes) -> None:
    assert isinstance(proc_cgroup.container(content), CgroupPath)
    assert len(proc_cgroup.paths(content)) <= content.count(b"\n") + 1


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (f"0::/docker/{ID}\n", CgroupPath(ID, "docker")),
        (f"9:name=systemd:/docker/{ID}\n3:cpu,cpuacct:/docker/{ID}\n0::/\n", CgroupPath(ID, "docker")),  # hybrid, runtime on v1
        (f"4:memory:/host\n0::/kubepods/pod{POD}/{ID}\n", CgroupPath(ID, "", POD, "Guaranteed")),  # hybrid, put into v2
        (f"2:cpu:/docker/{OUTER}\n1:name=systemd:/docker/{OUTER}\n0::/docker/{ID}\n", CgroupPath(ID, "docker")),  # v2 first
        (f"2:cpu:/kubepods/pod{POD}\n1:pids:/docker/{ID}\n", CgroupPath(ID, "docker")),  # a container before a mere pod
        (f"2:cpu:/\n1:pids:/kubepods/burstable/pod{POD}\n", CgroupPath("", "", POD, "Burstable")),
        ("1:name=systemd:/a:b/with:colons\n", NOTHING),
        ("", NOTHING),
    ],
)
def test_versions_1_and_2_and_both(content: str, wanted: CgroupPath) -> None:
    assert proc_cgroup.container(content.encode()) == wanted


def test_a_process_of_this_host() -> None:
    content = proc_cgroup.read("/proc", os.getpid())
    assert content == Path("/proc/self/cgroup").read_bytes()
    assert proc_cgroup.paths(content)


@pytest.mark.parametrize("pid", [0, 2**31 - 1])
def test_a_process_that_is_not_there(pid: int) -> None:
    with pytest.raises(Unavailable) as raised:
        proc_cgroup.read("/proc", pid)
    assert raised.value.reason is Reason.ABSENT


@pytest.mark.parametrize("most", [0, 1])
def test_a_file_that_is_kept_open_is_of_the_process_and_not_of_its_pid(most: int) -> None:
    kept = proc_cgroup.Kept("/proc", most)
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.closing(kept), subprocess.Popen(["sleep", "60"]) as process:
        assert kept.read(process.pid) == kept.read(process.pid) == Path("/proc/self/cgroup").read_bytes()
        assert len(os.listdir("/proc/self/fd")) == before + most
        process.kill()
        process.wait()
        with pytest.raises(Unavailable) as raised:
            kept.read(process.pid)
        assert raised.value.reason in (Reason.ABSENT, Reason.GONE)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), reason="needs CAP_SYS_ADMIN, to choose the next pid")
def test_a_pid_that_is_used_again_is_another_process() -> None:
    kept = proc_cgroup.Kept("/proc", 8)
    with contextlib.closing(kept), _cgroup("reused") as other:
        for _ in range(20):  # somebody else may take the pid in between
            with subprocess.Popen(["sleep", "60"]) as process:
                first = kept.read(process.pid)
                process.kill()
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(process.pid - 1))
            with subprocess.Popen(["sleep", "60"]) as again:
                (other / "cgroup.procs").write_text(str(again.pid))
                second = kept.read(process.pid) if again.pid == process.pid else b""
                again.kill()
            if second:
                break
        assert second == Path("/proc/self/cgroup").read_bytes().rpartition(b"0::")[0] + b"0::/reused\n"
        assert second != first


def test_files_that_nobody_reads_are_closed() -> None:
    kept = proc_cgroup.Kept("/proc", 8)
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.closing(kept):
        kept.read(os.getpid())
        kept.read(os.getppid())
        kept.sweep()  # both were read since the last one
        kept.read(os.getpid())
        kept.sweep()
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert len(os.listdir("/proc/self/fd")) == before


@contextlib.contextmanager
def _cgroup(name: str) -> Iterator[Path]:
    top = next((mount.path for mount in mounts(HostFS(), "cgroup2")), "")
    if not top:
        pytest.skip("needs a cgroup2 mount")
    path = Path(top, name)
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


def test_the_innermost_container_of_all_hierarchies() -> None:
    """Docker in a container of a hybrid host: that of v2 ends at the outer one."""
    outer = f"/system.slice/docker-{OUTER}.scope"
    content = f"12:pids:{outer}/docker/{ID}\n1:name=systemd:{outer}/docker/{ID}\n0::{outer}\n".encode()
    assert proc_cgroup.container(content).container_id == ID
    assert proc_cgroup.container(content.replace(b"0::" + outer.encode(), b"0::/system.slice/docker.service")).container_id == ID


@pytest.mark.parametrize(
    ("controller", "path"), [("cpuacct", "/docker/x"), ("", "/system.slice/docker.service"), ("memory", "/docker"), ("rdma", "")]
)
def test_the_path_in_one_hierarchy(controller: str, path: str) -> None:
    content = b"4:cpu,cpuacct:/docker/x\n3:memory:/../../docker\n0::/system.slice/docker.service\n"
    assert proc_cgroup.path_in(content, controller) == path
