"""What is measured of GPUs.

The first part keeps the names and labels of the Go exporter ``gpu_exporter``, the second those of the semantic
conventions (docs/hardware/gpu.md, v1.44). ``hw.energy``, ``hw.power``, ``hw.temperature``, ``hw.fan.*``, ``hw.errors`` and
``hw.status`` of GPUs are in hardware.py.
"""

from __future__ import annotations

from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.catalogue.process import EXECUTABLE, PID

ID, NAME, VENDOR, PARENT = "hw.id", "hw.name", "hw.vendor", "hw.parent"
TASK, DIRECTION, ERROR_TYPE, LIMIT = "hw.gpu.task", "network.io.direction", "error.type", "hw.limit_type"
CLOCK, REASON, LOCATION, RETENTION, CAUSE = (
    "hw.gpu.clock.domain", "hw.gpu.throttle.reason", "hw.gpu.memory.location", "hw.gpu.ecc.retention", "hw.gpu.memory.repair.cause",
)  # fmt: skip
XID, UNIT, ENGINE, REGION = "hw.gpu.xid", "hw.gpu.unit", "hw.gpu.engine", "hw.gpu.memory.region"

_SEED = ("gpu_id", "gpu_name", "gpu_uuid")
_GPU = (ID,)
_DESCRIPTION = (NAME, VENDOR, PARENT)


def _seed(name: str, description: str, reads: str, unit: str = "", attributes: tuple[str, ...] = _SEED, integer: bool = True) -> Metric:
    return Metric(name, Kind.GAUGE, unit, description, reads, attributes, origin="gpu_exporter", integer=integer)


def _own(name: str, kind: Kind, unit: str, description: str, reads: str, more: tuple[str, ...] = (), integer: bool = True) -> Metric:
    return Metric(name, kind, unit, description, reads, (*_GPU, *more), _DESCRIPTION, integer=integer)


def _semconv(name: str, kind: Kind, unit: str, description: str, reads: str, more: tuple[str, ...] = (), integer: bool = True) -> Metric:
    return Metric(name, kind, unit, description, reads, (*_GPU, *more), _DESCRIPTION, origin="semconv", integer=integer)


# Seed 2. nvidia-smi's "used" memory leaves out what the driver reserves; its "memory utilization" is that of the controller.
POWER_DRAW = _seed(
    "gpu_power_draw_watts", "Power the GPU draws; of AMD's APUs that of the socket, with its processors.",
    "as hw.power; hwmon power1_average, power1_input of APUs, which have no hw.power and hw.energy of their own: RAPL tells it",
    "W", integer=False,
)  # fmt: skip
POWER_LIMIT = _seed("gpu_power_limit_watts", "Power limit in force.", "as hw.gpu.power.limit, current", "W", integer=False)
TEMPERATURE = _seed("gpu_temperature_celsius", "Temperature of the GPU.", "as hw.temperature of the gpu", "Cel", integer=False)
UTILIZATION_PERCENT = _seed("gpu_utilization_percent", "Share of time in which a kernel ran.", "as hw.gpu.utilization", "%")
MEMORY_PERCENT = _seed(
    "gpu_memory_utilization_percent", "Share of time in which memory was read or written; not how full it is.",
    "as hw.gpu.memory.controller.utilization", "%",
)  # fmt: skip
ENCODER_PERCENT = _seed("gpu_encoder_utilization_percent", "Utilization of the video encoder.", "as hw.gpu.utilization, encoder", "%")
DECODER_PERCENT = _seed("gpu_decoder_utilization_percent", "Utilization of the video decoder.", "as hw.gpu.utilization, decoder", "%")
MEMORY_USED = _seed("gpu_memory_used_bytes", "Memory in use.", "as hw.gpu.memory.usage", "By")
MEMORY_TOTAL = _seed("gpu_memory_total_bytes", "Size of the memory.", "as hw.gpu.memory.limit", "By")
CLOCK_GRAPHICS = _seed("gpu_clocks_graphics_mhz", "Clock of the graphics engine.", "as hw.gpu.clock.frequency, graphics")
CLOCK_SM = _seed("gpu_clocks_sm_mhz", "Clock of the streaming multiprocessors.", "as hw.gpu.clock.frequency, sm")
CLOCK_MEMORY = _seed("gpu_clocks_memory_mhz", "Clock of the memory.", "as hw.gpu.clock.frequency, memory")
COUNT = _seed(
    "gpu_count", "GPUs with a driver that answers, of any vendor; 0 on a host without one.", "the source's devices", attributes=()
)
EXPORTER_INFO = _seed("gpu_exporter_info", "Version of the exporter; always 1.", "this agent", attributes=("version", "language"))

UTILIZATION = _semconv(
    "hw.gpu.utilization", Kind.GAUGE, "1", "Fraction of time spent in a specific task.",
    "nvmlDeviceGetUtilizationRates, ...GetEncoderUtilization, ...Decoder..., ...Jpg..., ...Ofa...; gpu_busy_percent; Intel: "
    "the busiest engine for it", (TASK,), integer=False,
)  # fmt: skip
ENGINE_UTILIZATION = _own(
    "hw.gpu.engine.utilization", Kind.GAUGE, "1", "Fraction of time an engine worked, over the last window of at least a second.",
    "perf PMUs with CAP_PERFMON: i915 NAME-busy (Linux 4.16); xe engine-active-ticks by engine-total-ticks (6.15, gpu.xe_engines)",
    (ENGINE,), integer=False,
)  # fmt: skip
MEMORY_LIMIT = _semconv(
    "hw.gpu.memory.limit", Kind.UPDOWNCOUNTER, "By", "Size of the GPU memory.", "nvmlDeviceGetMemoryInfo_v2.total; mem_info_vram_total",
)  # fmt: skip
MEMORY_USAGE = _semconv(
    "hw.gpu.memory.usage", Kind.UPDOWNCOUNTER, "By", "GPU memory used.", "nvmlDeviceGetMemoryInfo_v2.used; mem_info_vram_used",
)  # fmt: skip
MEMORY_UTILIZATION = _semconv(
    "hw.gpu.memory.utilization", Kind.GAUGE, "1", "Fraction of GPU memory used.", "used / total of the same reading", integer=False,
)  # fmt: skip
IO = _semconv(
    "hw.gpu.io", Kind.COUNTER, "By", "Received and transmitted bytes by the GPU.",
    "NVML_FI_DEV_PCIE_COUNT_{RX,TX}_BYTES where the counter is seen to be wider than 32 bits", (DIRECTION,),
)  # fmt: skip

INFO = Metric(
    "hw.gpu.info", Kind.GAUGE, "", "What a GPU is; always 1. Join on hw.id.", "NVML; sysfs of the DRM device",
    (ID, VENDOR), (NAME, PARENT, "hw.model", "hw.serial_number", "hw.driver_version", "hw.firmware_version", "hw.gpu.index",
                   "hw.gpu.pci.address", "hw.gpu.mig.gpu_instance", "hw.gpu.mig.compute_instance"),
)  # fmt: skip
POWER_AVERAGE = _own(
    "hw.gpu.power.average", Kind.GAUGE, "W", "Power, averaged over a second.", "NVML_FI_DEV_POWER_AVERAGE", integer=False,
)  # fmt: skip
POWER_LIMITS = _own(
    "hw.gpu.power.limit", Kind.GAUGE, "W", "Power limits: current is the one in force.",
    "NVML_FI_DEV_POWER_{CURRENT,DEFAULT,MIN,MAX}_LIMIT; hwmon power1_cap, power1_max", (LIMIT,), integer=False,
)  # fmt: skip
MEMORY_RESERVED = _own(
    "hw.gpu.memory.reserved", Kind.UPDOWNCOUNTER, "By", "Memory the driver and firmware keep to themselves.",
    "nvmlDeviceGetMemoryInfo_v2.reserved",
)  # fmt: skip
MEMORY_FREE = _own(
    "hw.gpu.memory.free", Kind.UPDOWNCOUNTER, "By", "Memory free to be allocated.", "nvmlDeviceGetMemoryInfo_v2.free",
)  # fmt: skip
MEMORY_CONTROLLER = _own(
    "hw.gpu.memory.controller.utilization", Kind.GAUGE, "1", "Fraction of time in which memory was read or written.",
    "nvmlDeviceGetUtilizationRates.memory; mem_busy_percent", integer=False,
)  # fmt: skip
BAR1_LIMIT = _own("hw.gpu.bar1.limit", Kind.UPDOWNCOUNTER, "By", "Size of the BAR1 window.", "nvmlDeviceGetBAR1MemoryInfo.bar1Total")
BAR1_USAGE = _own("hw.gpu.bar1.usage", Kind.UPDOWNCOUNTER, "By", "BAR1 window in use.", "nvmlDeviceGetBAR1MemoryInfo.bar1Used")
SHARED_LIMIT = _own(
    "hw.gpu.memory.shared.limit", Kind.UPDOWNCOUNTER, "By", "Host memory the GPU may use (GTT).", "mem_info_gtt_total",
)  # fmt: skip
SHARED_USAGE = _own("hw.gpu.memory.shared.usage", Kind.UPDOWNCOUNTER, "By", "Host memory the GPU uses (GTT).", "mem_info_gtt_used")
FREQUENCY = _own(
    "hw.gpu.clock.frequency", Kind.GAUGE, "Hz", "Clock, by domain.",
    "nvmlDeviceGetClockInfo; hwmon freqN_input; rps_act_freq_mhz, freq0/act_freq", (CLOCK,),
)  # fmt: skip
FREQUENCY_LIMIT = _own(
    "hw.gpu.clock.frequency.limit", Kind.GAUGE, "Hz", "Highest clock, by domain.",
    "nvmlDeviceGetMaxClockInfo; rps_max_freq_mhz, freq0/max_freq", (CLOCK,),
)  # fmt: skip
PERFORMANCE_STATE = _own(
    "hw.gpu.performance.state", Kind.GAUGE, "", "P-state: 0 is the fastest, 15 the slowest.", "nvmlDeviceGetPerformanceState",
)  # fmt: skip
THROTTLE_TIME = _own(
    "hw.gpu.throttle.time", Kind.COUNTER, "s",
    "Time in which clocks were held down, by reason; reasons overlap. Of NVIDIA's and AMD's Instinct from MI300 on, whose time counts "
    "from the agent's first look.",
    "NVML_FI_DEV_PERF_POLICY_*, NVML_FI_DEV_CLOCKS_EVENT_REASON_*; gpu_metrics 1.6 to 1.9: *_residency_acc / accumulation_counter x "
    "firmware_timestamp",
    (REASON,), integer=False,
)  # fmt: skip
THROTTLED = _own(
    "hw.gpu.throttle.active", Kind.GAUGE, "",
    "1 while clocks are held down, by reason. Of GPUs that tell no time: Intel's, by clock domain, AMD's Radeon (from RDNA 3 on "
    "without the hot spot, which its firmware always claims) and MI200.",
    "i915 gt/gtN/throttle_reason_*, xe freq0/throttle/reason_*; gpu_metrics 1.3: indep_throttle_status", (REASON,),
)  # fmt: skip
ECC_ERRORS = _own(
    "hw.gpu.ecc.errors", Kind.COUNTER, "{error}",
    "ECC errors by place: since the driver was loaded (volatile), or of a lifetime (aggregate). Corrected, uncorrected, or deferred: "
    "found in data that nobody has used yet (AMD).",
    "NVML_FI_DEV_ECC_*; nvmlDeviceGetMemoryErrorCounter of SRAM; ras/*_err_count", (ERROR_TYPE, LOCATION, RETENTION),
)  # fmt: skip
RETIRED_PAGES = _own(
    "hw.gpu.memory.retired_pages", Kind.UPDOWNCOUNTER, "{page}", "Memory pages taken out of use.", "NVML_FI_DEV_RETIRED_{SBE,DBE}",
    (CAUSE,),
)  # fmt: skip
REMAPPED_ROWS = _own(
    "hw.gpu.memory.remapped_rows", Kind.UPDOWNCOUNTER, "{row}", "Memory rows replaced by spare ones.", "NVML_FI_DEV_REMAPPED_{COR,UNC}",
    (CAUSE,),
)  # fmt: skip
REPAIR_PENDING = _own(
    "hw.gpu.memory.repair.pending", Kind.GAUGE, "", "1 if memory waits to be repaired at the next reset of the GPU.",
    "NVML_FI_DEV_RETIRED_PENDING, NVML_FI_DEV_REMAPPED_PENDING",
)  # fmt: skip
REPAIR_FAILED = _own(
    "hw.gpu.memory.repair.failed", Kind.GAUGE, "", "1 if memory could not be repaired: no spare rows are left.",
    "NVML_FI_DEV_REMAPPED_FAILURE",
)  # fmt: skip
PCIE_GENERATION = _own(
    "hw.gpu.pcie.link.generation", Kind.GAUGE, "", "PCI Express generation the link runs at now; idle GPUs lower it.",
    "nvmlDeviceGetCurrPcieLinkGeneration; current_link_speed, of the card's own switch if it has one",
)  # fmt: skip
PCIE_WIDTH = _own(
    "hw.gpu.pcie.link.width", Kind.GAUGE, "{lane}", "PCI Express lanes in use.", "nvmlDeviceGetCurrPcieLinkWidth; current_link_width",
)  # fmt: skip
PCIE_GENERATION_LIMIT = _own(
    "hw.gpu.pcie.link.generation.limit", Kind.GAUGE, "", "Highest PCI Express generation of GPU and slot.",
    "nvmlDeviceGetMaxPcieLinkGeneration; max_link_speed",
)  # fmt: skip
PCIE_WIDTH_LIMIT = _own(
    "hw.gpu.pcie.link.width.limit", Kind.GAUGE, "{lane}", "Most PCI Express lanes of GPU and slot.",
    "nvmlDeviceGetMaxPcieLinkWidth; max_link_width",
)  # fmt: skip
PCIE_REPLAYS = _own(
    "hw.gpu.pcie.replays", Kind.COUNTER, "{replay}", "PCI Express packets sent again.",
    "NVML_FI_DEV_PCIE_REPLAY_COUNTER; pcie_replay_count",
)  # fmt: skip
PCIE_ERRORS = _own(
    "hw.gpu.pcie.errors", Kind.COUNTER, "{error}", "PCI Express errors by kind.", "NVML_FI_DEV_PCIE_COUNT_*, ..._L0_TO_RECOVERY_COUNTER",
    (ERROR_TYPE,),
)  # fmt: skip
PCIE_THROUGHPUT = _own(
    "hw.gpu.pcie.throughput", Kind.GAUGE, "By/s", "PCI Express traffic of the last moments.",
    "nvmlDeviceGetPcieThroughput, 20 ms for each direction (gpu.pcie_throughput); GPM (gpu.profiling)", (DIRECTION,), integer=False,
)  # fmt: skip
NVLINK_IO = _own(
    "hw.gpu.nvlink.io", Kind.COUNTER, "By", "Payload over all NVLinks.",
    "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_{RX,TX}; NVML_FI_DEV_NVLINK_COUNT_{RCV,XMIT}_BYTES (NVLink 5)", (DIRECTION,),
)  # fmt: skip
NVLINK_ERRORS = _own(
    "hw.gpu.nvlink.errors", Kind.COUNTER, "{error}", "NVLink errors over all links, by kind.",
    "NVML_FI_DEV_NVLINK_*_ERROR_COUNT_TOTAL; NVML_FI_DEV_NVLINK_COUNT_*_ERRORS, *_EVENTS, XMIT_DISCARDS (NVLink 5)", (ERROR_TYPE,),
)  # fmt: skip
NVLINK_LINKS = _own("hw.gpu.nvlink.links", Kind.UPDOWNCOUNTER, "{link}", "NVLinks of the GPU.", "NVML_FI_DEV_NVLINK_LINK_COUNT")
XID_ERRORS = _own(
    "hw.gpu.xid.errors", Kind.COUNTER, "{error}",
    "XID errors since this agent began to listen, by number. A series begins with its first error, which increase() does not see.",
    "nvmlEventSetWait_v2, nvmlEventTypeXidCriticalError", (XID,),
)  # fmt: skip
RECOVERY_ACTION = _own(
    "hw.gpu.recovery.action", Kind.GAUGE, "",
    "What the driver asks for: 0 nothing, 1 reset of the GPU, 2 reboot, 3 drain peer-to-peer, 4 drain and reset.",
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
)  # fmt: skip
PROFILE = _own(
    "hw.gpu.profile.utilization", Kind.GAUGE, "1", "How busy a unit was since the last cycle; needs Hopper or newer, and gpu.profiling.",
    "nvmlGpmMetricsGet", (UNIT,), integer=False,
)  # fmt: skip
MIG_INSTANCES = _own(
    "hw.gpu.mig.instances", Kind.UPDOWNCOUNTER, "{instance}", "MIG devices of the GPU.", "nvmlDeviceGetMigDeviceHandleByIndex"
)

PROCESSES = _own(
    "hw.gpu.processes", Kind.UPDOWNCOUNTER, "{process}",
    "Processes that use the GPU; of a GPU with MIG, those of all its instances. Told in the host's PID namespace.",
    "nvmlDeviceGet{Compute,Graphics,MPSCompute}RunningProcesses_v3, those that live",
)  # fmt: skip
PROCESS_MEMORY = Metric(
    "process.gpu.memory.usage", Kind.UPDOWNCOUNTER, "By", "GPU memory a process uses.",
    "nvmlDeviceGet{Compute,Graphics,MPSCompute}RunningProcesses_v3; fdinfo drm-memory-*, drm-resident-*", (PID, ID), (REGION, EXECUTABLE),
)  # fmt: skip
PROCESS_UTILIZATION = Metric(
    "process.gpu.utilization", Kind.GAUGE, "1", "Share of the GPU's time a process took, by task.", "nvmlDeviceGetProcessUtilization",
    (PID, ID, TASK), (EXECUTABLE,), integer=False,
)  # fmt: skip
PROCESS_TIME = Metric(
    "process.gpu.time", Kind.COUNTER, "s", "Time a process kept an engine of the GPU busy.", "fdinfo drm-engine-* (Linux 5.19)",
    (PID, ID, ENGINE), (EXECUTABLE,), integer=False,
)  # fmt: skip

SEED = (
    POWER_DRAW, POWER_LIMIT, TEMPERATURE, UTILIZATION_PERCENT, MEMORY_PERCENT, ENCODER_PERCENT, DECODER_PERCENT, MEMORY_USED, MEMORY_TOTAL,
    CLOCK_GRAPHICS, CLOCK_SM, CLOCK_MEMORY, COUNT, EXPORTER_INFO,
)  # fmt: skip
PROCESS = (PROCESS_MEMORY, PROCESS_UTILIZATION, PROCESS_TIME)
ALL = (
    *SEED, UTILIZATION, ENGINE_UTILIZATION,
    MEMORY_LIMIT, MEMORY_USAGE, MEMORY_UTILIZATION, IO, INFO, POWER_AVERAGE, POWER_LIMITS, MEMORY_RESERVED, MEMORY_FREE,
    MEMORY_CONTROLLER, BAR1_LIMIT, BAR1_USAGE, SHARED_LIMIT, SHARED_USAGE, FREQUENCY, FREQUENCY_LIMIT, PERFORMANCE_STATE, THROTTLE_TIME,
    THROTTLED, ECC_ERRORS, RETIRED_PAGES, REMAPPED_ROWS, REPAIR_PENDING, REPAIR_FAILED, PCIE_GENERATION, PCIE_WIDTH, PCIE_GENERATION_LIMIT,
    PCIE_WIDTH_LIMIT, PCIE_REPLAYS, PCIE_ERRORS, PCIE_THROUGHPUT, NVLINK_IO, NVLINK_ERRORS, NVLINK_LINKS, XID_ERRORS, RECOVERY_ACTION,
    PROFILE, MIG_INSTANCES, PROCESSES, *PROCESS, hardware.ENERGY, hardware.POWER, *hardware.THERMAL, hardware.ERRORS, hardware.STATUS,
)  # fmt: skip
