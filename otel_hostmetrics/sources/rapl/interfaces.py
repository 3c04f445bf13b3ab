"""The kernel's doors to energy counters, each as a list of zones."""

from __future__ import annotations

import functools
import re
from collections import Counter as Tally
from collections.abc import Callable, Mapping

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import hwmon, msr, perf_event, perf_power, powercap
from otel_hostmetrics.kernel.cpu import AMD, Processor, cpu_list, location
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.sources.rapl.meters import Scale
from otel_hostmetrics.sources.rapl.zones import CORE, DRAM, HOST, PACKAGE, PSYS, UNCORE, Zone, domain

_MICRO = 1e-6
_HOSTS = 10  # psys and power meters see whole hosts: that many times the most of a zone

_EVENTS = {"energy-pkg": PACKAGE, "energy-cores": CORE, "energy-ram": DRAM, "energy-gpu": UNCORE, "energy-psys": PSYS}

# What drivers call their sensors. amd_energy: also one Ecore per core, too many to be of use. Grace: NVIDIA's Performance
# Tuning Guide; the module holds the socket and, on GH200, the GPU.
_LABELS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("amd_energy", re.compile(r"Esocket(\d{1,4})"), PACKAGE),
    ("xgene", re.compile(r"CPU power()"), PACKAGE),
    ("xgene", re.compile(r"IO power()"), "io"),
    ("power_meter", re.compile(r"Grace Power Socket (\d{1,4})"), PACKAGE),
    ("power_meter", re.compile(r"CPU Power Socket (\d{1,4})"), CORE),
    ("power_meter", re.compile(r"SysIO Power Socket (\d{1,4})"), "sysio"),
    ("power_meter", re.compile(r"Module Power Socket (\d{1,4})"), "module"),
)
_METER = "power_meter"  # acpi_power_meter: without a label that says more, the whole host

Interface = Callable[[HostFS, Processor, float], list[Zone]]


def from_powercap(fs: HostFS, _processor: Processor, watts: float) -> list[Zone]:
    """powercap zones. A zone's package is told by its own name or by that of the zone around it."""
    found = powercap.zones(fs)
    packages = {each.id: domain(each.name)[1] for each in found}
    zones = []
    for each in found:
        kind, package = domain(each.name)
        package = package or packages.get(each.parent, "")
        most = _most(fs, each, watts * (_HOSTS if kind == PSYS else 1))
        if each.max_energy_range_uj is not None:
            scale = Scale(_MICRO, powercap.modulus(each.max_energy_range_uj), most)
            zones.append(Zone(each.path, kind, package, each.control_type, scale, each.counter, each))
        else:
            zones.append(Zone(each.path, kind, package, each.control_type, Scale(_MICRO, None, most, is_power=True), each.power, each))
    return zones


def from_perf(fs: HostFS, processor: Processor, watts: float) -> list[Zone]:
    """Events of the power PMU, one counter for each cpu of its mask: one per package or die."""
    pmu = perf_power.pmu(fs)
    # Before 5.17 the PMU listed all of Intel's events on AMD, of which only the package's exists.
    events = [event for event in pmu.events if event.name == "energy-pkg" or processor.vendor not in AMD]
    zones = []
    for number, (cpu, package) in enumerate(_packages(fs, pmu.cpus).items()):
        for event in events:
            kind = _EVENTS.get(event.name)
            if kind is None or (kind == PSYS and number):  # the platform is one, whichever package is asked
                continue
            name = f"{pmu.name}/{event.name}/ of cpu {cpu}"
            scale = Scale(event.joules, None, watts * (_HOSTS if kind == PSYS else 1), since_open=True)
            opened = functools.partial(perf_event.EventCounter, pmu.type, event.config, cpu, name)
            zones.append(Zone(name, kind, "" if kind == PSYS else package, "perf", scale, opened))
    return zones


def from_hwmon(fs: HostFS, _processor: Processor, watts: float) -> list[Zone]:
    """Sensors whose driver and label say that they measure processors or the host."""
    zones, meters = [], []
    for sensor in hwmon.sensors(fs, {driver for driver, _, _ in _LABELS}):
        is_power = sensor.quantity == "power"
        known = _meaning(sensor)
        if known:
            scale = Scale(_MICRO, None, watts, is_power)
            zones.append(Zone(sensor.path, *known, sensor.driver, scale, sensor.counter))
        elif sensor.driver == _METER:
            scale = Scale(_MICRO, None, watts * _HOSTS, is_power)
            meters.append(Zone(sensor.path, HOST, "", sensor.driver, scale, sensor.counter))
    zones += meters if len(meters) == 1 else []  # of several meters it is not known which contains which
    if not zones:
        raise Unavailable(Reason.ABSENT, fs.sys("class/hwmon"), "no sensor of processor or host energy")
    return zones


def from_msr(fs: HostFS, processor: Processor, watts: float) -> list[Zone]:
    """RAPL registers of the first cpu of each package or die."""
    zones = []
    firsts: dict[tuple[int, int], int] = {}
    for cpu in cpu_list(fs, fs.sys("devices/system/cpu/online")):
        package, die = location(fs, cpu)
        firsts.setdefault((package, 0 if processor.vendor in AMD else die), cpu)
    for cpu, name in _packages(fs, list(firsts.values())).items():
        for register in msr.registers(fs, cpu, processor):
            opened = functools.partial(msr.MsrCounter, fs, cpu, register.address)
            scale = Scale(register.joules, msr.MODULUS, watts)
            zones.append(Zone(f"cpu {cpu} {register.address:#x}", register.domain, name, "msr", scale, opened))
    return zones


INTERFACES: Mapping[str, Interface] = {"powercap": from_powercap, "perf": from_perf, "hwmon": from_hwmon, "msr": from_msr}


def _meaning(sensor: hwmon.Sensor) -> tuple[str, str] | None:
    """(domain, package) of what a sensor measures; None where it does not say."""
    for driver, label, kind in _LABELS:
        if driver == sensor.driver and (match := label.fullmatch(sensor.label)):
            return kind, match[1] or "0"
    return None


def _packages(fs: HostFS, cpus: list[int]) -> dict[int, str]:
    """The package of each cpu, named as intel_rapl_common.c does: with the die where a package has several."""
    places = {cpu: location(fs, cpu) for cpu in cpus}
    dies = Tally(package for package, _ in places.values())
    return {cpu: f"{package}-die-{die}" if dies[package] > 1 else str(package) for cpu, (package, die) in places.items()}


def _most(fs: HostFS, zone: powercap.Zone, watts: float) -> float:
    """What the zone can draw at most: *watts*, or more if its driver names more."""
    return max(watts, *(each.max_power_uw * _MICRO for each in powercap.constraints(fs, zone) if each.max_power_uw), 0.0)
