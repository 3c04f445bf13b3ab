"""Run-time statistics of BPF programs: off by default, because they cost 20 to 70 ns per program run (measured).

Two switches turn them on, and they count while any of them is: the sysctl kernel.bpf_stats_enabled (5.1), which stays
on and belongs to the administrator, and a descriptor from BPF_ENABLE_STATS (5.8), which goes with the process that
holds it, even when that is killed. Only the second is used here. Turning on and off patches kernel code, 340 us of
CPU: for intervals of seconds, not around every read.
"""

from __future__ import annotations

import os
import struct
import types
from typing import Self

from otel_hostmetrics.errors import unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.hostfs import HostFS

_RUN_TIME = 0  # BPF_STATS_RUN_TIME, the only member of enum bpf_stats_type


class StatsSwitch:
    """Statistics are on while this is open. Counted in the kernel: others' switches are not touched."""

    def __init__(self) -> None:
        self._fd = -1

    @property
    def is_on(self) -> bool:
        """Whether this switch is on; others may be on all the same."""
        return self._fd >= 0

    def open(self) -> None:
        """Turn on. Raises Unavailable: DENIED without CAP_SYS_ADMIN, UNSUPPORTED before 5.8."""
        if self._fd >= 0:
            return
        bpf.require()
        try:
            self._fd = bpf.bpf(bpf.ENABLE_STATS, struct.pack("=I", _RUN_TIME))
        except OSError as error:
            raise unavailable(error, "BPF_ENABLE_STATS", "CAP_SYS_ADMIN") from None

    def close(self) -> None:
        """Turn off. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()


def sysctl_enabled(fs: HostFS) -> bool:
    """Whether the administrator has statistics on, /proc/sys/kernel/bpf_stats_enabled. Raises Unavailable (ABSENT before 5.1)."""
    return fs.integer(fs.proc("sys/kernel/bpf_stats_enabled")) != 0
