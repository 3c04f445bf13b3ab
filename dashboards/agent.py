"""The agent itself: its sources, its exports, its process and its HTTP server."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.panels import dashboard, heat, lines, rows, stats

_SOURCE = "otel_hostmetrics_source_name"
_EXPORTER = "otel_hostmetrics_exporter_name"
_OF_SOURCE = f"{{{{{_SOURCE}}}}}"
_OUTCOME = f"{{{{{_EXPORTER}}}}} {{{{error_type}}}}"


def _rate(counter: str, by: str) -> str:
    return f"sum by ({by}) (rate({counter}[]))"


def _quantiles(histogram: str, by: str) -> dict[str, str]:
    buckets = _rate(f"{histogram}_bucket{{}}", f"{by}, le")
    return {f"p{share * 100:g} {{{{{by}}}}}": f"histogram_quantile({share:g}, {buckets})" for share in (0.5, 0.99)}


def _sources() -> Iterable[Builder[Panel]]:
    now = {
        "agents": "count(otel_hostmetrics_process_start_time_seconds{})",
        "sources ok": "sum(otel_hostmetrics_source_success{})",
        "sources failed": "sum(1 - otel_hostmetrics_source_success{})",
        "series": "sum(otel_hostmetrics_source_series{})",
    }
    problems = {f"{_OF_SOURCE} {{{{error_type}}}}": _rate("otel_hostmetrics_source_problems_total{}", f"{_SOURCE}, error_type")}
    histogram = "otel_hostmetrics_source_duration_seconds"
    buckets = f"sum by (le) (increase({histogram}_bucket{{}}[]))"
    series = {
        _OF_SOURCE: f"sum by ({_SOURCE}) (otel_hostmetrics_source_series{{}})",
        f"{_OF_SOURCE} cut off": f"sum by ({_SOURCE}) (otel_hostmetrics_source_series_dropped{{}})",
    }
    state_columns = ("instance", _SOURCE, "otel_hostmetrics_source_state", "error_type")
    return [
        stats("Agents", "Agents, and how many of their sources gave values or failed in the last cycle.", now),
        rows("State of sources", "ok; partial: some values could not be read; off: nothing for it on this host; failed; late: it hangs.",
             "otel_hostmetrics_source_status{}", state_columns, width=12),
        lines("Problems", "Values that could not be read, by reason. `otel-hostmetrics doctor` tells the cure.", problems, "ops", 12),
        heat("Reading durations", "How long reading a source took: all sources, all agents.", buckets),
        lines("Reading duration", "Median and 99th percentile of the time one reading took.", _quantiles(histogram, _SOURCE), "s"),
        lines("Series", "Series the sources gave, and those cut off by general.max_series.", series, "short"),
    ]  # fmt: skip


def _exports() -> Iterable[Builder[Panel]]:
    attempts, failed = "otel_hostmetrics_export_requests_total{}", 'otel_hostmetrics_export_requests_total{error_type!=""}'
    failed_share = f"{_rate(failed, 'instance')} / {_rate(attempts, 'instance')}"
    queue = {
        "{{instance}}": "sum by (instance) (otel_hostmetrics_export_queue_size_bytes{})",
        "{{instance}} limit": "sum by (instance) (otel_hostmetrics_export_queue_capacity_bytes{})",
    }
    by = f"{_EXPORTER}, error_type"
    durations = _quantiles("otel_hostmetrics_export_duration_seconds", _EXPORTER)
    given_up = f"sum by ({by}) (increase(otel_hostmetrics_export_dropped_total{{}}[]))"
    return [
        lines("Requests", "Attempts to send, per second; one with a reason failed.", {_OUTCOME: _rate(attempts, by)}, "reqps"),
        lines("Failed share", "Share of the attempts that failed.", {"{{instance}}": failed_share}, "percentunit"),
        lines("Points", "Points per second that the collector took; with a reason, those it did not.",
              {_OUTCOME: _rate("otel_hostmetrics_export_points_total{}", by)}, "cps"),
        lines("Export duration", "Median and 99th percentile of the time one attempt took.", durations, "s"),
        lines("Queue", "Encoded requests that wait for the collector; beyond the limit the oldest is dropped.", queue, "bytes"),
        lines("Requests given up", "Requests dropped: queue full, refused for good, or shutdown.", {_OUTCOME: given_up}, "short"),
    ]  # fmt: skip


def _process() -> Iterable[Builder[Panel]]:
    cpu = {"{{instance}} {{cpu_mode}}": _rate("process_cpu_time_seconds_total{}", "instance, cpu_mode")}
    memory = {"{{instance}}": "sum by (instance) (process_memory_usage_bytes{})"}
    uptime = {"{{instance}}": "time() - max by (instance) (otel_hostmetrics_process_start_time_seconds{})"}
    descriptors = {"{{instance}}": "sum by (instance) (otel_hostmetrics_process_file_descriptors{})"}
    threads = {"{{instance}}": "sum by (instance) (otel_hostmetrics_process_threads{})"}
    return [
        lines("CPU", "CPU time of the agent; 100 % is one CPU.", cpu, "percentunit"),
        lines("Resident memory", "Memory of the agent.", memory, "bytes"),
        lines("Uptime", "Time since the agent started.", uptime, "s"),
        lines("Descriptors", "File descriptors the agent holds.", descriptors, "short", 12),
        lines("Threads", "Threads of the agent.", threads, "short", 12),
    ]


def _http() -> Iterable[Builder[Panel]]:
    histogram = "http_server_request_duration_seconds"
    durations = _quantiles(histogram, "http_route")
    answers = _rate(f"{histogram}_count{{}}", "http_route, http_response_status_code")
    connections = {
        "{{instance}} open": "sum by (instance) (otel_hostmetrics_http_connections{})",
        "rejected per second: {{error_type}}": _rate("otel_hostmetrics_http_rejected_total{}", "error_type"),
    }
    return [
        lines("Request duration", "Median and 99th percentile of the time one request took, by route.", durations, "s"),
        lines("Answers", "Requests per second, by route and status.", {"{{http_route}} {{http_response_status_code}}": answers}, "reqps"),
        lines("Connections", "Connections open, and those closed without an answer, by cause.", connections, "short"),
    ]


def build() -> Dashboard:
    """The dashboard, ready to be written."""
    panels = {"Sources": _sources(), "Export": _exports(), "Process": _process(), "HTTP": _http()}
    about = "Whether the agents can see, whether they deliver, and what they cost."
    present = "otel_hostmetrics_process_start_time_seconds"
    return dashboard("otel-hostmetrics-agent", "Host Metrics Agent", about, ["agent"], present, panels)
