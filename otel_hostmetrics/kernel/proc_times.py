"""CPU time of processes from /proc/PID/stat (proc_pid_stat(5)), in clock ticks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_SIZE = 1024  # bytes: a name of 64 and 51 numbers; those needed are among the first 22
_UTIME, _STIME, _STARTTIME = 11, 12, 19  # places behind the name


class ProcessTime(NamedTuple):
    """*start* with *pid* names a process for ever; *ticks* are of user and system, of all its threads; *name* changes by execve(2)."""

    pid: int
    start: int
    ticks: int
    name: bytes


def parse(pid: int, content: bytes) -> ProcessTime | None:
    """None for what is no such line. The name may contain anything, so what counts begins behind the last parenthesis."""
    head, _, rest = content.rpartition(b")")
    fields = rest.split()
    try:
        return ProcessTime(pid, int(fields[_STARTTIME]), int(fields[_UTIME]) + int(fields[_STIME]), head.partition(b"(")[2])
    except (IndexError, ValueError):
        return None


def processes(proc: str) -> Iterator[ProcessTime]:
    """All below the procfs *proc* that can be read, 8 us each; those that exit meanwhile are left out."""
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for name in names:
        if name.isdecimal():
            found = _read(proc, name)
            if found is not None:
                yield found


def _read(proc: str, name: str) -> ProcessTime | None:
    try:
        fd = os.open(f"{proc}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return parse(int(name), os.read(fd, _SIZE))
    except OSError:
        return None
    finally:
        os.close(fd)
