"""nvidia-smi, for hosts where NVML cannot be loaded: its CSV, and its XML where a driver does not know all of our columns.

Values have the names and units of nvml_values.py. Columns and elements were renamed over the years; all spellings known from
drivers 390 to 590 are here. What nvidia-smi writes in place of a value ("N/A", "[Not Supported]", "Requested functionality
has been deprecated"...) is no value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable

_WSL: Final = "/usr/lib/wsl/lib/nvidia-smi"
_NUMBER: Final = re.compile(r"P?(\d{1,18}(?:\.\d{1,6})?)\s*([A-Za-z%/]*)")
_SCALES: Final = {
    "": 1, "W": 1000, "MiB": 1 << 20, "KiB": 1 << 10, "GiB": 1 << 30, "MHz": 1, "%": 1, "C": 1, "x": 1, "mW": 1, "RPM": 1,
}  # fmt: skip
_INVALID_COLUMN: Final = re.compile(rb'Field "([^"]+)" is not a valid field')

# Column of --query-gpu -> (name, what a number without unit is in). The first spelling that has a value wins.
COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "power.draw.instant": ("power.instant_mw", "W"), "power.draw": ("power.instant_mw", "W"),
    "power.draw.average": ("power.average_mw", "W"),
    "enforced.power.limit": ("power.limit.current_mw", "W"), "power.limit": ("power.limit.current_mw", "W"),
    "power.default_limit": ("power.limit.default_mw", "W"), "power.min_limit": ("power.limit.min_mw", "W"),
    "power.max_limit": ("power.limit.max_mw", "W"), "temperature.gpu": ("temperature.gpu", ""),
    "temperature.memory": ("temperature.memory", ""),
    "utilization.gpu": ("utilization.gpu", ""), "utilization.memory": ("utilization.memory", ""),
    "utilization.encoder": ("utilization.encoder", ""), "utilization.decoder": ("utilization.decoder", ""),
    "utilization.jpeg": ("utilization.jpeg", ""), "utilization.ofa": ("utilization.optical_flow", ""),
    "memory.total": ("memory.total", "MiB"), "memory.reserved": ("memory.reserved", "MiB"), "memory.used": ("memory.used", "MiB"),
    "memory.free": ("memory.free", "MiB"), "clocks.gr": ("clock.graphics_mhz", ""), "clocks.sm": ("clock.sm_mhz", ""),
    "clocks.mem": ("clock.memory_mhz", ""), "clocks.video": ("clock.video_mhz", ""), "fan.speed": ("fan.0.percent", ""),
    "pstate": ("pstate", ""),
    "pcie.link.gen.current": ("pcie.generation", ""), "pcie.link.width.current": ("pcie.width", ""),
    "pcie.link.gen.max": ("pcie.generation.max", ""), "pcie.link.width.max": ("pcie.width.max", ""),
    "ecc.errors.corrected.volatile.total": ("ecc.volatile.corrected", ""),
    "ecc.errors.uncorrected.volatile.total": ("ecc.volatile.uncorrected", ""),
}  # fmt: skip
IDENTITY: Final = ("index", "pci.bus_id", "name", "uuid", "serial", "vbios_version", "driver_version")
# Where the XML of -q -x has each value, newest spelling first. Power: "power_readings" until R530, "gpu_power_readings" since,
# with average and instant draw from R570 on; the limit in force is "power_limit", then "current_power_limit".
_POWER: Final = ("gpu_power_readings", "power_readings")
ELEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "power.instant_mw": tuple(f"{place}/{name}" for name in ("instant_power_draw", "power_draw", "average_power_draw") for place in _POWER),
    "power.average_mw": tuple(f"{place}/average_power_draw" for place in _POWER),
    "power.limit.current_mw": tuple(
        f"{place}/{name}_limit" for name in ("current_power", "enforced_power", "power") for place in _POWER
    ),
    **{f"power.limit.{name}_mw": tuple(f"{place}/{name}_power_limit" for place in _POWER) for name in ("default", "min", "max")},
    "temperature.gpu": ("temperature/gpu_temp",), "temperature.memory": ("temperature/memory_temp",),
    **{f"utilization.{name}": (f"utilization/{name}_util",) for name in ("gpu", "memory", "encoder", "decoder", "jpeg")},
    "utilization.optical_flow": ("utilization/ofa_util",),
    **{f"memory.{name}": (f"fb_memory_usage/{name}",) for name in ("total", "reserved", "used", "free")},
    "bar1.total": ("bar1_memory_usage/total",), "bar1.used": ("bar1_memory_usage/used",),
    "clock.graphics_mhz": ("clocks/graphics_clock",), "clock.sm_mhz": ("clocks/sm_clock",), "clock.memory_mhz": ("clocks/mem_clock",),
    "clock.video_mhz": ("clocks/video_clock",), "fan.0.percent": ("fan_speed",), "pstate": ("performance_state",),
    "pcie.generation": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen",),
    "pcie.generation.max": ("pci/pci_gpu_link_info/pcie_gen/max_link_gen",),
    "pcie.width": ("pci/pci_gpu_link_info/link_widths/current_link_width",),
    "pcie.width.max": ("pci/pci_gpu_link_info/link_widths/max_link_width",),
    "pcie.replays": ("pci/replay_counter",),
    "ecc.volatile.corrected": ("ecc_errors/volatile/single_bit/total",),
    "ecc.volatile.uncorrected": ("ecc_errors/volatile/double_bit/total",),
    "remapped.corrected": ("remapped_rows/remapped_row_corr",), "remapped.uncorrected": ("remapped_rows/remapped_row_unc",),
}  # fmt: skip


class Report(NamedTuple):
    """One GPU."""

    number: int  # -1: not told
    bus_id: str
    name: str
    uuid: str
    serial: str
    firmware: str
    driver: str
    values: Mapping[str, int]


def program() -> str:
    """Its path; empty where it is not installed."""
    places = (*(os.path.join(directory, "nvidia-smi") for directory in os.get_exec_path()), _WSL)
    return next((place for place in places if os.access(place, os.X_OK)), "")


def csv_command(path: str, columns: Sequence[str]) -> list[str]:
    """Only what is asked for: a tenth of the work of -q -x on the driver's side."""
    return [path, f"--query-gpu={','.join((*IDENTITY, *columns))}", "--format=csv,noheader,nounits"]


def xml_command(path: str) -> list[str]:
    return [path, "-q", "-x"]


def invalid_column(text: str) -> str:
    """The column this driver does not know, of its complaint; empty for any other text."""
    match = _INVALID_COLUMN.search(text.encode())
    return match[1].decode() if match else ""


def parse_csv(columns: Sequence[str], output: bytes) -> list[Report]:
    """Raises Unavailable(MALFORMED) for what is not a line per GPU."""
    reports = []
    for line in output.decode("utf-8", "backslashreplace").splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip():
            continue
        if len(cells) != len(IDENTITY) + len(columns):
            raise Unavailable(Reason.MALFORMED, "nvidia-smi --query-gpu", line[:100])
        values: dict[str, int] = {}
        for column, cell in zip(columns, cells[len(IDENTITY) :], strict=True):
            name, unit = COLUMNS[column]
            value = number(cell, unit)
            if value is not None:
                values.setdefault(name, value)
        reports.append(_report(dict(zip(IDENTITY, cells, strict=False)), values))
    return reports


def parse_xml(output: bytes) -> list[Report]:
    """Raises Unavailable(MALFORMED) for what is no XML of nvidia-smi."""
    import xml.etree.ElementTree as ET  # 1 MB resident: only where nvidia-smi is too old for CSV

    try:
        root = ET.fromstring(output)  # noqa: S314 - of a program the administrator installed; expat >= 2.4.1 bounds entities
    except (ET.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        raise Unavailable(Reason.MALFORMED, "nvidia-smi -q -x", str(error)[:100]) from None
    driver = root.findtext("driver_version", "")
    reports = []
    for gpu in root.findall("gpu"):
        identity = {
            "index": "", "pci.bus_id": gpu.get("id", ""), "name": gpu.findtext("product_name", ""), "uuid": gpu.findtext("uuid", ""),
            "serial": gpu.findtext("serial", ""), "vbios_version": gpu.findtext("vbios_version", ""), "driver_version": driver,
        }  # fmt: skip
        found = ((name, _first(gpu.findtext(place) for place in places)) for name, places in ELEMENTS.items())
        reports.append(_report(identity, {name: value for name, value in found if value is not None}))
    return reports


def number(text: str, unit: str = "") -> int | None:
    """A value in our units, of ``71.23 W``, ``1024 MiB``, ``P0``, ``16x`` or, with *unit*, ``71.23``; None for what is none."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match[2] or unit) not in _SCALES:
        return None
    return round(float(match[1]) * _SCALES[match[2] or unit]) if "." in match[1] else int(match[1]) * _SCALES[match[2] or unit]


def _first(texts: Iterator[str | None]) -> int | None:
    return next((value for text in texts if text and (value := number(text)) is not None), None)


def _report(identity: Mapping[str, str], values: Mapping[str, int]) -> Report:
    known = {name: "" if text.startswith(("N/A", "[")) else text for name, text in identity.items()}
    values = {name: value for name, value in values.items() if value <= 100 or not name.startswith("utilization.")}  # NVML's own mistakes
    index = int(known["index"]) if re.fullmatch(r"\d{1,4}", known["index"], re.ASCII) else -1
    return Report(
        index, known["pci.bus_id"], known["name"], known["uuid"], known["serial"], known["vbios_version"], known["driver_version"], values
    )
