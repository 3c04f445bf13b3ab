"""Which process holds which object, from /proc/PID/fd and fdinfo: the way that needs no BPF at all, but 4 us per open file.

Since 6.2 the size of /proc/PID/fd is the number of open files (before: 0), and its inode number goes with the
process. A process for which neither changed is not looked at again, 5 us instead of all its files; every tenth scan
it is all the same, since one file may have been closed and another opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel.bpf_objects import DESCRIPTORS, Kind
from otel_hostmetrics.kernel.hostfs import HostFS

_NEEDS: Final = "CAP_SYS_PTRACE+CAP_DAC_READ_SEARCH"
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_TRUST = 10  # scans for which an unchanged process is believed

# The field of fdinfo with an object's id; a link's has its program's, too
_ID_FIELDS: Final[dict[Kind, bytes]] = {"program": b"prog_id:", "map": b"map_id:", "link": b"link_id:", "btf": b"btf_id:"}


class Holder(NamedTuple):
    """One process that has an object open."""

    kind: Kind
    id: int
    pid: int
    start_ns: int  # CLOCK_BOOTTIME, to the clock tick: tells a process from a later one with the same pid
    comm: str
    fds: int  # descriptors for this object


class _Process(NamedTuple):
    inode: int
    files: int
    age: int  # scans since it was really looked at
    holders: tuple[Holder, ...]


class Holders:
    """Scans again and again. *limit* bounds the number of open files looked at in one scan."""

    def __init__(self, fs: HostFS, limit: int = 500_000) -> None:
        self._fs = fs
        self._limit = limit
        self._known: dict[str, _Process] = {}
        try:
            self._sized = os.stat(fs.proc("self", "fd")).st_size > 0  # we surely have files open
        except OSError:
            self._sized = False

    def scan(self) -> tuple[list[Holder], list[Unavailable]]:
        """Holders of programs, maps, links and BTF, and one DENIED for all processes that could not be read.

        Raises Unavailable when procfs itself cannot be read.
        """
        seen: dict[str, _Process] = {}
        denied = skipped = 0
        left = self._limit
        for pid in self._pids():
            if left <= 0:
                skipped += 1
                continue
            try:
                process, looked = self._process(pid)
            except (FileNotFoundError, ProcessLookupError):  # exited since it was listed
                continue
            except PermissionError:
                denied += 1
                continue
            left -= looked
            seen[pid] = process
        self._known = seen
        return [holder for process in seen.values() for holder in process.holders], _problems(self._fs.proc(), denied, skipped)

    def _pids(self) -> Iterator[str]:
        try:
            return (name for name in os.listdir(self._fs.proc()) if name.isdigit())
        except OSError as error:
            raise unavailable(error, self._fs.proc(), _NEEDS) from None

    def _process(self, pid: str) -> tuple[_Process, int]:
        """What is known of a process now, and how many files had to be looked at."""
        folder = self._fs.proc(pid)
        status = os.stat(f"{folder}/fd")
        known = self._known.get(pid)
        same = known is not None and (known.inode, known.files) == (status.st_ino, status.st_size)
        if known is not None and same and self._sized and known.age < _TRUST:
            return known._replace(age=known.age + 1), 0
        names = os.listdir(f"{folder}/fd")
        found: dict[tuple[Kind, int], int] = {}
        for name in names:
            key = _object(folder, name)
            if key is not None:
                found[key] = found.get(key, 0) + 1
        holders: tuple[Holder, ...] = ()
        if found:
            comm, start_ns = _identity(folder)
            holders = tuple(Holder(kind, number, int(pid), start_ns, comm, fds) for (kind, number), fds in found.items())
        return _Process(status.st_ino, status.st_size, 0, holders), len(names) + 1


def _object(folder: str, fd: str) -> tuple[Kind, int] | None:
    """(kind, id) of what a descriptor is open on; None for anything but BPF, and for one that was closed meanwhile."""
    try:
        kind = DESCRIPTORS.get(os.readlink(f"{folder}/fd/{fd}"))
        if kind is None:
            return None
        with open(f"{folder}/fdinfo/{fd}", "rb", buffering=0) as file:
            content = file.read(4096)
    except FileNotFoundError:
        return None
    field = _ID_FIELDS[kind]
    for line in content.splitlines():
        if line.startswith(field):
            value = line[len(field) :].strip()
            return (kind, int(value)) if value.isdigit() else None
    return None


def _identity(folder: str) -> tuple[str, int]:
    """(comm, start time) from /proc/PID/stat, whose second field is in parentheses and may contain any character."""
    with open(f"{folder}/stat", "rb", buffering=0) as file:
        content = file.read(4096)
    comm, _, rest = content.partition(b"(")[2].rpartition(b")")
    fields = rest.split()  # from field 3 on
    if len(fields) < 20 or not fields[19].isdigit():
        raise Unavailable(Reason.MALFORMED, f"{folder}/stat", "no start time")
    return comm.decode("utf-8", "backslashreplace"), int(fields[19]) * _TICK_NS


def _problems(proc: str, denied: int, skipped: int) -> list[Unavailable]:
    problems: list[Unavailable] = []
    if denied:
        problems.append(
            Unavailable(Reason.DENIED, f"{proc}/PID/fd", f"the files of {denied} process{'es' * (denied != 1)} could not be read", _NEEDS)
        )
    if skipped:
        problems.append(Unavailable(Reason.UNREADABLE, f"{proc}/PID/fd", f"{skipped} processes left out: too many open files"))
    return problems
