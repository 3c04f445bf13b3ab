"""RAPL through the perf PMU "power": perf_event_open(2), arch/x86/events/rapl.c (Linux 3.14; AMD since 5.8).

The kernel accumulates 64 bits in units of 2**-32 J and looks often enough that no wrap is lost. It needs CAP_PERFMON
(5.8; before, CAP_SYS_ADMIN) or kernel.perf_event_paranoid <= 0, and works in containers, where powercap is masked.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import struct
import sys
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel.cpu import cpu_list
from otel_hostmetrics.kernel.hostfs import HostFS

NEEDS: Final = "CAP_PERFMON"

# arch/*/include/asm/unistd*.h: the number of perf_event_open(2)
_NUMBER: Final = {"x86_64": 298, "i686": 336, "i586": 336, "i386": 336, "aarch64": 241}.get(platform.machine())
_ATTR: Final = struct.Struct("=IIQ48x")  # struct perf_event_attr, PERF_ATTR_SIZE_VER0: type, size, config; the rest 0 = count all
_CLOEXEC: Final = 8  # PERF_FLAG_FD_CLOEXEC
_CONFIG: Final = re.compile(r"event=(0x[0-9a-fA-F]{1,16})")
_MOST_EVENTS: Final = 64

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


class Event(NamedTuple):
    """One energy event of a PMU."""

    name: str  # "energy-pkg", "energy-cores", "energy-ram", "energy-gpu", "energy-psys"
    config: int
    joules: float  # of one count


class Pmu(NamedTuple):
    """A PMU that counts energy, and one cpu for each part of the host that it counts for."""

    name: str
    type: int
    cpus: list[int]
    events: list[Event]


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


def pmu(fs: HostFS, name: str = "power") -> Pmu:
    """What /sys/bus/event_source/devices says of a PMU. Raises Unavailable(ABSENT) if there is none."""
    directory = fs.sys("bus/event_source/devices", name)
    number = fs.integer(f"{directory}/type")
    names = [each for each in fs.names(f"{directory}/events") if each.startswith("energy-") and "." not in each]
    events = [_event(fs, f"{directory}/events", each) for each in names[:_MOST_EVENTS]]
    return Pmu(name, number, cpu_list(fs, f"{directory}/cpumask"), events)


def _event(fs: HostFS, directory: str, name: str) -> Event:
    """The event's number, and its scale in joules: the file .scale is to be multiplied with, .unit names the result."""
    path = f"{directory}/{name}"
    config = _CONFIG.fullmatch(fs.text(path))
    try:
        scale = float(fs.text(f"{path}.scale"))
    except ValueError:
        scale = 0.0
    if config is None or not math.isfinite(scale) or scale <= 0 or fs.text(f"{path}.unit") != "Joules":
        raise Unavailable(Reason.MALFORMED, path, "not an event with a scale in Joules")
    return Event(name, int(config[1], 16), scale)


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
