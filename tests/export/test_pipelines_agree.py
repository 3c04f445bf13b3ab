"""One registration, one snapshot, two providers: what ours exports is what the stock SDK exports.

A is our Provider with our encoder; B is the SDK's MeterProvider with the stock OTLP encoder. What they sent is decoded
and compared field by field, as are the two Prometheus pages.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue import CATALOGUE, bpf
from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import Kind
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.export.metering import SCOPE, Replay
from otel_hostmetrics.export.otlp.encode import Encoder
from otel_hostmetrics.export.prometheus.naming import metric_name
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Batch, Reading, Snapshot
from otel_hostmetrics.settings import Otlp, Settings
from otel_hostmetrics.sources.agent import Agent
from otel_hostmetrics.sources.bpf import Bpf
from otel_hostmetrics.telemetry import Telemetry
from tests.export import everything
from tests.export.everything import RESOURCE, ROWS, START, TIME, Exported, decoded
from tests.export.otlp.certificates import Authority
from tests.export.otlp.collector import running
from tests.process import agent

# Every difference there may be, and why.
TIME_IS_OF_THE_READING = "ours is the time of the reading, the SDK's the time of its own collection"
START_IS_OF_THE_COUNTER = "ours is when the kernel's counter began, the SDK's when the process first collected it"
GAUGES_HAVE_NO_START = "the data model gives a gauge no start time; the SDK leaves it out too"
DIFFERENCES = {
    "time": TIME_IS_OF_THE_READING,
    "start": START_IS_OF_THE_COUNTER,
    "sum": "the SDK adds up an interval and then the intervals, we add up measurements: the last digits differ",
    "order": "ours is the order of registration, the SDK's that of the first value; OTLP gives it no meaning",
}


def ours(snapshots: list[Snapshot], rows_: Mapping[str, Any] = ROWS, **otlp: Any) -> tuple[ExportMetricsServiceRequest, bytes]:
    """The last request, and the page of the last batch."""
    provider, current = Provider(), snapshots[:1]
    replay = Replay(provider, rows_, lambda: current[-1])
    encoder = Encoder(RESOURCE, SCOPE, __version__, Otlp(**otlp), START)
    for snapshot in snapshots:
        current.append(snapshot)
        replay.take(snapshot)
        batch = Batch(snapshot, provider.collect())
        (request,) = encoder.encode(batch)
    return ExportMetricsServiceRequest.FromString(request.payload), Page(RESOURCE).render(batch, Format.TEXT)


def stock(snapshots: list[Snapshot], rows_: Mapping[str, Any] = ROWS, **reader: Any) -> tuple[ExportMetricsServiceRequest, bytes]:
    """The same from the SDK, through the same Replay."""
    registry, memory = CollectorRegistry(), InMemoryMetricReader(**reader)
    readers: list[MetricReader] = [memory, PrometheusMetricReader(scope_info_enabled=False, registry=registry)]
    view = View(instrument_name="*", aggregation_cardinality_limit=50_000)
    provider, current = MeterProvider(readers, Resource(dict(RESOURCE)), shutdown_on_exit=False, views=[view]), snapshots[:1]
    replay = Replay(provider, rows_, lambda: current[-1])
    for snapshot in snapshots:
        current.append(snapshot)
        replay.take(snapshot)
        data = memory.get_metrics_data()
        assert data is not None
        request = encode_metrics(data)
    page = generate_latest(registry)
    provider.shutdown()
    return ExportMetricsServiceRequest.FromString(request.SerializeToString()), page


def comparable(metric: Exported) -> Exported:
    """Without what DIFFERENCES names."""
    points = [point._replace(time_ns=0, start_ns=0) for point in metric.points]
    if metric.kind == "histogram":
        points = [point._replace(value=(point.value[0], float(f"{point.value[1]:.12g}"), *point.value[2:])) for point in points]
    return metric._replace(points=points)


def assert_same(a: ExportMetricsServiceRequest, b: ExportMetricsServiceRequest) -> dict[str, Exported]:
    (resources_a, scopes_a, metrics_a), (resources_b, scopes_b, metrics_b) = decoded(a), decoded(b)
    assert resources_a == resources_b
    assert scopes_a == scopes_b
    assert metrics_a.keys() == metrics_b.keys(), DIFFERENCES["order"]
    for name, metric in metrics_a.items():
        assert comparable(metric) == comparable(metrics_b[name])
    return metrics_a


@pytest.fixture(scope="module")
def whole() -> tuple[Any, Any]:
    return ours([everything.snapshot()]), stock([everything.snapshot()])


def test_every_row_of_the_catalogue_goes_out_the_same(whole):
    metrics = assert_same(whole[0][0], whole[1][0])
    assert set(metrics) == {row.name for row in CATALOGUE}
    for row in CATALOGUE:
        metric = metrics[row.name]
        assert (metric.description, metric.unit) == (row.description, row.unit)
        assert metric.kind == {Kind.HISTOGRAM: "histogram", Kind.GAUGE: "gauge"}.get(row.kind, "sum")
        assert metric.monotonic == {Kind.COUNTER: True, Kind.UPDOWNCOUNTER: False}.get(row.kind)
        assert metric.temporality == (0 if row.kind is Kind.GAUGE else 2)
        twins = 2 if row in ROWS["twin"] and row.attributes else 1
        assert len(metric.points) == (2 if row.kind is Kind.HISTOGRAM else twins * len(everything.column(row, "").series))


def test_every_type_of_value_was_among_them(whole):
    """Else the comparison proves less than it says."""
    metrics = decoded(whole[0][0])[2]
    numbers = {point.value[:2] for metric in metrics.values() if metric.kind != "histogram" for point in metric.points}
    assert {("as_int", 2**63 - 1), ("as_int", -(2**63)), ("as_int", 2**53 + 1), ("as_double", -1e300), ("as_double", 5e-324)} <= numbers
    types = {kind for metric in metrics.values() for point in metric.points for _, kind, _ in point.attributes}
    assert types == {"string_value", "int_value", "bool_value", "double_value"}


def test_times_differ_only_as_listed(whole):
    for name, metric in decoded(whole[0][0])[2].items():
        theirs = decoded(whole[1][0])[2][name]
        for point, other in zip(metric.points, theirs.points, strict=True):
            if metric.kind == "gauge":
                assert (point.start_ns, other.start_ns) == (0, 0), GAUGES_HAVE_NO_START
            elif metric.kind != "histogram":
                assert point.start_ns == START, DIFFERENCES["start"]
            if metric.kind != "histogram":
                assert point.time_ns == TIME, DIFFERENCES["time"]


def test_the_next_snapshots_too(whole):
    """Series that came and went between two snapshots, as the SDK shows them while they are there."""
    first, last = everything.snapshot(), everything.snapshot()
    for number, column in enumerate(list(last.readings["host"].columns.items())):
        metric, points = column
        if number % 3 == 0 and metric.attributes:
            more = everything.with_value(metric, new=1)
            last.readings["host"].columns[metric] = points._replace(series=(*points.series, *more.series), values=[*points.values, 1])
    assert_same(ours([first, first, last])[0], stock([first, first, last])[0])


def test_delta_temporality():
    """Counters and histograms as gains, the others as they are."""
    from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
    from opentelemetry.sdk.metrics.export import AggregationTemporality

    delta = dict.fromkeys((Counter, ObservableCounter, Histogram), AggregationTemporality.DELTA)
    first, second = everything.snapshot(), everything.snapshot()
    for reading in second.readings.values():
        for metric, column in reading.columns.items():
            if metric.kind is Kind.COUNTER:
                values = [min(value + number, 2**63 - 1) for number, value in enumerate(column.values)]
                reading.columns[metric] = first_series(first, metric, column._replace(values=values))
    a, b = ours([first, second], temporality="delta")[0], stock([first, second], preferred_temporality=delta)[0]
    metrics_a, metrics_b = (
        {name: comparable(metric) for name, metric in decoded(each)[2].items() if metric.kind != "histogram"} for each in (a, b)
    )
    assert metrics_a == metrics_b
    histograms_a, histograms_b = ({n: comparable(m) for n, m in decoded(each)[2].items() if m.kind == "histogram"} for each in (a, b))
    for name, metric in histograms_a.items():
        # Minimum and maximum of an interval are not known from cumulative values: ours are absent then.
        assert [(p.attributes, p.value[:2], p.value[4:6]) for p in metric.points] == [
            (p.attributes, p.value[:2], p.value[4:6]) for p in histograms_b[name].points
        ]
        assert not any(p.value[8] or p.value[9] for p in metric.points)


def attributes(column: Any) -> list[Any]:
    return [series.attributes for series in column.series]


def first_series(snapshot: Snapshot, metric: Any, column: Any) -> Any:
    """The column with the Series of the first snapshot, as a source gives them."""
    for reading in snapshot.readings.values():
        for known in reading.columns.values():
            if known.series[0].metric is metric and attributes(known) == attributes(column):
                return column._replace(series=known.series)
    return column


@pytest.fixture(scope="module")
def live() -> Snapshot:
    """Two real cycles of the running kernel's BPF and of this process."""
    configuration, telemetry = Settings(), Telemetry()
    source = Bpf(HostFS(), configuration)
    collector = Collector([source], Agent(telemetry), CATALOGUE, telemetry, 1, 50_000)
    try:
        collector.collect()
        snapshot = collector.collect()
    finally:
        collector.close()
    if not snapshot.readings["bpf"].columns:
        pytest.skip(f"bpf: {snapshot.statuses['bpf'].detail}")
    return snapshot


@pytest.mark.live
def test_a_real_snapshot_goes_out_the_same(live):
    live_rows = {"bpf": bpf.ALL, "agent": rows.ALL}
    metrics = assert_same(ours([live], live_rows)[0], stock([live], live_rows)[0])
    assert len(metrics) > 20


LEVELS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans())
NAMES = st.text(st.characters(), max_size=5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(NAMES, LEVELS), max_size=6, unique_by=lambda pair: pair[0].encode("utf-8", "replace")))
@example([("nan", math.nan), ("inf", math.inf), ("-inf", -math.inf), ("rest", 1)])
@example([("2^63", 2**63), ("-2^63", -(2**63)), ("lower", -(2**63) - 1), ("huge", 10**400), ("\udcff", 1)])
def test_whatever_a_source_says_both_export_the_same_points(points):
    """Numbers of any size and kind, texts with lone surrogates: nothing makes either lose the rest."""
    good = everything.with_value(bpf.PROGRAM_MEMORY, rest=1)
    bad = everything.with_value(bpf.MAP_UTILIZATION, **{f"k{name}": value for name, value in points})
    odd = everything.with_value(bpf.MAP_MEMORY, **{f"k{name}": value for name, value in points})
    readings = Reading({bpf.PROGRAM_MEMORY: good, bpf.MAP_UTILIZATION: bad, bpf.MAP_MEMORY: odd}, time_ns=TIME)
    snapshot = everything.snapshot(host=readings)
    metrics = assert_same(ours([snapshot])[0], stock([snapshot])[0])
    assert len(metrics[bpf.PROGRAM_MEMORY.name].points) == 1
    finite = [name for name, value in points if abs(value) <= sys.float_info.max]  # not NaN
    assert len(metrics[bpf.MAP_MEMORY.name].points if bpf.MAP_MEMORY.name in metrics else []) == len(finite)


def samples(page: bytes) -> tuple[dict[str, tuple[str, str]], dict[Any, float]]:
    """(type and help by family, value by sample)."""
    families = list(text_string_to_metric_families(page.decode()))
    kinds = {family.name: (family.type, family.documentation) for family in families}
    values: dict[Any, float] = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(_normal(sample.labels).items()))
            assert key not in values
            values[key] = float(sample.value)  # as Prometheus does; ours writes all digits of a large integer
    return kinds, values


def _normal(labels: Mapping[str, str]) -> dict[str, str]:
    """To Prometheus an empty label is an absent one: stock writes what other series of the metric have, ours does not."""
    return {name: repr(float(value)) if name == "le" else value for name, value in labels.items() if value}


# Where the pages may differ, and why: test_naming.py has the rules for names.
RATIO = {  # stock maps unit "1" to nothing; otlptranslator appends _ratio to gauges
    row.name.replace(".", "_"): metric_name(row.name, row.unit, row.kind) for row in CATALOGUE if (row.kind, row.unit) == (Kind.GAUGE, "1")
}
BOOLEANS = {"True": "true", "False": "false"}  # stock prints Python's words; otlptranslator and ours JSON's


def test_the_prometheus_pages_are_the_same(whole):
    (kinds_a, values_a), (kinds_b, values_b) = samples(whole[0][1]), samples(whole[1][1])
    kinds_b = {RATIO.get(name, name): kind for name, kind in kinds_b.items()}
    values_b = {
        (RATIO.get(name, name), frozenset((key, BOOLEANS.get(value, value)) for key, value in labels)): value
        for (name, labels), value in values_b.items()
    }
    kinds_a.pop("target_info"), kinds_b.pop("target_info", None), kinds_b.pop("target", None)
    target = {key: values_a.pop(key) for key in list(values_a) if key[0] == "target_info"}
    assert target == {key: values_b.pop(key) for key in list(values_b) if key[0] == "target_info"}
    assert kinds_a == kinds_b
    assert values_a == values_b


def test_the_stock_pipeline_as_a_running_agent(tmp_path):
    """Scraped, pushed to a real gRPC server with TLS on both sides, written to files; the last values arrive before it stops."""
    out, authority = tmp_path / "out", Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    server = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())], authority.ca.read_bytes(), True)
    with running("localhost:0", server) as collector:
        options = ("--pipeline", "sdk", "--prometheus", "127.0.0.1:0", "--snapshot-dir", str(out), "--interval", "0.3s")
        environment = {
            "OTEL_EXPORTER_OTLP_HEADERS": "tenant=a",
            "OTEL_HOSTMETRICS_SNAPSHOTS__INTERVAL": "0.3s",
            **{
                f"OTEL_HOSTMETRICS_OTLP__{name}_FILE": str(file)
                for name, file in (("CA", authority.ca), ("CERT", certificate), ("KEY", key))
            },
        }
        with agent(tmp_path / "said", "--otlp-grpc", f"localhost:{collector.port}", *options, **environment) as it:
            collector.wait(4)
            page = it.page()
            document = json.loads((out / "latest.json").read_bytes())
            calls = len(collector.accepted)
            assert it.stop()[0] == 0
        assert len(collector.accepted) > calls
    resources, scopes, metrics = decoded(collector.accepted[-1])
    assert ("service.name", "string_value", "otel-hostmetrics") in resources[0][0]
    assert scopes == [(SCOPE, __version__, frozenset(), "")]
    assert collector.metadata[0]["tenant"] == "a"
    pushed = set(metrics)
    always = {rows.CPU_TIME.name, rows.MEMORY_USAGE.name, rows.THREADS.name, rows.START_TIME.name, rows.SOURCE_DURATION.name}
    assert always <= pushed
    assert {metric["name"] for metric in document["metrics"]} <= pushed
    assert bpf.PROGRAM_COUNT.name in pushed or "bpf is failed" in " ".join(it.lines)
    for row in rows.ALL:
        if row.name in always:
            assert metric_name(row.name, row.unit, row.kind) in page
    assert not [line for line in it.lines if "Traceback" in line]
