"""The name of what a process executes: the base name of the target of /proc/PID/exe (proc_pid_exe(5)).

The kernel shows another user's to who has CAP_SYS_PTRACE (ptrace(2), PTRACE_MODE_READ_FSCREDS). What everybody may read,
/proc/PID/comm, is another thing: cut to 15 bytes, of a script its own name, and whatever the process wants it to be.
"""

from __future__ import annotations

import os
from collections.abc import Hashable

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_DELETED = b" (deleted)"  # fs/d_path.c appends it once the file is unlinked or replaced
_NEEDS = "CAP_SYS_PTRACE"


def executable(proc: str, pid: int) -> str:
    """Below the procfs *proc*. Raises Unavailable: ABSENT for a kernel thread and what has exited, DENIED."""
    path = f"{proc}/{pid}/exe"
    try:
        target = os.readlink(path.encode())
    except OSError as error:
        raise unavailable(error, path, _NEEDS) from None
    return target.removesuffix(_DELETED).rpartition(b"/")[2].decode("utf-8", "backslashreplace")


def identity(proc: str, pid: int) -> int:
    """The inode number of its directory, which is the process's own: 1.5 us, no other with that pid has it. 0 for none."""
    try:
        return os.stat(f"{proc}/{pid}").st_ino
    except OSError:
        return 0


class Executables:
    """Names below the procfs *proc*, each read once: when its process is seen for the first time."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._names: dict[tuple[int, Hashable], str | None] = {}  # None: denied
        self._before = self._names

    def begin(self) -> None:
        """Begin a round; of what was not asked for in the last one nothing is kept."""
        self._before, self._names = self._names, {}

    def name(self, pid: int, mark: Hashable) -> str:
        """*mark* tells the process from others that had its pid, and may tell when it called execve(2). Empty: it has none."""
        key = (pid, mark)
        if key not in self._names:
            self._names[key] = self._before[key] if key in self._before else self._read(pid)
        return self._names[key] or ""

    @property
    def problems(self) -> list[Unavailable]:
        """One DENIED for all that were asked for in this round and may not be read."""
        denied = sum(name is None for name in self._names.values())
        detail = f"the executables of {denied} process{'es' * (denied != 1)} could not be read"
        return [Unavailable(Reason.DENIED, f"{self._proc}/PID/exe", detail, _NEEDS)] if denied else []

    def _read(self, pid: int) -> str | None:
        try:
            return executable(self._proc, pid)
        except Unavailable as error:
            return None if error.reason is Reason.DENIED else ""
