"""/proc/stat: what the processors spent their time on (Documentation/filesystems/proc.rst, section 1.7)."""

from __future__ import annotations

import os
from typing import NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_SIZE = 512  # bytes: the first line, ten numbers of up to 20 digits
_FIELDS = 7  # user, nice, system, idle, iowait, irq, softirq; then steal, guest, guest_nice
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class CpuTime(NamedTuple):
    """Nanoseconds since boot over all processors, in steps of a tick (10 ms)."""

    busy: int
    total: int


def parse(content: bytes) -> CpuTime | None:
    """Of the line ``cpu``. None if *content* does not begin with it.

    Guests' time is a part of user and nice and is not added again; what a hypervisor stole was never this machine's.
    """
    fields = content.partition(b"\n")[0].split()
    if fields[:1] != [b"cpu"] or len(fields) <= _FIELDS:
        return None
    try:
        user, nice, system, idle, iowait, irq, softirq = map(int, fields[1 : _FIELDS + 1])
    except ValueError:
        return None
    busy = (user + nice + system + irq + softirq) * _NS_PER_TICK
    return CpuTime(busy, busy + (idle + iowait) * _NS_PER_TICK)


class ProcStat:
    """The file, kept open. Raises Unavailable."""

    def __init__(self, fs: HostFS) -> None:
        self._path = fs.proc("stat")
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(error, self._path, needs=self._path) from None

    def read(self) -> CpuTime:
        """The times now. Raises Unavailable."""
        try:
            found = parse(os.pread(self._fd, _SIZE, 0))
        except OSError as error:
            raise unavailable(error, self._path, needs=self._path) from None
        if found is None:
            raise Unavailable(Reason.MALFORMED, self._path, "no line of all processors")
        return found

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
