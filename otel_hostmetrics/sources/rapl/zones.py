"""What zones are called, and which of them show the same energy twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from otel_hostmetrics.kernel import powercap
from otel_hostmetrics.sources.rapl.meters import Counter, Scale

PACKAGE, CORE, UNCORE, DRAM, PSYS, HOST = "package", "core", "uncore", "dram", "psys", "host"
LEAD_CORE = "lead-core"  # one core of a package, as an example: in rapl.zone.* only

_PACKAGE = re.compile(r"package-(\d{1,6}(?:-die-\d{1,6})?)")
_PSYS = re.compile(r"psys(?:-(\d{1,6}))?")
_PREFERRED = "intel-rapl"  # the same package is also in intel-rapl-mmio, on some models with other, stale limits


class Zone(NamedTuple):
    """One zone, whichever interface it was found by."""

    key: str  # what it is recognized by when zones are looked for again
    domain: str  # package, core, lead-core, uncore, dram, psys, host; any other name an ARM platform has for it
    package: str  # "0", "0-die-1"; empty if the zone is of no package
    interface: str  # "intel-rapl", "intel-rapl-mmio", "arm-scmi", "perf", "msr", a hwmon driver
    scale: Scale
    open: Callable[[], Counter]
    limits: powercap.Zone | None = None  # where its power limits are
    counted: bool = True  # the first view of this energy: the others are in rapl.zone.* only

    @property
    def name(self) -> str:
        """Unique on the host for each interface: ``package-0``, ``package-0/dram``, ``psys``."""
        around = f"package-{self.package}" if self.package and self.domain != PSYS else ""
        if self.domain == PSYS:
            return f"psys-{self.package}" if self.package else PSYS
        return around if self.domain == PACKAGE else f"{around}/{self.domain}" if around else self.domain

    @property
    def seed_name(self) -> str:
        """As cpu_exporter writes it: ``package_0``, ``package_0_dram``, ``psys``."""
        return re.sub(r"[^a-zA-Z0-9]+", "_", self.name)


def domain(name: str) -> tuple[str, str]:
    """(domain, package) of a zone by the kernel's name for it; the package is empty where the name does not tell."""
    if match := _PACKAGE.fullmatch(name):
        return PACKAGE, match[1]
    if match := _PSYS.fullmatch(name):
        return PSYS, match[1] or ""
    return name, ""


def deduplicated(zones: Sequence[Zone], one_counter_per_package: bool) -> list[Zone]:
    """The same zones, in an order that does not depend on the kernel's; of those with the same energy one is *counted*.

    *one_counter_per_package*: a processor (AMD, Hygon) whose dies all show the energy of the whole package. Linux before
    6.13 registered a zone for each (rapl_msrs_are_pkg_scope in intel_rapl_common.c); they become ``package-N`` here.
    """
    if one_counter_per_package:
        zones = _merged_dies(_lead_cores(zones))
    seen: set[str] = set()
    result: list[Zone] = []
    for zone in sorted(zones, key=_rank):
        result.append(zone._replace(counted=zone.counted and zone.name not in seen))
        seen.add(zone.name)
    return _told_apart(result)


def _told_apart(zones: Sequence[Zone]) -> list[Zone]:
    """Zones that one interface calls the same, as a firmware may: the later ones get their key. No two series may be equal."""
    views: set[tuple[str, str]] = set()
    result = []
    for zone in zones:
        view = (zone.name, zone.interface)
        result.append(zone._replace(domain=f"{zone.domain}@{zone.key.rpartition('/')[2]}") if view in views else zone)
        views.add(view)
    return result


def _lead_cores(zones: Sequence[Zone]) -> list[Zone]:
    """What Linux shows as the cores of such a package is its one register of a core, read on one CPU: it stands for no other core.

    MSR_AMD_CORE_ENERGY_STATUS in intel_rapl_msr.c, read on lead_cpu.
    """
    return [zone._replace(domain=LEAD_CORE, counted=False) if zone.domain == CORE else zone for zone in zones]


def _merged_dies(zones: Sequence[Zone]) -> list[Zone]:
    """The lowest die stands for its package; the others keep their name and do not count."""
    lowest: dict[str, str] = {}
    for zone in sorted(zones, key=_rank):
        lowest.setdefault(zone.package.partition("-die-")[0], zone.package)
    return [
        zone._replace(package=zone.package.partition("-die-")[0]) if zone.package in lowest.values() else zone._replace(counted=False)
        for zone in zones
    ]


def _rank(zone: Zone) -> tuple[bool, str, list[int], str, str]:
    numbers = [int(number) for number in re.findall(r"\d+", zone.package)]
    return zone.interface != _PREFERRED, zone.interface, numbers, "" if zone.domain == PACKAGE else zone.domain, zone.key
