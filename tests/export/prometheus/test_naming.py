"""Names in Prometheus: by otlptranslator's rules, and where the stock Python exporter gives another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry

from otel_hostmetrics.catalogue import agent
from otel_hostmetrics.catalogue.model import Kind
from otel_hostmetrics.export.prometheus.naming import label_name, metric_name, unit_name

C, U, G, H = Kind.COUNTER, Kind.UPDOWNCOUNTER, Kind.GAUGE, Kind.HISTOGRAM

# OpenTelemetry name, unit, kind -> Prometheus name, worked out by hand from otlptranslator's metric_namer.go and unit_namer.go.
AGENT = {
    "otel_hostmetrics.source.duration": "otel_hostmetrics_source_duration_seconds",
    "otel_hostmetrics.source.success": "otel_hostmetrics_source_success",
    "otel_hostmetrics.source.status": "otel_hostmetrics_source_status",
    "otel_hostmetrics.source.problems": "otel_hostmetrics_source_problems_total",
    "otel_hostmetrics.source.series": "otel_hostmetrics_source_series",
    "otel_hostmetrics.source.series.dropped": "otel_hostmetrics_source_series_dropped",
    "otel_hostmetrics.workloads": "otel_hostmetrics_workloads",
    "otel_hostmetrics.workload.lookups": "otel_hostmetrics_workload_lookups_total",
    "otel_hostmetrics.workload.lookup.duration": "otel_hostmetrics_workload_lookup_duration_seconds",
    "otel_hostmetrics.export.requests": "otel_hostmetrics_export_requests_total",
    "otel_hostmetrics.export.points": "otel_hostmetrics_export_points_total",
    "otel_hostmetrics.export.duration": "otel_hostmetrics_export_duration_seconds",
    "otel_hostmetrics.export.queue.size": "otel_hostmetrics_export_queue_size_bytes",
    "otel_hostmetrics.export.queue.capacity": "otel_hostmetrics_export_queue_capacity_bytes",
    "otel_hostmetrics.export.dropped": "otel_hostmetrics_export_dropped_total",
    "http.server.request.duration": "http_server_request_duration_seconds",
    "otel_hostmetrics.http.connections": "otel_hostmetrics_http_connections",
    "otel_hostmetrics.http.rejected": "otel_hostmetrics_http_rejected_total",
    "process.cpu.time": "process_cpu_time_seconds_total",
    "process.memory.usage": "process_memory_usage_bytes",
    "otel_hostmetrics.process.file_descriptors": "otel_hostmetrics_process_file_descriptors",
    "otel_hostmetrics.process.threads": "otel_hostmetrics_process_threads",
    "otel_hostmetrics.process.start_time": "otel_hostmetrics_process_start_time_seconds",
}
AWKWARD = {
    ("bpf_program_mem_bytes", "By", C): "bpf_program_mem_bytes_total",
    ("bpf_map_key_size", "", C): "bpf_map_key_size_total",
    ("rapl_power_watts", "W", G): "rapl_power_watts",
    ("hw.energy", "J", C): "hw_energy_joules_total",
    ("hw.temperature", "Cel", G): "hw_temperature_celsius",
    ("hw.gpu.utilization", "1", G): "hw_gpu_utilization_ratio",
    ("hw.gpu.memory.utilization", "1", U): "hw_gpu_memory_utilization",
    ("compression_ratio", "1", G): "compression_ratio",
    ("ratio.of.things", "1", G): "of_things_ratio",
    ("items", "1", C): "items_total",
    ("manager_servers_total", "", G): "manager_servers_total",
    ("requests_total", "", C): "requests_total",
    ("total.requests", "", C): "requests_total",
    ("bytes.read", "By", C): "bytes_read_total",
    ("cpu.seconds.total", "s", C): "cpu_seconds_total",
    ("io.rate", "By/s", G): "io_rate_bytes_per_second",
    ("requests", "1/s", G): "requests_per_second",
    ("io.rate", "{packet}/s", G): "io_rate_per_second",
    ("memory", "By/{page}", G): "memory_bytes",
    ("memory", "By{page}", G): "memory",
    ("packets", "{packet}", C): "packets_total",
    ("clock", "MHz", G): "clock_MHz",
    ("speed", "Gbit/s", G): "speed_Gbit_per_second",
    ("double__under..score--name", "", G): "double_under_score_name",
    ("trailing.", "", G): "trailing",
    ("fan.speed", "%", G): "fan_speed_percent",
    ("MixedCase.Name", "", G): "MixedCase_Name",
    ("odd", "a@b#c/d", G): "odd_a_b_c_per_day",
    ("odd", "/@", G): "odd",
    ("odd", "kB_/s", G): "odd_kB_per_second",
}
# What no OpenTelemetry instrument may be called, so only the rules can be asked.
NO_INSTRUMENT = {("9lives", "", G): "_9lives", ("a:b", "", G): "a:b", ("é.b", "s", G): "b_seconds", ("__x__", "", G): "x"}

# Where the stock exporter (SDK and opentelemetry-exporter-prometheus) gives another name, and why.
STOCK_DIFFERS = {
    ("hw.gpu.utilization", "1", G): ("hw_gpu_utilization", 'maps unit "1" to nothing, for gauges too'),
    ("ratio.of.things", "1", G): ("ratio_of_things", 'maps unit "1" to nothing, so the word stays where it is'),
    ("total.requests", "", C): ("total_requests_total", "looks at the end of a name only, not at its words"),
    ("bytes.read", "By", C): ("bytes_read_bytes_total", "looks at the end of a name only, not at its words"),
    ("memory", "By/{page}", G): ("memory_By", "does not translate a unit whose divisor is an annotation"),
    ("memory", "By{page}", G): ("memory_bytes", "drops the annotation only, Prometheus the unit it is attached to"),
    ("trailing.", "", G): ("trailing_", "keeps an underscore at the end"),
    ("MixedCase.Name", "", G): ("mixedcase_name", "the SDK lowers the names of instruments"),
    ("odd", "/@", G): ("odd_per__", "keeps a divisor of which nothing is left"),
    ("odd", "kB_/s", G): ("odd_kB__per_second", "joins without looking for underscores"),
}


def stock_name(name: str, unit: str, kind: Kind) -> str:
    """What a real SDK MeterProvider with a PrometheusMetricReader puts on its page."""
    registry = CollectorRegistry()
    provider = MeterProvider([PrometheusMetricReader(disable_target_info=True, registry=registry)], shutdown_on_exit=False)
    meter = provider.get_meter("test")
    if kind is H:
        meter.create_histogram(name, unit).record(1.0)
    else:
        create = {C: meter.create_observable_counter, U: meter.create_observable_up_down_counter, G: meter.create_observable_gauge}[kind]
        create(name, [lambda _: [Observation(1)]], unit)
    (family,) = registry.collect()
    provider.shutdown()
    return family.name + ("_total" if family.type == "counter" else "")


@pytest.mark.parametrize("metric", agent.ALL, ids=lambda metric: metric.name)
def test_every_agent_row_has_the_name_otlptranslator_gives_it(metric):
    assert metric_name(metric.name, metric.unit, metric.kind) == AGENT[metric.name]


@pytest.mark.parametrize(("given_", "expected"), [*AWKWARD.items(), *NO_INSTRUMENT.items()], ids=str)
def test_awkward_names_follow_otlptranslator(given_, expected):
    assert metric_name(*given_) == expected


@pytest.mark.parametrize("metric", agent.ALL, ids=lambda metric: metric.name)
def test_every_agent_row_has_the_same_name_on_the_stock_path(metric):
    assert stock_name(metric.name, metric.unit, metric.kind) == AGENT[metric.name]


@pytest.mark.parametrize(("given_", "expected"), AWKWARD.items(), ids=str)
def test_awkward_names_on_the_stock_path_differ_only_where_listed(given_, expected):
    listed, _reason = STOCK_DIFFERS.get(given_, (expected, ""))
    assert stock_name(*given_) == listed
    assert given_ not in STOCK_DIFFERS or listed != expected, "no longer a difference"


@pytest.mark.parametrize("name", ["", "@#$%", "___", "名前"])
def test_a_name_of_which_nothing_is_left_is_refused(name):
    with pytest.raises(ValueError, match="no character"):
        metric_name(name, "", G)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("", ""), ("1", ""), ("By", "bytes"), ("By/s", "bytes_per_second"), ("1/s", "per_second"), ("{packet}", ""),
        ("{packet}/s", "per_second"),
        (" s ", "seconds"), ("s/", "seconds"), ("unit__a", "unit_a"), ("_x_", "x"), ("km/h", "km_per_hour"), ("%", "percent"),
    ],
)  # fmt: skip
def test_units_in_words(unit, expected):
    assert unit_name(unit) == expected


# From otlptranslator's label_namer.go, neither of its deprecated options set.
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("http.method", "http_method"), ("with:colons", "with_colons"), ("CamelCase", "CamelCase"), ("a!b&c)", "a_b_c_"),
        ("x_字符", "x_"),
        (".foo", "_foo"), ("_foo", "_foo"), ("__foo", "_foo"), ("a__b", "a_b"), ("__a__b__", "__a_b__"), ("a___", "a_"),
        ("123a", "key_123a"), ("9", "key_9"),
    ],
)  # fmt: skip
def test_labels_follow_otlptranslator(key, expected):
    assert label_name(key) == expected


@pytest.mark.parametrize("key", ["", "__", "____", "ようこそ", "."])
def test_a_label_of_which_nothing_is_left_is_refused(key):
    with pytest.raises(ValueError, match="no character"):
        label_name(key)


@given(st.text(), st.text(max_size=12), st.sampled_from(Kind))
def test_any_name_becomes_a_valid_one_or_is_refused(name, unit, kind):
    try:
        found = metric_name(name, unit, kind)
    except ValueError:
        return
    assert re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", found)
    assert found.endswith("total") or kind is not C


@given(st.text())
def test_any_key_becomes_a_valid_label_or_is_refused(key):
    try:
        found = label_name(key)
    except ValueError:
        return
    assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", found)
