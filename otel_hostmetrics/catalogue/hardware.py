"""Rows of the semantic conventions for hardware, which several sources emit (docs/hardware of the conventions, v1.44).

``hw.energy`` and ``hw.power`` are for parts that do not contain each other - a processor package, the memory behind it, a
GPU - so that their sum is never counted twice. What a whole host takes has names of its own, ``hw.host.*``: a MUST there.
"""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import Kind, Metric

ID, TYPE = "hw.id", "hw.type"
STATE = "hw.state"  # ok, degraded, failed, predicted_failure
SENSOR, LIMIT = "hw.sensor_location", "hw.limit_type"
DIRECTION = "network.io.direction"  # receive, transmit
ERROR_TYPE = "error.type"
NETWORK = "network"  # hw.type of all network adapters
STATES = ("ok", "degraded", "failed")

COMPONENT = (ID, TYPE)
DESCRIPTION = ("hw.name", "hw.parent")
_ADAPTER = ("rdma.device.name", "rdma.port.number")  # beside the conventions' own: joins a point with the source's other metrics

ENERGY = Metric(
    "hw.energy", Kind.COUNTER, "J", "Energy consumed by the component.",
    "of processors and memory: rapl.zone.energy of the package and dram zones, each zone once; of GPUs: since the driver was loaded",
    COMPONENT, DESCRIPTION, origin="semconv", integer=False,
)  # fmt: skip
POWER = Metric(
    "hw.power", Kind.GAUGE, "W", "Instantaneous power consumed by the component.",
    "of processors, memory and Intel's GPUs: mean over the last window of at least a second", COMPONENT, DESCRIPTION, origin="semconv",
    integer=False,
)  # fmt: skip
HOST_ENERGY = Metric(
    "hw.host.energy", Kind.COUNTER, "J", "Total energy consumed by the entire physical host.",
    "the psys zone with rapl.psys_is_host; hwmon of an ACPI power meter", ("hw.id",), DESCRIPTION, origin="semconv", integer=False,
)  # fmt: skip
HOST_POWER = Metric(
    "hw.host.power", Kind.GAUGE, "W", "Instantaneous power consumed by the entire physical host.",
    "as hw.host.energy: mean over the last window of at least a second", ("hw.id",), DESCRIPTION, origin="semconv", integer=False,
)  # fmt: skip
TEMPERATURE = Metric(
    "hw.temperature", Kind.GAUGE, "Cel", "Temperature in degrees Celsius.",
    "of GPUs: nvmlDeviceGetTemperatureV, NVML_FI_DEV_MEMORY_TEMP; hwmon tempN_input", (ID, SENSOR), DESCRIPTION, origin="semconv",
    integer=False,
)  # fmt: skip
TEMPERATURE_LIMIT = Metric(
    "hw.temperature.limit", Kind.GAUGE, "Cel", "Temperature limit in degrees Celsius.",
    "of GPUs: nvmlDeviceGetTemperatureThreshold; hwmon tempN_crit, tempN_emergency", (ID, SENSOR, LIMIT), DESCRIPTION, origin="semconv",
    integer=False,
)  # fmt: skip
FAN_SPEED = Metric(
    "hw.fan.speed", Kind.GAUGE, "rpm", "Fan speed in revolutions per minute.", "of GPUs: nvmlDeviceGetFanSpeedRPM; hwmon fanN_input",
    (ID, SENSOR), DESCRIPTION, origin="semconv",
)  # fmt: skip
FAN_SPEED_RATIO = Metric(
    "hw.fan.speed_ratio", Kind.GAUGE, "1", "Fan speed expressed as a fraction of its maximum speed.",
    "of GPUs: nvmlDeviceGetFanSpeed_v2; hwmon pwmN of amdgpu", (ID, SENSOR), DESCRIPTION, origin="semconv", integer=False,
)  # fmt: skip

NETWORK_IO = Metric(
    "hw.network.io", Kind.COUNTER, "By", "Received and transmitted network traffic in bytes.",
    "counters/port_{rcv,xmit}_data x 4; hw_counters: bytes as the driver counts them", (*COMPONENT, DIRECTION), ("network.type", *_ADAPTER),
    origin="semconv",
)  # fmt: skip
NETWORK_PACKETS = Metric(
    "hw.network.packets", Kind.COUNTER, "{packet}", "Received and transmitted network traffic in packets (or frames).",
    "counters/port_{rcv,xmit}_packets; hw_counters: packets as the driver counts them", (*COMPONENT, DIRECTION),
    ("network.type", *_ADAPTER), origin="semconv",
)  # fmt: skip
NETWORK_UP = Metric(
    "hw.network.up", Kind.UPDOWNCOUNTER, "1", "Link status: `1` (up) or `0` (down).", "port state ACTIVE", COMPONENT, _ADAPTER,
    origin="semconv",
)  # fmt: skip
NETWORK_BANDWIDTH_LIMIT = Metric(
    "hw.network.bandwidth.limit", Kind.UPDOWNCOUNTER, "By/s", "Link speed.", "ports/N/rate", COMPONENT, _ADAPTER, origin="semconv",
)  # fmt: skip
ERRORS = Metric(
    "hw.errors", Kind.COUNTER, "{error}", "Number of errors encountered by the component.",
    "of network adapters: counters/, hw_counters/, ethtool, by the kernel's name; of GPUs: NVML_FI_DEV_ECC_{SBE,DBE}_VOL_TOTAL",
    (*COMPONENT, ERROR_TYPE),
    (DIRECTION, *_ADAPTER), origin="semconv",
)  # fmt: skip
STATUS = Metric(
    "hw.status", Kind.UPDOWNCOUNTER, "1", "Operational status: `1` (true) or `0` (false) for each of the possible states.",
    "of network adapters: degraded is LinkErrorRecovery, failed a driver that does not answer; of GPUs: failed is one that is lost "
    "(NVML; PCI config space all ones) or waits for firmware (xe: survivability_mode), degraded one whose clocks the board holds down, or "
    "that needs a recovery action (NVML) or a reset of its power management (runtime_status: error), predicted_failure one with memory "
    "to be repaired (NVML; amdgpu: gpu_vram_bad_pages); absent while not known",
    (*COMPONENT, STATE), _ADAPTER,
    origin="semconv",
)  # fmt: skip

ADAPTER = (NETWORK_IO, NETWORK_PACKETS, NETWORK_UP, NETWORK_BANDWIDTH_LIMIT, ERRORS, STATUS)
ENERGETIC = (ENERGY, POWER, HOST_ENERGY, HOST_POWER)
THERMAL = (TEMPERATURE, TEMPERATURE_LIMIT, FAN_SPEED, FAN_SPEED_RATIO)
