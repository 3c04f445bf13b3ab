"""Which metric each value of NVML is: the one place where its units become ours."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import NamedTuple

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.model import Attributes, Metric
from otel_hostmetrics.kernel.nvml_gpm import PERCENT
from otel_hostmetrics.kernel.nvml_values import CLOCKS, FANS, LOCATIONS, NVLINK5_ERRORS
from otel_hostmetrics.sources.gpu.health import STATES

_MILLI, _MEGA, _KIBI, _MEBI, _GIGA = 1000, 1_000_000, 1024, 1 << 20, 1_000_000_000


class Meaning(NamedTuple):
    """A metric, the attributes of this value, and its scale: a factor where the metric is an integer, else a divisor."""

    metric: Metric
    attributes: Attributes = MappingProxyType({})
    scale: float = 1


def _meanings() -> Iterator[tuple[str, Meaning]]:
    yield from _power_and_heat()
    yield from _utilization_and_memory()
    yield from _clocks()
    yield from _errors()
    yield from _links()
    for state in STATES:
        yield f"state.{state}", Meaning(hardware.STATUS, {hardware.STATE: state})
    for unit in PERCENT:
        yield f"profile.{unit}", Meaning(rows.PROFILE, {rows.UNIT: unit}, 100)
    yield "recovery_action", Meaning(rows.RECOVERY_ACTION)
    yield "instances", Meaning(rows.MIG_INSTANCES)


def _power_and_heat() -> Iterator[tuple[str, Meaning]]:
    yield "energy_mj", Meaning(hardware.ENERGY, {}, _MILLI)
    yield "power.instant_mw", Meaning(hardware.POWER, {}, _MILLI)
    yield "power.instant_mw", Meaning(rows.POWER_DRAW, {}, _MILLI)
    yield "power.average_mw", Meaning(rows.POWER_AVERAGE, {}, _MILLI)
    yield "power.limit.current_mw", Meaning(rows.POWER_LIMIT, {}, _MILLI)
    for limit in ("current", "default", "min", "max"):
        yield f"power.limit.{limit}_mw", Meaning(rows.POWER_LIMITS, {rows.LIMIT: limit}, _MILLI)
    yield "temperature.gpu", Meaning(rows.TEMPERATURE)
    for sensor in ("gpu", "memory"):
        yield f"temperature.{sensor}", Meaning(hardware.TEMPERATURE, {hardware.SENSOR: sensor})
    for name, sensor, limit in (
        ("shutdown", "gpu", "high.critical"), ("slowdown", "gpu", "high.degraded"), ("gpu_max", "gpu", "max"),
        ("memory_max", "memory", "max"),
    ):  # fmt: skip
        yield f"temperature.{name}", Meaning(hardware.TEMPERATURE_LIMIT, {hardware.SENSOR: sensor, rows.LIMIT: limit})
    for fan in range(FANS):
        yield f"fan.{fan}.percent", Meaning(hardware.FAN_SPEED_RATIO, {hardware.SENSOR: f"fan{fan}"}, 100)
        yield f"fan.{fan}.rpm", Meaning(hardware.FAN_SPEED, {hardware.SENSOR: f"fan{fan}"})


def _utilization_and_memory() -> Iterator[tuple[str, Meaning]]:
    for name, task in (
        ("gpu", "general"),
        ("encoder", "encoder"),
        ("decoder", "decoder"),
        ("jpeg", "jpeg"),
        ("optical_flow", "optical_flow"),
    ):
        yield f"utilization.{name}", Meaning(rows.UTILIZATION, {rows.TASK: task}, 100)
    yield "utilization.memory", Meaning(rows.MEMORY_CONTROLLER, {}, 100)
    for name, metric in (
        ("gpu", rows.UTILIZATION_PERCENT), ("memory", rows.MEMORY_PERCENT), ("encoder", rows.ENCODER_PERCENT),
        ("decoder", rows.DECODER_PERCENT),
    ):  # fmt: skip
        yield f"utilization.{name}", Meaning(metric)
    for name, metric in (
        ("memory.total", rows.MEMORY_LIMIT), ("memory.total", rows.MEMORY_TOTAL), ("memory.used", rows.MEMORY_USAGE),
        ("memory.used", rows.MEMORY_USED), ("memory.utilization", rows.MEMORY_UTILIZATION), ("memory.reserved", rows.MEMORY_RESERVED),
        ("memory.free", rows.MEMORY_FREE), ("bar1.total", rows.BAR1_LIMIT), ("bar1.used", rows.BAR1_USAGE),
    ):  # fmt: skip
        yield name, Meaning(metric)


def _clocks() -> Iterator[tuple[str, Meaning]]:
    for name in CLOCKS:
        yield f"clock.{name}_mhz", Meaning(rows.FREQUENCY, {rows.CLOCK: name}, _MEGA)
        yield f"clock.{name}.max_mhz", Meaning(rows.FREQUENCY_LIMIT, {rows.CLOCK: name}, _MEGA)
    for name, metric in (("graphics", rows.CLOCK_GRAPHICS), ("sm", rows.CLOCK_SM), ("memory", rows.CLOCK_MEMORY)):
        yield f"clock.{name}_mhz", Meaning(metric)
    yield "pstate", Meaning(rows.PERFORMANCE_STATE)
    for reason in (
        "power", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability", "sw_thermal", "hw_thermal", "hw_power_brake",
    ):  # fmt: skip
        yield f"throttle.{reason}_ns", Meaning(rows.THROTTLE_TIME, {rows.REASON: reason}, _GIGA)


def _errors() -> Iterator[tuple[str, Meaning]]:
    for kind in ("corrected", "uncorrected"):
        yield f"ecc.volatile.{kind}", Meaning(hardware.ERRORS, {rows.ERROR_TYPE: kind})
        for retention in ("volatile", "aggregate"):
            for location in (*LOCATIONS, "sram", "cbu"):
                attributes = {rows.ERROR_TYPE: kind, rows.LOCATION: location, rows.RETENTION: retention}
                yield f"ecc.{retention}.{kind}.{location}", Meaning(rows.ECC_ERRORS, attributes)
        yield f"remapped.{kind}", Meaning(rows.REMAPPED_ROWS, {rows.CAUSE: kind})
    for cause in ("single_bit", "double_bit"):
        yield f"retired.{cause}", Meaning(rows.RETIRED_PAGES, {rows.CAUSE: cause})
    yield "repair.pending", Meaning(rows.REPAIR_PENDING)
    yield "remapped.failed", Meaning(rows.REPAIR_FAILED)


def _links() -> Iterator[tuple[str, Meaning]]:
    yield "pcie.replays", Meaning(rows.PCIE_REPLAYS)
    for kind in (
        "correctable", "nak_received", "receiver", "bad_tlp", "nak_sent", "bad_dllp", "non_fatal", "fatal", "unsupported_request", "lcrc",
        "lane", "l0_to_recovery",
    ):  # fmt: skip
        yield f"pcie.error.{kind}", Meaning(rows.PCIE_ERRORS, {rows.ERROR_TYPE: kind})
    for kind in dict.fromkeys(("crc_flit", "crc_data", "replay", "recovery", "ecc_data", *(kind for kind, _ in NVLINK5_ERRORS))):
        yield f"nvlink.error.{kind}", Meaning(rows.NVLINK_ERRORS, {rows.ERROR_TYPE: kind})
    for name, metric in (
        ("pcie.generation", rows.PCIE_GENERATION), ("pcie.width", rows.PCIE_WIDTH), ("pcie.generation.max", rows.PCIE_GENERATION_LIMIT),
        ("pcie.width.max", rows.PCIE_WIDTH_LIMIT), ("nvlink.links", rows.NVLINK_LINKS),
    ):  # fmt: skip
        yield name, Meaning(metric)
    for direction in ("transmit", "receive"):
        way = {rows.DIRECTION: direction}
        yield f"nvlink.{direction}_kib", Meaning(rows.NVLINK_IO, way, _KIBI)
        yield f"nvlink.{direction}", Meaning(rows.NVLINK_IO, way)
        yield f"io.{direction}", Meaning(rows.IO, way)
        yield f"pcie.rate.{direction}_kb", Meaning(rows.PCIE_THROUGHPUT, way, 1 / _MILLI)
        yield f"profile.pcie.{direction}_mib", Meaning(rows.PCIE_THROUGHPUT, way, 1 / _MEBI)


MEANINGS: dict[str, tuple[Meaning, ...]] = {}
for _name, _meaning in _meanings():
    MEANINGS[_name] = (*MEANINGS.get(_name, ()), _meaning)
