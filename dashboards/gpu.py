"""GPUs of all vendors: how busy, how warm, how well, and whose work it is."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.panels import dashboard, lines, rows, stats

_GPU = "job, instance, hw_id"
_LEGEND = "{{instance}} {{hw_id}}"
_OURS = 'hw_type="gpu"'
_WAY = "network_io_direction"
_HAS_USAGE = "and on (job, instance, hw_id) hw_gpu_memory_usage_bytes{}"
_PROCESS = "instance, hw_id, process_executable_name, process_pid"
_OF_PROCESS = "{{instance}} {{process_executable_name}} {{process_pid}} {{hw_id}}"


def _level(metric: str, by: str = "", matchers: str = "") -> dict[str, str]:
    """One line for each GPU, and each value of the label *by*."""
    more, legend = (f", {by}", f"{_LEGEND} {{{{{by}}}}}") if by else ("", _LEGEND)
    return {legend: f"max by ({_GPU}{more}) ({metric}{{{matchers}}})"}


def _rate(counter: str, by: str = "", matchers: str = "") -> dict[str, str]:
    more, legend = (f", {by}", f"{_LEGEND} {{{{{by}}}}}") if by else ("", _LEGEND)
    return {legend: f"sum by ({_GPU}{more}) (rate({counter}{{{matchers}}}[]))"}


def _events(counter: str, by: str) -> dict[str, str]:
    """How many came, of a counter whose series begin with their first event: there is no sample before it to tell of a rise."""
    first = f"{counter}{{}} unless {counter}{{}} offset $__rate_interval"
    return {f"{_LEGEND} {{{{{by}}}}}": f"sum by ({_GPU}, {by}) ({first} or increase({counter}{{}}[]))"}


def _overview() -> Iterable[Builder[Panel]]:
    now = {
        "GPUs": "sum(gpu_count{})",
        "not well": f'sum(max by ({_GPU}) (hw_status{{{_OURS}, hw_state=~"degraded|failed|predicted_failure"}}))',
        "busy": 'avg(hw_gpu_utilization_ratio{hw_gpu_task="general"})',
        "memory used": f"sum(hw_gpu_memory_usage_bytes{{}}) / sum(hw_gpu_memory_limit_bytes{{}} {_HAS_USAGE})",
    }
    columns = ("instance", "hw_id", "hw_model", "hw_driver_version", "hw_firmware_version", "hw_gpu_pci_address")
    return [
        stats(
            "GPUs now",
            "How many there are, how many of them have a problem, and which share of them is used.",
            now,
            dict.fromkeys(("busy", "memory used"), "percentunit"),
        ),
        rows("GPUs", "What each GPU is.", "hw_gpu_info{}", columns),
    ]


def _use() -> Iterable[Builder[Panel]]:
    power = {**_level("hw_power_watts", matchers=_OURS),
             f"{_LEGEND} limit": f'max by ({_GPU}) (hw_gpu_power_limit_watts{{hw_limit_type="current"}})'}  # fmt: skip
    held = f"avg by ({_GPU}, hw_gpu_throttle_reason) (avg_over_time(hw_gpu_throttle_active{{}}[]))"
    throttled = {**_rate("hw_gpu_throttle_time_seconds_total", "hw_gpu_throttle_reason"),
                 f"{_LEGEND} {{{{hw_gpu_throttle_reason}}}} (sampled)": held}  # fmt: skip
    return [
        lines("Utilization", "Share of the time in which a GPU did something, by task.",
              _level("hw_gpu_utilization_ratio", "hw_gpu_task"), "percentunit"),
        lines("Memory", "Memory in use.", _level("hw_gpu_memory_usage_bytes"), "bytes"),
        lines("Power and its limit", "Power of each GPU, and the limit in force.", power, "watt"),
        lines("Energy", "Power, by the energy counter: what the limit's window hides is in it.",
              _rate("hw_energy_joules_total", matchers=_OURS), "watt"),
        lines("Temperature", "By sensor.", _level("hw_temperature_celsius", "hw_sensor_location"), "celsius"),
        lines("Clocks", "By domain.", _level("hw_gpu_clock_frequency_hertz", "hw_gpu_clock_domain"), "hertz"),
        lines("Held down", "Share of the time in which clocks were held down, by reason; reasons overlap. Sampled: of the readings.",
              throttled, "percentunit"),
        lines("Engines", "Share of the time in which an engine worked, of Intel GPUs.",
              _level("hw_gpu_engine_utilization_ratio", "hw_gpu_engine"), "percentunit"),
        lines("Profile", "Share of cycles in which a unit was active, where gpu.profiling is on.",
              _level("hw_gpu_profile_utilization_ratio", "hw_gpu_unit"), "percentunit"),
    ]  # fmt: skip


def _health() -> Iterable[Builder[Panel]]:
    not_ok = f'hw_status{{{_OURS}, hw_state!="ok"}} == 1'
    repair = {f"{_LEGEND} retired": f"sum by ({_GPU}) (hw_gpu_memory_retired_pages{{}})",
              f"{_LEGEND} remapped": f"sum by ({_GPU}) (hw_gpu_memory_remapped_rows{{}})"}  # fmt: skip
    return [
        rows("Not well", "GPUs that are degraded, failed or about to fail.", not_ok, ("instance", "hw_id", "hw_state"), width=8),
        lines("XID errors", "How many the driver reports in the kernel's log, by number.",
              _events("hw_gpu_xid_errors_total", "hw_gpu_xid"), "short"),
        lines("ECC errors", "Errors of memory per second: corrected ones are usual, others are not.",
              _rate("hw_gpu_ecc_errors_total", "error_type", 'hw_gpu_ecc_retention="volatile"'), "ops"),
        lines("Repairs", "Pages retired and rows remapped so far.", repair, "short"),
        lines("PCIe", "Replays per second: a link of poor quality.", _rate("hw_gpu_pcie_replays_total"), "ops"),
        lines("PCIe link", "Width of the link now.", _level("hw_gpu_pcie_link_width"), "short"),
    ]  # fmt: skip


def _links() -> Iterable[Builder[Panel]]:
    return [
        lines("PCIe traffic", "Bytes per second.", _rate("hw_gpu_io_bytes_total", _WAY), "Bps", 12),
        lines("NVLink traffic", "Bytes per second.", _rate("hw_gpu_nvlink_io_bytes_total", _WAY), "Bps", 12),
    ]


def _processes() -> Iterable[Builder[Panel]]:
    busiest = f"topk(10, max by ({_PROCESS}, hw_gpu_task) (process_gpu_utilization_ratio{{}}))"
    worked = f"topk(10, sum by ({_PROCESS}, hw_gpu_engine) (rate(process_gpu_time_seconds_total{{}}[])))"
    most = f"topk(10, sum by ({_PROCESS}) (process_gpu_memory_usage_bytes{{}}))"
    container = "k8s_namespace_name, k8s_pod_name, k8s_container_name, container_name"
    by_container = f'sum by ({container}) (process_gpu_memory_usage_bytes{{container_id!=""}})'
    return [
        lines("Processes", "How many use each GPU, of NVIDIA.", _level("hw_gpu_processes"), "short", 12),
        lines("Memory by process", "The ten that use most.", {_OF_PROCESS: most}, "bytes", 12),
        lines("Utilization by process", "The ten busiest, by task.", {f"{_OF_PROCESS} {{{{hw_gpu_task}}}}": busiest}, "percentunit", 12),
        lines("Engines by process", "The ten that kept an engine of AMD and Intel GPUs busy most; of an engine there may be several.",
              {f"{_OF_PROCESS} {{{{hw_gpu_engine}}}}": worked}, "percentunit", 12),
        lines("Memory by container", "Of GPUs, by pod and container.",
              {"{{k8s_namespace_name}}/{{k8s_pod_name}} {{k8s_container_name}} {{container_name}}": by_container}, "bytes", 12),
    ]  # fmt: skip


def build() -> Dashboard:
    """GPUs."""
    about = "GPUs of NVIDIA, AMD and Intel, as otel-hostmetrics sees them."
    panels = {"Overview": _overview(), "Use": _use(), "Health": _health(), "Links": _links(), "Processes": _processes()}
    return dashboard("otel-hostmetrics-gpu", "GPUs", about, ["gpu"], "gpu_count", panels)
