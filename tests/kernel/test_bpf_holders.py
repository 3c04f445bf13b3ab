"""Holders on a recorded /proc: links whose text is what the kernel gives, fdinfo files, stat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_holders import Holder, Holders
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.kernel.as_nobody import as_nobody

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def process(root: Path, pid: int, comm: str, start_ticks: int, fds: dict[int, tuple[str, str]]) -> None:
    folder = root / "proc" / str(pid)
    for name in ("fd", "fdinfo"):
        (folder / name).mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} ({comm}) S 1 1 1 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0 {start_ticks} 1000 10 18446744073709551615")
    for fd, (target, info) in fds.items():
        (folder / "fd" / str(fd)).symlink_to(target)
        (folder / "fdinfo" / str(fd)).write_text(info)


def test_every_kind_of_object(tmp_path: Path) -> None:
    process(
        tmp_path,
        42,
        "a (strange) name",
        500,
        {
            0: ("/dev/null", "pos:\t0\n"),
            3: ("anon_inode:bpf-prog", "pos:\t0\nprog_type:\t1\nprog_id:\t7\nrun_cnt:\t0\n"),
            4: ("anon_inode:bpf-map", "map_type:\t1\nmap_id:\t8\n"),
            5: ("anon_inode:bpf-map", "map_type:\t1\nmap_id:\t8\n"),
            6: ("anon_inode:bpf_link", "link_type:\titer\nlink_id:\t9\nprog_tag:\tab\nprog_id:\t7\n"),
            7: ("anon_inode:bpf-link", "link_type:\tcgroup\nlink_id:\t10\nprog_id:\t7\n"),
            8: ("anon_inode:btf", "btf_id:\t11\n"),
            9: ("anon_inode:bpf-prog", "prog_id:\tnot a number\n"),
        },
    )
    process(tmp_path, 43, "idle", 600, {0: ("socket:[1]", "")})
    found, problems = Holders(HostFS(str(tmp_path))).scan()
    assert problems == []
    who = {"pid": 42, "start_ns": 500 * TICK_NS, "comm": "a (strange) name"}
    assert sorted(found) == sorted(
        [
            Holder("program", 7, fds=1, **who),
            Holder("map", 8, fds=2, **who),
            Holder("link", 9, fds=1, **who),
            Holder("link", 10, fds=1, **who),
            Holder("btf", 11, fds=1, **who),
        ]
    )


def test_a_process_that_changes(tmp_path: Path) -> None:
    process(tmp_path, 42, "loader", 500, {3: ("anon_inode:bpf-map", "map_id:\t8\n")})
    scanner = Holders(HostFS(str(tmp_path)))
    assert [holder.id for holder in scanner.scan()[0]] == [8]
    folder = tmp_path / "proc" / "42"
    (folder / "fd" / "3").unlink()
    assert scanner.scan() == ([], [])


def test_a_descriptor_closed_between_readlink_and_fdinfo(tmp_path: Path) -> None:
    process(tmp_path, 42, "loader", 500, {3: ("anon_inode:bpf-map", "map_id:\t8\n")})
    (tmp_path / "proc/42/fdinfo/3").unlink()
    assert Holders(HostFS(str(tmp_path))).scan() == ([], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give rights up")
def test_without_rights_the_processes_are_counted(tmp_path: Path) -> None:
    """Three processes of root, none readable: one problem, not three."""
    tmp_path.chmod(0o755)
    for pid in (1, 2, 3):
        process(tmp_path, pid, "root's", 1, {3: ("anon_inode:bpf-map", "map_id:\t8\n")})
        (tmp_path / "proc" / str(pid) / "fd").chmod(0o700)

    def scan() -> str:
        found, problems = Holders(HostFS(".")).scan()
        return f"{found} {problems[0]} needs {problems[0].needs}, {len(problems)} problem"

    expected = "[] ./proc/PID/fd: denied: the files of 3 processes could not be read needs CAP_SYS_PTRACE+CAP_DAC_READ_SEARCH, 1 problem"
    assert as_nobody(scan, str(tmp_path)) == expected


def test_no_procfs(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Holders(HostFS(str(tmp_path))).scan()
    assert caught.value.reason is Reason.ABSENT


def test_a_torn_stat(tmp_path: Path) -> None:
    process(tmp_path, 42, "loader", 500, {3: ("anon_inode:bpf-map", "map_id:\t8\n")})
    (tmp_path / "proc/42/stat").write_text("42 (loader) S 1")
    with pytest.raises(Unavailable) as caught:
        Holders(HostFS(str(tmp_path))).scan()
    assert caught.value.reason is Reason.MALFORMED
