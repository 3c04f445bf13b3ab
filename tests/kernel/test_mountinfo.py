"""Mounts of one type, seen from the host, from a container and from a recording."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import Mount, _parse, mounts


def recorded(root: Path, *lines: str) -> HostFS:
    (root / "proc" / "self").mkdir(parents=True, exist_ok=True)
    (root / "proc" / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return HostFS(str(root))


def test_a_recording_tells_the_hosts_view(tmp_path: Path) -> None:
    (tmp_path / "sys/fs/bpf").mkdir(parents=True)
    fs = recorded(
        tmp_path,
        "23 1 0:21 / /sys rw,nosuid - sysfs sysfs rw",
        "31 23 0:27 / /sys/fs/bpf rw,nosuid,nodev,noexec,relatime shared:10 - bpf bpf rw,mode=700",
        "32 23 0:28 / /not/there rw - bpf bpf rw",
        "garbage",
    )
    assert mounts(fs, "bpf") == [Mount("0:27", "/", "/sys/fs/bpf", f"{tmp_path}/sys/fs/bpf")]


def test_a_container_sees_the_hosts_mounts_below_the_root(tmp_path: Path) -> None:
    """And its own mount of the same file system, which is not counted twice."""
    (tmp_path / "sys/fs/bpf").mkdir(parents=True)
    fs = recorded(
        tmp_path,
        f"900 1 0:27 /part {tmp_path}/sys/fs/bpf rw - bpf bpf rw",
        f"901 1 0:27 / {tmp_path}/sys/fs/bpf rw - bpf bpf rw",
    )
    assert mounts(fs, "bpf") == [Mount("0:27", "/", "/sys/fs/bpf", f"{tmp_path}/sys/fs/bpf")]


def test_white_space_in_a_mount_point(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    fs = recorded(tmp_path, r"31 23 0:27 / /a\040b rw - bpf bpf rw")
    assert [mount.point for mount in mounts(fs, "bpf")] == ["/a b"]


def test_the_running_kernel_has_proc_mounted() -> None:
    assert "/proc" in [mount.point for mount in mounts(HostFS(), "proc")]


def test_no_procfs(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        mounts(HostFS(str(tmp_path)), "bpf")
    assert caught.value.reason is Reason.ABSENT


@given(st.text(alphabet=st.sampled_from("a/\\0 4:-bpf\n"), max_size=80), st.sampled_from(["/", "/host"]))
def test_any_line_gives_a_mount_or_nothing(line: str, host: str) -> None:
    assert isinstance(_parse(line, "bpf", host), Mount | None)
