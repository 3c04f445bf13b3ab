"""What a device is asked, by name: nvml.h, sections "Device Queries" and "Field Value Enums".

Values keep NVML's units, which the names end in where they are not plain numbers. FAST is read in every cycle, SLOW is what
changes rarely or costs the driver more: each call there may go to the GPU's own processor.
"""

from __future__ import annotations

from typing import Final

from otel_hostmetrics.kernel.nvml_batch import ALL_LINKS, Call, Field

_UINT, _ULONG = "I4x", "Q"
_TEMPERATURE_V1 = _FAN_V1 = 0x100000C  # sizeof | version << 24
_MEMORY_V2 = 0x02000028

CLOCKS: Final = ("graphics", "sm", "memory", "video")  # nvmlClockType_t
LOCATIONS: Final = ("l1_cache", "l2_cache", "device_memory", "register_file", "texture_memory")  # order of the NVML_FI_DEV_ECC_* pairs
_SRAM = 7  # nvmlMemoryLocation_t
_THRESHOLDS: Final = ("shutdown", "slowdown", "memory_max", "gpu_max")  # nvmlTemperatureThresholds_t
_LINKS: Final = 32  # of NVLink, asked for at most
FANS: Final = 8  # asked for at most

FAST_CALLS: Final = (
    Call("nvmlDeviceGetUtilizationRates", ("utilization.gpu", "utilization.memory"), ("II",)),
    Call("nvmlDeviceGetEncoderUtilization", ("utilization.encoder", "period.encoder_us"), (_UINT, _UINT)),
    Call("nvmlDeviceGetDecoderUtilization", ("utilization.decoder", "period.decoder_us"), (_UINT, _UINT)),
    Call("nvmlDeviceGetJpgUtilization", ("utilization.jpeg", "period.jpeg_us"), (_UINT, _UINT)),
    Call("nvmlDeviceGetOfaUtilization", ("utilization.optical_flow", "period.optical_flow_us"), (_UINT, _UINT)),
    # v2 (R510): "used" no longer contains what is reserved, as in nvidia-smi.
    Call("nvmlDeviceGetMemoryInfo_v2", ("memory.total", "memory.reserved", "memory.free", "memory.used"), ("8xQQQQ",), (), (_MEMORY_V2,)),
    Call("nvmlDeviceGetMemoryInfo", ("memory.total", "memory.free", "memory.used"), ("QQQ",)),
    Call("nvmlDeviceGetTemperatureV", ("temperature.gpu",), ("8xi4x",), (), (_TEMPERATURE_V1, 0)),  # R570
    Call("nvmlDeviceGetTemperature", ("temperature.gpu",), (_UINT,), (0,)),
    *(Call("nvmlDeviceGetClockInfo", (f"clock.{name}_mhz",), (_UINT,), (number,)) for number, name in enumerate(CLOCKS)),
    Call("nvmlDeviceGetPerformanceState", ("pstate",)),
    Call("nvmlDeviceGetCurrentClocksEventReasons", ("clocks.reasons",), (_ULONG,)),  # R535
    Call("nvmlDeviceGetCurrentClocksThrottleReasons", ("clocks.reasons",), (_ULONG,)),
    *(Call("nvmlDeviceGetFanSpeed_v2", (f"fan.{number}.percent",), (_UINT,), (number,)) for number in range(FANS)),
    *(Call("nvmlDeviceGetFanSpeedRPM", (f"fan.{number}.rpm",), ("8xI4x",), (), (_FAN_V1, number)) for number in range(FANS)),  # R565
)
FAST_FIELDS: Final = (
    Field("energy_mj", 83), Field("power.instant_mw", 186), Field("power.average_mw", 185), Field("power.limit.current_mw", 190),
    Field("temperature.memory", 82),
    Field("throttle.power_ns", 74), Field("throttle.thermal_ns", 75), Field("throttle.sync_boost_ns", 76),
    Field("throttle.board_limit_ns", 77), Field("throttle.low_utilization_ns", 78), Field("throttle.reliability_ns", 79),
    Field("throttle.sw_thermal_ns", 269), Field("throttle.hw_thermal_ns", 270), Field("throttle.hw_power_brake_ns", 271),
    Field("pcie.replays", 94), Field("pcie.transmit", 197), Field("pcie.receive", 198),
    Field("nvlink.transmit_kib", 138, ALL_LINKS), Field("nvlink.receive_kib", 139, ALL_LINKS),
    Field("ecc.volatile.corrected", 3), Field("ecc.volatile.uncorrected", 4),
    Field("recovery_action", 230),
)  # fmt: skip
# For drivers and GPUs that do not know the field.
FALLBACK_CALLS: Final = (
    Call("nvmlDeviceGetTotalEnergyConsumption", ("energy_mj",), (_ULONG,)),  # Volta
    Call("nvmlDeviceGetPowerUsage", ("power.instant_mw",)),
    Call("nvmlDeviceGetEnforcedPowerLimit", ("power.limit.current_mw",)),
    Call("nvmlDeviceGetPcieReplayCounter", ("pcie.replays",)),
)
SLOW_CALLS: Final = (
    Call("nvmlDeviceGetBAR1MemoryInfo", ("bar1.total", "bar1.free", "bar1.used"), ("QQQ",)),
    *(Call("nvmlDeviceGetMaxClockInfo", (f"clock.{name}.max_mhz",), (_UINT,), (number,)) for number, name in enumerate(CLOCKS)),
    *(Call("nvmlDeviceGetTemperatureThreshold", (f"temperature.{name}",), (_UINT,), (number,)) for number, name in enumerate(_THRESHOLDS)),
    Call("nvmlDeviceGetCurrPcieLinkGeneration", ("pcie.generation",)),
    Call("nvmlDeviceGetCurrPcieLinkWidth", ("pcie.width",)),
    Call("nvmlDeviceGetMaxPcieLinkGeneration", ("pcie.generation.max",)),
    Call("nvmlDeviceGetMaxPcieLinkWidth", ("pcie.width.max",)),
    *(
        Call("nvmlDeviceGetMemoryErrorCounter", (f"ecc.{retention}.{kind}.sram",), (_ULONG,), (number, retained, _SRAM))  # Ampere
        for retained, retention in enumerate(("volatile", "aggregate"))
        for number, kind in enumerate(("corrected", "uncorrected"))
    ),
)
SLOW_FIELDS: Final = (
    Field("power.limit.default_mw", 189), Field("power.limit.min_mw", 187), Field("power.limit.max_mw", 188),
    *(
        Field(f"ecc.{retention}.{kind}.{location}", first + 2 * place + number)
        for retention, first in (("volatile", 7), ("aggregate", 18))
        for place, location in enumerate(LOCATIONS)
        for number, kind in enumerate(("corrected", "uncorrected"))
    ),
    Field("ecc.volatile.uncorrected.cbu", 17), Field("ecc.aggregate.uncorrected.cbu", 28),
    Field("retired.single_bit", 29), Field("retired.double_bit", 30), Field("retired.pending", 31),
    Field("remapped.corrected", 142), Field("remapped.uncorrected", 143), Field("remapped.pending", 144), Field("remapped.failed", 145),
    Field("pcie.error.correctable", 173), Field("pcie.error.nak_received", 174), Field("pcie.error.receiver", 175),
    Field("pcie.error.bad_tlp", 176), Field("pcie.error.nak_sent", 177), Field("pcie.error.bad_dllp", 178),
    Field("pcie.error.non_fatal", 179), Field("pcie.error.fatal", 180), Field("pcie.error.unsupported_request", 181),
    Field("pcie.error.lcrc", 182), Field("pcie.error.lane", 183), Field("pcie.error.l0_to_recovery", 169),
    Field("nvlink.links", 91),
    Field("nvlink.error.crc_flit", 38), Field("nvlink.error.crc_data", 45), Field("nvlink.error.replay", 52),
    Field("nvlink.error.recovery", 59), Field("nvlink.error.ecc_data", 160),
)  # fmt: skip
# Blocks for 20 ms in each direction while the GPU counts; KB/s. nvmlPcieUtilCounter_t
PCIE_THROUGHPUT: Final = (
    Call("nvmlDeviceGetPcieThroughput", ("pcie.rate.transmit_kb",), (_UINT,), (0,)),
    Call("nvmlDeviceGetPcieThroughput", ("pcie.rate.receive_kb",), (_UINT,), (1,)),
)


# Of each link of NVLink 5.
NVLINK5_ERRORS: Final = (
    ("malformed_packet", 206), ("buffer_overrun", 207), ("receive", 208), ("receive_remote", 209), ("receive_general", 210),
    ("link_integrity", 211), ("transmit_discard", 212), ("recovery_failed", 214), ("recovery", 215), ("effective", 219), ("symbol", 221),
)  # fmt: skip


def nvlink5_errors(links: int) -> tuple[Field, ...]:
    """Errors per link of NVLink 5, instead of those of all links together."""
    return tuple(
        Field(f"nvlink.error.{kind}.{link}", number, link) for kind, number in NVLINK5_ERRORS for link in range(min(links, _LINKS))
    )


def nvlink5(links: int) -> tuple[Field, ...]:
    """Bytes per link of NVLink 5 (Blackwell), whose older counters read "not supported"; it has no sum of all links."""
    return tuple(
        Field(f"nvlink.{direction}.{link}", number, link)
        for link in range(min(links, _LINKS))
        for direction, number in (("transmit", 202), ("receive", 204))
    )
