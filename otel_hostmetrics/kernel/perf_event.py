"""Counts of perf events: perf_event_open(2), one event on one cpu for all processes, read as one number.

It needs CAP_PERFMON (Linux 5.8; before, CAP_SYS_ADMIN) or kernel.perf_event_paranoid <= 0.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

NEEDS: Final = "CAP_PERFMON"
DEVICES: Final = "bus/event_source/devices"  # in sysfs: a directory for each PMU

# arch/*/include/asm/unistd*.h: the number of perf_event_open(2)
_NUMBER: Final = {"x86_64": 298, "i686": 336, "i586": 336, "i386": 336, "aarch64": 241}.get(platform.machine())
_ATTR: Final = struct.Struct("=IIQ48x")  # struct perf_event_attr, PERF_ATTR_SIZE_VER0: type, size, config; the rest 0 = count all
_CLOEXEC: Final = 8  # PERF_FLAG_FD_CLOEXEC

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class EventCounter:
    """One event on one cpu, all processes. Counts from 0 when opened. Raises Unavailable: DENIED, ABSENT, GONE."""

    __slots__ = ("_fd", "what")

    def __init__(self, type_: int, config: int, cpu: int, what: str = "perf_event_open(2)") -> None:
        self.what = what
        self._fd = _open(type_, config, cpu, what)

    def read(self) -> int:
        """The count now."""
        try:
            content = os.read(self._fd, 8)
        except OSError as error:
            raise unavailable(error, self.what) from None
        if len(content) != 8:  # perf_event_read: 0 bytes of an event in error, such as one whose cpu went away
            raise Unavailable(Reason.GONE, self.what, "the event has stopped")
        return int.from_bytes(content, sys.byteorder)

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open(type_: int, config: int, cpu: int, what: str) -> int:
    if _NUMBER is None:
        raise Unavailable(Reason.UNSUPPORTED, what, f"unknown machine {platform.machine()}")
    attr = ctypes.create_string_buffer(_ATTR.pack(type_, _ATTR.size, config), _ATTR.size)
    arguments = (ctypes.c_long(each) for each in (-1, cpu, -1, _CLOEXEC))  # pid: all processes; no group
    fd: int = _syscall(ctypes.c_long(_NUMBER), ctypes.byref(attr), *arguments)
    if fd < 0:
        error = ctypes.get_errno()
        raise unavailable(OSError(error, os.strerror(error)), what, NEEDS)
    return fd
