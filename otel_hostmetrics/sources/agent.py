"""The agent itself: what its parts counted, and what the kernel says of its process."""

from __future__ import annotations

import os
import resource
import time
from typing import ClassVar

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.model import Reading
from otel_hostmetrics.telemetry import Telemetry

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_USER: dict[str, str] = {"cpu.mode": "user"}
_SYSTEM: dict[str, str] = {"cpu.mode": "system"}


class Agent:
    """Always the agent's own /proc, never the host's below --root: a process knows itself by /proc/self."""

    name: ClassVar[str] = "agent"
    metrics: ClassVar[tuple[Metric, ...]] = rows.ALL
    blocking: ClassVar[bool] = False

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._start_ns = 0  # of the process, not of this configuration

    def open(self) -> None:
        """The start of the process does not change. proc_pid_stat(5): field 22, in clock ticks since boot."""
        since_boot = int(_stat_fields()[19]) / _TICKS
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._start_ns = int((boot + since_boot) * 1e9)
        self._telemetry.set(rows.START_TIME, round(boot + since_boot, 2))

    def read(self) -> Reading:
        telemetry, used, fields = self._telemetry, resource.getrusage(resource.RUSAGE_SELF), _stat_fields()
        telemetry.set(rows.CPU_TIME, used.ru_utime, _USER, self._start_ns)
        telemetry.set(rows.CPU_TIME, used.ru_stime, _SYSTEM, self._start_ns)
        telemetry.set(rows.MEMORY_USAGE, int(fields[21]) * _PAGE)
        telemetry.set(rows.THREADS, int(fields[17]))
        telemetry.set(rows.DESCRIPTORS, _descriptors())
        columns, measured = telemetry.read()
        return Reading(columns, measured)

    def close(self) -> None:
        """Nothing is kept open."""


def _descriptors() -> int:
    """The size of /proc/self/fd is their number since 6.2, before it is 0: then they are counted, 0.2 us each."""
    path = "/proc/self/fd"
    try:
        return os.stat(path).st_size or len(os.listdir(path)) - 1  # less the one that lists
    except OSError as error:
        raise unavailable(error, path) from None


def _stat_fields() -> list[bytes]:
    """The fields of /proc/self/stat from the third on: the second, the name, may hold spaces and parentheses."""
    path = "/proc/self/stat"
    try:
        with open(path, "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError as error:
        raise unavailable(error, path) from None
    if len(fields) < 22:
        raise Unavailable(Reason.MALFORMED, path)
    return fields
