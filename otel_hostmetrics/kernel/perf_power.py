"""RAPL through the perf PMU "power": arch/x86/events/rapl.c (Linux 3.14; AMD since 5.8). Its events are opened by perf_event.py.

The kernel accumulates 64 bits in units of 2**-32 J and looks often enough that no wrap is lost. It works in containers, where
powercap is masked.
"""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cpu import cpu_list
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.perf_event import DEVICES

_CONFIG: Final = re.compile(r"event=(0x[0-9a-fA-F]{1,16})")
_MOST_EVENTS: Final = 64


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


def pmu(fs: HostFS, name: str = "power") -> Pmu:
    """What /sys/bus/event_source/devices says of a PMU. Raises Unavailable(ABSENT) if there is none."""
    directory = fs.sys(DEVICES, name)
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
