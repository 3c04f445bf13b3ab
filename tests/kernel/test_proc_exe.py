"""Names of executables: on links of the test's own, and on this very process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.proc_exe import Executables, executable, identity
from tests.process import eventually


def process(root: Path, pid: int, target: str | bytes) -> None:
    directory = root / str(pid)
    directory.mkdir(exist_ok=True)
    (directory / "exe").unlink(missing_ok=True)
    os.symlink(target, os.fsencode(directory / "exe") if isinstance(target, bytes) else directory / "exe")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/usr/bin/python3.11", "python3.11"),
        ("/usr/bin/worker (deleted)", "worker"),
        ("/opt/a (deleted)/worker", "worker"),
        ("(unreachable)/bin/worker", "worker"),
        ("/memfd:worker (deleted)", "memfd:worker"),
        (b"/usr/bin/w\xffrker", "w\\xffrker"),
    ],
)
def test_the_base_name_of_the_target(tmp_path: Path, target: str | bytes, name: str) -> None:
    process(tmp_path, 7, target)
    assert executable(str(tmp_path), 7) == name


def test_a_kernel_thread_has_none(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    with pytest.raises(Unavailable) as raised:
        executable(str(tmp_path), 2)
    assert raised.value.reason is Reason.ABSENT
    names = Executables(str(tmp_path))
    assert names.name(2, 0) == ""
    assert names.problems == []


def test_a_name_is_read_once_for_each_process(tmp_path: Path) -> None:
    process(tmp_path, 7, "/bin/first")
    names = Executables(str(tmp_path))
    assert names.name(7, "started at 1") == "first"
    process(tmp_path, 7, "/bin/second")
    for _ in range(3):
        names.begin()
        assert names.name(7, "started at 1") == "first"
    assert names.name(7, "started at 2") == "second"


def test_what_nobody_asks_for_any_more_is_forgotten(tmp_path: Path) -> None:
    process(tmp_path, 7, "/bin/first")
    names = Executables(str(tmp_path))
    assert names.name(7, 1) == "first"
    process(tmp_path, 7, "/bin/second")
    names.begin()
    names.begin()
    assert names.name(7, 1) == "second"


def test_this_kernel_s_own_links_and_identities(tmp_path: Path) -> None:
    """A program that is deleted while it runs; and the next process is another one."""
    program = tmp_path / "a worker"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as running:
        eventually(lambda: executable("/proc", running.pid) == program.name)
        mark = identity("/proc", running.pid)
        program.unlink()
        assert os.readlink(f"/proc/{running.pid}/exe").endswith(" (deleted)")
        assert executable("/proc", running.pid) == "a worker"
        assert identity("/proc", running.pid) == mark != identity("/proc", os.getpid())
        running.kill()
    assert identity("/proc", running.pid) != mark
    assert executable("/proc", os.getpid()) == Path(os.path.realpath(sys.executable)).name


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to become somebody else")
def test_another_user_s_is_denied_and_told_once(tmp_path: Path) -> None:
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from otel_hostmetrics.kernel.proc_exe import Executables
os.setgroups([]); os.setgid(65534); os.setuid(65534)
names = Executables("/proc")
print([names.name(pid, 0) for pid in ({os.getpid()}, {os.getppid()})], *(f"{{each}} {{each.needs}}" for each in names.problems))
names.begin()
print(names.problems)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30).stdout
    told = "/proc/PID/exe: denied: the executables of 2 processes could not be read CAP_SYS_PTRACE"
    assert said.splitlines() == [f"['', ''] {told}", "[]"]
