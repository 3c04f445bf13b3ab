"""Which interface to read energy from, and why none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cpu import AMD, INTEL, Processor, processor
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Rapl as Settings
from otel_hostmetrics.sources.rapl.interfaces import INTERFACES
from otel_hostmetrics.sources.rapl.meters import Counter
from otel_hostmetrics.sources.rapl.zones import Zone, deduplicated

_AUTO = ("powercap", "perf", "hwmon")  # registers are read only where somebody asks for it


class Found(NamedTuple):
    """The zones of one interface, opened."""

    interface: str
    zones: list[Zone]
    counters: list[Counter]  # of the same length
    problems: list[Unavailable]  # zones that are there and cannot be opened

    def close(self) -> None:
        for counter in self.counters:
            counter.close()


def discover(fs: HostFS, settings: Settings) -> Found:
    """The first interface that lets us read. Raises Unavailable with the reason and the cure if none does."""
    if settings.energy_source == "off":
        raise Unavailable(Reason.ABSENT, "rapl.energy_source", "it is set to off")
    cpu = processor(fs)
    refusals: list[Unavailable] = []
    for name in _AUTO if settings.energy_source == "auto" else (settings.energy_source,):
        try:
            zones = INTERFACES[name](fs, cpu, settings.plausible_power)
        except Unavailable as error:
            refusals.append(error)
            continue
        found = _opened(name, zones, cpu)
        if found.zones:
            return found
        refusals += found.problems[:1]
    raise _verdict(fs, cpu, refusals)


def _opened(interface: str, zones: Sequence[Zone], cpu: Processor) -> Found:
    """Only what can be opened counts: a second view of a zone stands in where the first is denied."""
    opened: dict[str, Counter] = {}
    problems = []
    for zone in zones:
        try:
            opened[zone.key] = zone.open()
        except Unavailable as error:
            problems.append(error)
    readable = deduplicated([zone for zone in zones if zone.key in opened], cpu.vendor in AMD)
    return Found(interface, readable, [opened[zone.key] for zone in readable], problems)


def _verdict(fs: HostFS, cpu: Processor, refusals: Sequence[Unavailable]) -> Unavailable:
    """DENIED with every cure if something is there, the least right first; else why nothing is."""
    denied = [error for error in refusals if error.reason is Reason.DENIED]
    if denied:
        cures = dict.fromkeys(cure for error in reversed(denied) for cure in error.needs.split("|") if cure)
        return Unavailable(Reason.DENIED, denied[0].what, denied[0].detail, "|".join(cures))
    for error in refusals:
        if error.reason not in (Reason.ABSENT, Reason.UNSUPPORTED):
            return error
    return Unavailable(Reason.ABSENT, "energy counters", _why_none(fs, cpu, refusals))


def _why_none(fs: HostFS, cpu: Processor, refusals: Sequence[Unavailable]) -> str:
    if cpu.hypervisor:
        return "this is a virtual machine, and its hypervisor passes no energy counters on"
    if cpu.vendor == INTEL or cpu.vendor in AMD:
        missing = _lacks_powercap(fs)
        return f"{missing}; perf has no power PMU, hwmon no known sensor" if len(refusals) > 1 else missing
    return f"{refusals[0]}" if len(refusals) == 1 else "no driver of this machine offers powercap zones, a power PMU or known sensors"


def _lacks_powercap(fs: HostFS) -> str:
    try:
        fs.names(fs.sys("class/powercap"))
    except Unavailable:
        return "/sys/class/powercap is missing: a kernel without CONFIG_POWERCAP, or a sandbox that hides it"
    return "/sys/class/powercap is empty: load intel_rapl_msr (modprobe intel_rapl_msr)"
