"""Sensors of energy and power: /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst).

energyN_input counts microjoules, powerN_average and powerN_input are microwatts now. Which part of the host a sensor
measures is known only by its driver and label, so callers name the drivers they understand.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import CounterFile, HostFS

_FILE: Final = re.compile(r"(?:(energy)(\d{1,4})_input|(power)(\d{1,4})_(average|input))")
_MOST_SENSORS: Final = 4096  # a server of 2 x 128 cores has one per core


class Sensor(NamedTuple):
    """One value."""

    path: str
    driver: str  # the hwmon's name: "amd_energy", "xgene", "power_meter"
    quantity: Literal["energy", "power"]
    label: str  # energyN_label or powerN_label; of ACPI power meters power1_oem_info; empty where there is none

    def counter(self) -> CounterFile:
        """Microjoules or microwatts, kept open. Raises Unavailable."""
        return CounterFile(self.path)


def sensors(fs: HostFS, drivers: Collection[str]) -> list[Sensor]:
    """The sensors of these drivers. Raises Unavailable(ABSENT) on a kernel without hwmon."""
    found: list[Sensor] = []
    for device in sorted(fs.names(fs.sys("class/hwmon")), key=lambda name: (len(name), name)):
        directory = fs.sys("class/hwmon", device)
        driver = _text(fs, f"{directory}/name") or _text(fs, f"{directory}/device/name")
        if driver in drivers:
            # Drivers that use the interface of before 3.9 (acpi_power_meter) have their files in the parent device.
            found += _sensors(fs, directory, driver) or _sensors(fs, f"{directory}/device", driver)
    return found[:_MOST_SENSORS]


def _sensors(fs: HostFS, directory: str, driver: str) -> list[Sensor]:
    try:
        names = fs.names(directory)
    except Unavailable:
        return []
    found: dict[tuple[str, int], Sensor] = {}
    for name in names:  # sorted: average comes before input, and an average misses nothing in between
        match = _FILE.fullmatch(name)
        if match is None:
            continue
        quantity: Literal["energy", "power"] = "energy" if match[1] else "power"
        number = int(match[2] or match[4])
        label = _text(fs, f"{directory}/{quantity}{number}_label") or _text(fs, f"{directory}/{quantity}{number}_oem_info")
        found.setdefault((quantity, number), Sensor(f"{directory}/{name}", driver, quantity, label))
    return [found[key] for key in sorted(found)]


def _text(fs: HostFS, path: str) -> str:
    try:
        return fs.text(path)[:64]
    except Unavailable:
        return ""
