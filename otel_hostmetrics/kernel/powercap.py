"""Power zones: /sys/class/powercap (Documentation/power/powercap/powercap.rst; drivers/powercap).

A zone has energy_uj, a counter in microjoules that wraps at max_energy_range_uj (intel-rapl, intel-rapl-mmio), or
power_uw, microwatts now (arm-scmi, Linux 6.1), and up to ten power limits. energy_uj is readable by root only since 5.10
(CVE-2020-8694). Container runtimes hide the zones' directory (/sys/devices/virtual/powercap) for the same reason: the
class's links are still there and lead nowhere.

A write to a limit is never made here.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import CounterFile, HostFS

NEEDS: Final = "CAP_DAC_READ_SEARCH"  # to read energy_uj, mode 0400, without being root
_MASKED: Final = "/sys/devices/virtual/powercap"

_ZONE: Final = re.compile(r"([\w-]{1,64})((?::[0-9a-f]{1,8}){1,8})")  # powercap_sys.c: dev_set_name("%s:%x") per level
_VIRTUAL: Final = "dtpm"  # a tree of estimates over other drivers' zones
_MOST_CONSTRAINTS: Final = 10  # MAX_CONSTRAINTS_PER_ZONE
_MOST_ZONES: Final = 1024


class Zone(NamedTuple):
    """One zone. *path* is the real one: what tells a zone from another link to it."""

    id: str  # "intel-rapl:0:1"
    path: str
    control_type: str  # "intel-rapl" (MSR or TPMI), "intel-rapl-mmio", "arm-scmi"
    name: str  # "package-0", "package-0-die-1", "core", "uncore", "dram", "psys", "psys-1"; anything on ARM
    parent: str  # id of the zone around it; empty at the top
    max_energy_range_uj: int | None  # None: the zone has no counter of energy, or the counter does not wrap

    def counter(self) -> CounterFile:
        """energy_uj, kept open. Raises Unavailable."""
        return _opened(f"{self.path}/energy_uj")

    def power(self) -> CounterFile:
        """power_uw, kept open. Raises Unavailable."""
        return _opened(f"{self.path}/power_uw")


class Constraint(NamedTuple):
    """One power limit of a zone. None: this driver or zone does not have the file, or not now (ENODATA)."""

    name: str  # "long_term" (PL1), "short_term" (PL2), "peak_power" (PL4)
    power_limit_uw: int | None
    max_power_uw: int | None
    time_window_us: int | None


def listing(fs: HostFS) -> list[str]:
    """The names of zones there are. Raises Unavailable(ABSENT) on a kernel without powercap."""
    return [name for name in fs.names(fs.sys("class/powercap")) if _ZONE.fullmatch(name)][:_MOST_ZONES]


def zones(fs: HostFS) -> list[Zone]:
    """Every zone once, in the order of its numbers.

    Raises Unavailable: ABSENT without zones, DENIED where a container runtime hides them.
    """
    directory = fs.sys("class/powercap")
    names = listing(fs)
    found = {zone.path: zone for name in sorted(names, key=_numbers) if (zone := _zone(fs, directory, name)) is not None}
    if names and not found:
        raise Unavailable(Reason.DENIED, directory, f"{_MASKED} is hidden: container runtimes mask it", _MASKED)
    if not found:
        raise Unavailable(Reason.ABSENT, directory, "no driver has registered a zone")
    return [zone for zone in found.values() if zone.control_type != _VIRTUAL]


def constraints(fs: HostFS, zone: Zone) -> list[Constraint]:
    """The zone's limits; empty where it has none or is gone."""
    found: list[Constraint] = []
    for number in range(_MOST_CONSTRAINTS):
        prefix = f"{zone.path}/constraint_{number}_"
        limit = _optional(fs, f"{prefix}power_limit_uw")
        try:
            name = fs.text(f"{prefix}name")[:64]
        except Unavailable:
            if limit is None:
                break
            name = str(number)
        found.append(Constraint(name, limit, _optional(fs, f"{prefix}max_power_uw"), _optional(fs, f"{prefix}time_window_us")))
    return found


def enabled(fs: HostFS, zone: Zone) -> bool | None:
    """Whether the zone's limits are enforced; None where it does not say."""
    value = _optional(fs, f"{zone.path}/enabled")
    return None if value is None else value != 0


def modulus(max_energy_range_uj: int) -> int:
    """How many microjoules energy_uj counts before it begins again.

    intel_rapl_common.c counts 2**32 units of hardware and gives 2**32 - 1 of them as the range: one unit more, which is
    61 uJ or 15 uJ and not 1, makes a whole turn.
    """
    return max_energy_range_uj + max(1, round(max_energy_range_uj / 0xFFFF_FFFF))


def _zone(fs: HostFS, directory: str, name: str) -> Zone | None:
    match = _ZONE.fullmatch(name)
    path = os.path.realpath(f"{directory}/{name}")
    try:
        zone_name = fs.text(f"{path}/name")[:64]
    except Unavailable:
        return None
    assert match is not None  # listing() has only such names
    parent = name.rpartition(":")[0]
    span = _optional(fs, f"{path}/max_energy_range_uj")
    return Zone(name, path, match[1], zone_name, parent if ":" in parent else "", span if span and span > 0 else None)


def _numbers(name: str) -> tuple[str, list[int]]:
    control_type, *numbers = name.split(":")
    return control_type, [int(number, 16) for number in numbers]


def _opened(path: str) -> CounterFile:
    try:
        return CounterFile(path)
    except Unavailable as error:
        if error.reason is Reason.DENIED:
            raise Unavailable(Reason.DENIED, error.what, error.detail, NEEDS) from None
        raise


def _optional(fs: HostFS, path: str) -> int | None:
    try:
        return fs.integer(path)
    except Unavailable:
        return None
