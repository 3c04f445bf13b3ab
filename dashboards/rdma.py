"""RDMA devices and ports: traffic, errors, congestion, links, and whose resources they are."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.panels import dashboard, lines, rows, stats

_PORT = "job, instance, rdma_device_name, rdma_port_number"
_LEGEND = "{{instance}} {{rdma_device_name}}/{{rdma_port_number}}"
_WAY = "network_io_direction"
_OURS = 'rdma_device_name!=""'  # of the metrics that adapters share with other hardware
_PROCESS = "instance, rdma_device_name, process_executable_name, process_pid, rdma_kernel_module"
_OF_PROCESS = "{{instance}} {{rdma_device_name}} {{process_executable_name}} {{process_pid}}{{rdma_kernel_module}}"


def _rate(counter: str, by: str = _PORT) -> str:
    return f"sum by ({by}) (rate({counter}[]))"


def _most(counter: str, by: str) -> dict[str, str]:
    """The ten that grow most, of series that are told apart by one more label."""
    return {f"{_LEGEND} {{{{{by}}}}}": f"topk(10, {_rate(counter, f'{_PORT}, {by}')})"}


def _inventory() -> Iterable[Builder[Panel]]:
    now = {
        "ports up": f"sum(hw_network_up{{{_OURS}}})",
        "ports down": f"sum(1 - hw_network_up{{{_OURS}}})",
        "devices": "count(rdma_device_info{})",
        "saturated counters": "sum(rdma_stat_saturated{})",
    }
    port_columns = ("instance", "rdma_device_name", "rdma_port_number", "rdma_protocol", "rdma_link_speed", "network_interface_name")
    device_columns = ("instance", "rdma_device_name", "rdma_device_type", "rdma_device_firmware", "rdma_device_board_id", "numa_node")
    return [
        stats("Devices and ports", "Ports by their state, devices, and counters that count no more.", now),
        rows("Ports", "What each port is.", "rdma_port_info{}", port_columns, width=12),
        rows("Devices", "What each device is.", "rdma_device_info{}", device_columns, width=12),
    ]


def _throughput() -> Iterable[Builder[Panel]]:
    bytes_ = f"hw_network_io_bytes_total{{{_OURS}"
    received, sent = (f"8 * {_rate(bytes_ + f', {_WAY}={way}}}')}" for way in ('"receive"', '"transmit"'))
    per_port = f"on ({_PORT}) group_left () (sum by ({_PORT}) (hw_network_bandwidth_limit_bytes_per_second{{{_OURS}}}) > 0)"
    by_way = f"{_LEGEND} {{{{{_WAY}}}}}"
    share = f"{_rate(bytes_ + '}', f'{_PORT}, {_WAY}')} / {per_port}"
    packets = {by_way: _rate(f"hw_network_packets_total{{{_OURS}}}", f"{_PORT}, {_WAY}")}
    return [
        lines("Received", "Data received by each port.", {_LEGEND: received}, "bps", 12),
        lines("Sent", "Data sent by each port.", {_LEGEND: sent}, "bps", 12),
        lines("Share of the link", "Traffic of each port against the speed of its link.", {by_way: share}, "percentunit"),
        lines("Packets", "Packets per second of each port.", packets, "cps"),
        lines("Operations", "RDMA operations per second, the ten most frequent.", _most("rdma_operations_total{}", "rdma_operation_type"),
              "ops"),
    ]  # fmt: skip


def _errors() -> Iterable[Builder[Panel]]:
    waiting = {_LEGEND: _rate("rdma_port_transmit_wait_total{}")}
    errors = _most(f"hw_errors_total{{{_OURS}}}", "error_type")
    saturated_columns = ("instance", "rdma_device_name", "rdma_port_number", "rdma_stat_name")
    return [
        lines("Errors", "Errors per second of devices and ports, the ten most frequent.", errors, "ops"),
        lines("Discards", "Packets per second that were discarded, the ten most frequent kinds.",
              _most("rdma_port_discards_total{}", "rdma_stat_name"), "cps"),
        lines("Completion errors", "Work requests per second that failed; flush errors are usual at the end of a queue pair.",
              _most("rdma_completion_errors_total{}", "error_type"), "ops"),
        lines("Waiting to send", "Ticks per second in which a port had data to send and no credits.", waiting, "short", 12),
        rows("Saturated counters", "They stand at their largest value until they are reset: errors since then are not seen.",
             "rdma_stat_saturated{} == 1", saturated_columns, width=12),
    ]  # fmt: skip


def _congestion() -> Iterable[Builder[Panel]]:
    by = f"{_PORT}, {_WAY}, rdma_priority"
    legend = f"{_LEGEND} {{{{{_WAY}}}}} {{{{rdma_priority}}}}"
    stalls = {f"{_LEGEND} {{{{rdma_pcie_operation}}}}": f"max by ({_PORT}, rdma_pcie_operation) (rdma_pcie_stalled_ratio{{}})"}
    discarded = {f"{_LEGEND} {{{{rdma_priority}}}} {{{{rdma_stat_name}}}}":
                 _rate("rdma_priority_packets_total{}", f"{_PORT}, rdma_priority, rdma_stat_name")}  # fmt: skip
    return [
        lines("ECN and CNP", "Packets marked, and congestion notifications sent and obeyed, per second.",
              _most("rdma_congestion_events_total{}", "rdma_congestion_event"), "ops", 12),
        lines("Retransmissions and timeouts", "What the transport did because packets were late, lost or not wanted, per second.",
              _most("rdma_transport_events_total{}", "rdma_transport_event"), "ops", 12),
        lines("Pause frames", "Frames per second, by priority (PFC); without one, of the whole link.",
              {legend: _rate("rdma_pause_frames_total{}", by)}, "cps"),
        lines("Time paused", "Share of the time in which nothing was sent because of pause frames.",
              {legend: _rate("rdma_pause_duration_seconds_total{}", by)}, "percentunit"),
        lines("Discarded or marked by priority", "Received packets per second.", discarded, "cps"),
        lines("PCIe stalls", "Share of the last second in which the device waited for PCIe credits.", stalls, "percentunit", 24),
    ]  # fmt: skip


def _links() -> Iterable[Builder[Panel]]:
    state = {_LEGEND: f"max by ({_PORT}) (rdma_port_state{{}})"}
    changes = {f"{_LEGEND} {{{{rdma_link_event}}}}": f"sum by ({_PORT}, rdma_link_event) (increase(rdma_link_events_total{{}}[]))"}
    messages = {f"{_LEGEND} {{{{{_WAY}}}}} {{{{rdma_cm_message}}}}":
                f"topk(10, {_rate('rdma_cm_messages_total{}', f'{_PORT}, {_WAY}, rdma_cm_message')})"}  # fmt: skip
    return [
        lines("State of ports", "1 DOWN, 2 INIT, 3 ARMED, 4 ACTIVE, 5 ACTIVE_DEFER.", state, "none"),
        lines("Link changes", "How often links went down, came up or had to recover.", changes, "short"),
        lines("Connection manager", "Messages per second, the ten most frequent.", messages, "cps"),
    ]


def _resources() -> Iterable[Builder[Panel]]:
    objects = {"{{instance}} {{rdma_device_name}} {{rdma_resource_type}}":
               "sum by (instance, rdma_device_name, rdma_resource_type) (rdma_resources{})"}  # fmt: skip
    memory = {_OF_PROCESS: f"topk(10, sum by ({_PROCESS}) (rdma_process_memory_registered_bytes{{}}))"}
    columns = ("instance", "rdma_device_name", "process_executable_name", "process_pid", "rdma_resource_type")
    owned = f"sum by ({', '.join(columns)}) (rdma_process_resources{{}})"
    pair_columns = ("instance", "rdma_device_name", "process_executable_name", "process_pid", "rdma_qp_type", "rdma_qp_state")
    pairs = f"sum by ({', '.join(pair_columns)}) (rdma_process_queue_pairs{{}})"
    counted = f"topk(10, {_rate('rdma_qp_stat_total{}', 'instance, rdma_device_name, process_pid, rdma_stat_name')})"
    return [
        lines("Objects", "Queue pairs, completion queues, memory regions and so on, by device.", objects, "short", 12),
        lines("Registered memory", "Memory of the ten processes, or kernel modules, that have registered most.", memory, "bytes", 12),
        rows("Objects of processes", "Who holds what.", owned, columns, "objects", 12),
        rows("Queue pairs of processes", "Needs rdma.qps: each costs a query of the device.", pairs, pair_columns, "queue pairs", 12),
        lines("Counters of queue pairs", "Per process, the ten that grow most. Needs `otel-hostmetrics rdma auto DEVICE`.",
              {"{{instance}} {{rdma_device_name}} {{process_pid}} {{rdma_stat_name}}": counted}, "ops", 24),
    ]  # fmt: skip


def build() -> Dashboard:
    """The dashboard, ready to be written."""
    panels = {
        "Devices and ports": _inventory(),
        "Throughput": _throughput(),
        "Errors": _errors(),
        "Congestion and flow control": _congestion(),
        "Links": _links(),
        "Resources": _resources(),
    }
    about = "What RDMA ports carry, what goes wrong on them, and which processes use them."
    return dashboard("otel-hostmetrics-rdma", "RDMA", about, ["rdma"], "rdma_port_state", panels)
