"""Which metric each file of amdgpu, i915 and xe is: hwmon counts in mC, uW, uJ, Hz and rpm; GTs in MHz."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.sources.gpu.health import STATES
from otel_hostmetrics.sources.gpu.nvidia_rows import Meaning

_MILLI, _MICRO, _MEGA = 1_000, 1_000_000, 1_000_000
_JOULE_16 = 1 << 16
_PLACES = {"edge": "gpu", "junction": "hotspot", "mem": "memory", "vram": "memory", "pkg": "gpu", "1": "gpu", "2": "gpu", "3": "memory"}
_CLOCKS = {"sclk": "graphics", "mclk": "memory", "1": "graphics", "2": "memory"}
_POWERS = ("1", "PPT", "slowPPT", "card", "pkg")  # pkg is a part of card, which comes first where there is one: see _Device.bound()
_LIMITS = {"crit": "high.degraded", "emergency": "high.critical"}
_PLAIN: dict[str, tuple[Meaning, ...]] = {
    "busy.general_percent": (Meaning(rows.UTILIZATION, {rows.TASK: "general"}, 100), Meaning(rows.UTILIZATION_PERCENT)),
    "busy.video_percent": (Meaning(rows.UTILIZATION, {rows.TASK: "video"}, 100),),
    "busy.general": (Meaning(rows.UTILIZATION, {rows.TASK: "general"}),),
    "busy.video": (Meaning(rows.UTILIZATION, {rows.TASK: "video"}),),
    "busy.copy": (Meaning(rows.UTILIZATION, {rows.TASK: "copy"}),),
    "busy.percent": (Meaning(rows.UTILIZATION_PERCENT),),
    "busy.memory_percent": (Meaning(rows.MEMORY_CONTROLLER, {}, 100), Meaning(rows.MEMORY_PERCENT)),
    "vram.total": (Meaning(rows.MEMORY_LIMIT), Meaning(rows.MEMORY_TOTAL)),
    "vram.used": (Meaning(rows.MEMORY_USAGE), Meaning(rows.MEMORY_USED)),
    "vram.utilization": (Meaning(rows.MEMORY_UTILIZATION),),
    "gtt.total": (Meaning(rows.SHARED_LIMIT),),
    "gtt.used": (Meaning(rows.SHARED_USAGE),),
    "pcie.replays": (Meaning(rows.PCIE_REPLAYS),),
    "power.mean": (Meaning(hardware.POWER), Meaning(rows.POWER_DRAW)),
    "energy_2^-16_j": (Meaning(hardware.ENERGY, {}, _JOULE_16),),
    "link.generation": (Meaning(rows.PCIE_GENERATION),),
    "link.width": (Meaning(rows.PCIE_WIDTH),),
    "link.generation.max": (Meaning(rows.PCIE_GENERATION_LIMIT),),
    "link.width.max": (Meaning(rows.PCIE_WIDTH_LIMIT),),
    **{f"state.{state}": (Meaning(hardware.STATUS, {hardware.STATE: state}),) for state in STATES},
}


def meanings(name: str) -> Sequence[Meaning]:
    """Empty for what is known and not exported."""
    return _PLAIN.get(name) or tuple(_patterned(*name.partition(".")[::2]))


def _patterned(kind: str, rest: str) -> Iterator[Meaning]:
    label, _, what = rest.partition(".")
    if kind == "gt":
        yield from _gt(label, what)
    elif kind == "engine" and rest.endswith(".busy"):
        yield Meaning(rows.ENGINE_UTILIZATION, {rows.ENGINE: rest.removesuffix(".busy")})
    elif kind == "throttle":
        yield Meaning(rows.THROTTLED, {rows.REASON: rest})
    elif kind == "throttled":
        yield Meaning(rows.THROTTLE_TIME, {rows.REASON: rest.removesuffix("_s")})
    elif kind == "ras":
        yield Meaning(rows.ECC_ERRORS, {rows.ERROR_TYPE: what, rows.LOCATION: label, rows.RETENTION: "volatile"})
    else:
        yield from _sensor(kind, label, what)


def _gt(number: str, what: str) -> Iterator[Meaning]:
    """GT 0 has render and compute engines, GT 1 (media) the video engines."""
    domain = {"0": "graphics", "1": "media"}.get(number, f"gt{number}")
    if what == "clock_mhz":
        yield Meaning(rows.FREQUENCY, {rows.CLOCK: domain}, _MEGA)
        if number == "0":
            yield Meaning(rows.CLOCK_GRAPHICS)
    elif what == "clock.max_mhz":
        yield Meaning(rows.FREQUENCY_LIMIT, {rows.CLOCK: domain}, _MEGA)
    elif what.startswith("throttle."):
        yield Meaning(rows.THROTTLED, {rows.REASON: f"{domain}.{what.removeprefix('throttle.')}"})


def _sensor(kind: str, label: str, what: str) -> Iterator[Meaning]:
    if kind == "temp":
        yield from _temperature(label, what)
    elif kind == "power" and label in _POWERS:
        yield from _power(label, what)
    elif kind == "socket_power" and label in _POWERS:  # of an APU: hw.power of its processors, which RAPL tells, has it already
        yield from (each for each in _power(label, what) if each.metric is not hardware.POWER)
    elif kind == "energy" and label in _POWERS and what == "input":
        yield Meaning(hardware.ENERGY, {}, _MICRO)
    elif kind == "fan" and what == "input":
        yield Meaning(hardware.FAN_SPEED, {hardware.SENSOR: f"fan{label}"})
    elif kind == "pwm":
        yield Meaning(hardware.FAN_SPEED_RATIO, {hardware.SENSOR: f"fan{label}"}, 255)
    elif kind == "freq" and what == "input" and label in _CLOCKS:
        yield Meaning(rows.FREQUENCY, {rows.CLOCK: _CLOCKS[label]})


def _temperature(label: str, what: str) -> Iterator[Meaning]:
    sensor = _PLACES.get(label, label)
    if what == "input":
        yield Meaning(hardware.TEMPERATURE, {hardware.SENSOR: sensor}, _MILLI)
        if sensor == "gpu":
            yield Meaning(rows.TEMPERATURE, {}, _MILLI)
    elif what in _LIMITS:
        yield Meaning(hardware.TEMPERATURE_LIMIT, {hardware.SENSOR: sensor, rows.LIMIT: _LIMITS[what]}, _MILLI)


def _power(label: str, what: str) -> Iterator[Meaning]:
    if what in ("average", "input"):  # one of them: see gpu_files.sensors()
        yield Meaning(hardware.POWER, {}, _MICRO)
        yield Meaning(rows.POWER_DRAW, {}, _MICRO)
    elif what == "max" or (what == "cap" and label not in ("card", "pkg")):  # in force; xe's cap is that of bursts (PL2)
        yield Meaning(rows.POWER_LIMITS, {rows.LIMIT: "current"}, _MICRO)
        yield Meaning(rows.POWER_LIMIT, {}, _MICRO)
    elif what in ("cap_max", "cap_min", "cap_default"):
        yield Meaning(rows.POWER_LIMITS, {rows.LIMIT: what.removeprefix("cap_")}, _MICRO)
