"""Metrics of third parties go out under the instrumentation scope of the meter that made them, as from the stock SDK."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk.metrics import MeterProvider as StockProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue import agent, bpf
from otel_hostmetrics.catalogue.model import Kind, Metric, Scope, Series
from otel_hostmetrics.export.jsonfile import document
from otel_hostmetrics.export.metering import SCOPE, Replay
from otel_hostmetrics.export.otlp.encode import Encoder
from otel_hostmetrics.export.otlp.json import to_json
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.model import Batch, Distribution
from otel_hostmetrics.settings import Otlp
from tests.export import everything
from tests.export.everything import RESOURCE, START
from tests.export.otlp.build import batch, decode, encoder, series
from tests.export.test_pipelines_agree import comparable, samples

ACME = Scope("acme", "1.2", "https://example.com/1", (("rack", 7), ("site", "ä")))
OTHER = Scope("other")


def callback(*points: tuple[dict[str, Any], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(value, attributes) for attributes, value in points]


def register(provider: MeterProvider) -> None:
    """Three scopes and every kind of instrument; `shared` is in all of them, as different things."""
    plain = provider.get_meter("acme", "1.2")
    full = provider.get_meter("acme", "1.2", "https://example.com/1", {"site": "ä", "rack": 7})
    bare = provider.get_meter("other")
    plain.create_observable_gauge("shared", [callback(({"id": 1}, 0.5))], "s", "A gauge.")
    full.create_observable_counter("shared", [callback(({"id": 1}, 5), ({"id": 2}, 6))], "By", "A counter.")
    bare.create_observable_up_down_counter("shared", [callback(({}, -3))])
    full.create_counter("counted").add(3, {"way": "in"})
    bare.create_up_down_counter("level").add(-2.5)
    bare.create_gauge("set").set(4)
    full.create_histogram("took", "s", explicit_bucket_boundaries_advisory=(1, 2)).record(1.5, {"way": "in"})
    bare.create_observable_gauge(bpf.PROGRAM_COUNT.name, [callback(({}, 1))], "s", "The name of one of ours.")


def ours(**otlp: Any) -> tuple[Batch, Any]:
    snapshot, provider = everything.snapshot(), Provider()
    Replay(provider, everything.ROWS, lambda: snapshot)
    register(provider)
    made = Batch(snapshot, provider.collect())
    requests = Encoder(RESOURCE, SCOPE, __version__, Otlp(**otlp), START).encode(made)
    return made, decode(requests)


def stock() -> tuple[Any, bytes]:
    snapshot, memory, registry = everything.snapshot(), InMemoryMetricReader(), CollectorRegistry()
    readers = [memory, PrometheusMetricReader(registry=registry)]
    view = View(instrument_name="*", aggregation_cardinality_limit=50_000)
    provider = StockProvider(readers, Resource(dict(RESOURCE)), shutdown_on_exit=False, views=[view])
    Replay(provider, everything.ROWS, lambda: snapshot)
    register(provider)
    data = memory.get_metrics_data()
    assert data is not None
    page = generate_latest(registry)
    provider.shutdown()
    return encode_metrics(data), page


def test_otlp_is_what_the_stock_sdk_sends():
    """One ResourceMetrics with a ScopeMetrics for each scope; the metrics of ours, and each third party's, under their own."""
    (here,), (there,) = (found.resource_metrics for found in (ours()[1], stock()[0]))
    mine, theirs = ({_scope(each): each for each in found.scope_metrics} for found in (here, there))
    assert list(mine) == [(SCOPE, __version__, frozenset(), ""), *list(mine)[1:]]
    assert len(mine) == len(here.scope_metrics) == 4
    assert mine.keys() == theirs.keys()
    for scope, metrics in mine.items():
        found = {each.name: comparable(everything.exported(each)) for each in metrics.metrics}
        assert found == {each.name: comparable(everything.exported(each)) for each in theirs[scope].metrics}
        assert len(found) == len(metrics.metrics)


def _scope(each: Any) -> tuple[Any, ...]:
    attributes = frozenset((pair.key, str(pair.value)) for pair in each.scope.attributes)
    return each.scope.name, each.scope.version, attributes, each.schema_url


def test_the_json_form_of_otlp_has_them_too():
    made, _ = ours()
    (request,) = Encoder(RESOURCE, SCOPE, __version__, Otlp(), START).encode(made)
    (resource,) = json.loads(to_json(request.payload))["resourceMetrics"]
    assert [(each["scope"]["name"], each.get("schemaUrl")) for each in resource["scopeMetrics"]] == [
        (SCOPE, None),
        ("acme", None),
        ("acme", "https://example.com/1"),
        ("other", None),
    ]


def test_a_scope_that_comes_later_joins_its_like():
    """Metrics of two scopes in turns are grouped."""
    rows = [
        Metric(f"m{number}", Kind.GAUGE, "", "", "nothing", ("id",), scope=scope) for number, scope in enumerate((ACME, None, OTHER, ACME))
    ]
    (resource,) = decode(encoder().encode(batch(*[(row, series(row, "a"), [1]) for row in rows]))).resource_metrics
    found = [(each.scope.name, [metric.name for metric in each.metrics]) for each in resource.scope_metrics]
    assert found == [("acme", ["m0", "m3"]), ("scope", ["m1"]), ("other", ["m2"])]


_WIDTHS = st.lists(st.tuples(st.sampled_from([None, ACME, OTHER]), st.integers(1, 900), st.integers(0, 2)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(_WIDTHS, st.booleans())
def test_requests_cut_at_the_limit_lose_nothing_whatever_the_scopes(metrics: list[Any], workloads: bool) -> None:
    """Points of 100 bytes and more, so that some scopes are larger than the least limit of a request, 64 KiB."""
    owners: list[Any] = [None, {"k8s.pod.name": "a"}, {"k8s.pod.name": "b"}]
    made = []
    for number, (scope, width, owner) in enumerate(metrics):
        row = Metric(f"m{number}", Kind.GAUGE, "", "", "nothing", ("id",), scope=scope)
        bound = tuple(Series(row, {"id": f"{point:0100}"}, 0, owners[owner] if workloads else None) for point in range(width))
        made.append((row, bound, list(range(width))))
    requests = encoder(max_request_bytes=65_536).encode(batch(*made))
    assert all(len(request.payload) < 65_536 for request in requests)
    found: dict[str, list[float]] = {}
    for request in requests:
        count = 0
        for resource in decode([request]).resource_metrics:
            names = [_scope(scope) for scope in resource.scope_metrics]
            assert len(set(names)) == len(names), "a scope stands once in a ResourceMetrics"
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    wanted = metrics[int(metric.name[1:])][0]
                    assert scope.scope.name == (wanted.name if wanted else "scope")
                    found.setdefault(metric.name, []).extend(point.as_int for point in metric.gauge.data_points)
                    count += len(metric.gauge.data_points)
        assert request.points == count
    assert {name: sorted(values) for name, values in found.items()} == {
        f"m{number}": list(range(width)) for number, (_, width, _) in enumerate(metrics)
    }


@pytest.mark.parametrize("form", list(Format))
def test_the_page_names_the_scope_of_third_parties_and_leaves_ours_alone(form):
    page = Page(RESOURCE).render(ours()[0], form).decode()
    full = 'otel_scope_name="acme",otel_scope_rack="7",otel_scope_schema_url="https://example.com/1",otel_scope_site="ä",otel_scope_version="1.2"'
    assert f'shared_bytes_total{{id="1",{full}}} 5\n' in page
    assert 'shared_seconds{id="1",otel_scope_name="acme",otel_scope_version="1.2"} 0.5\n' in page
    assert 'shared{otel_scope_name="other"} -3\n' in page
    assert f'took_seconds_bucket{{{full},way="in",le="2.0"}} 1\n' in page
    assert 'bpf_programs_seconds{otel_scope_name="other"} 1\n' in page
    mine = [line for line in page.splitlines() if "otel_scope" not in line and not line.startswith(("#", "target_info"))]
    alone = Page(RESOURCE).render(Batch(everything.snapshot(), _own()), form).decode()
    assert mine == [line for line in alone.splitlines() if not line.startswith(("#", "target_info"))]


def _own() -> Any:
    snapshot, provider = everything.snapshot(), Provider()
    Replay(provider, everything.ROWS, lambda: snapshot)
    return provider.collect()


def test_their_labels_are_those_of_the_stock_exporter():
    made, _ = ours()
    foreign = Batch(made.snapshot, tuple(family for family in made.families if family.metric.scope))
    mine = samples(Page({}).render(foreign, Format.TEXT))[1]
    theirs = samples(stock()[1])[1]
    assert len(mine) > 10
    assert mine.items() <= theirs.items()


def test_a_third_party_takes_no_name_from_the_catalogue(caplog):
    """It comes first here; ours, which has had no points so far, keeps its place, and what agrees with it shares it."""
    row = agent.THREADS
    alien = Metric(row.name, Kind.HISTOGRAM, row.unit, "Theirs.", "nothing", boundaries=(1.0,), scope=OTHER)
    friend = Metric(row.name, row.kind, row.unit, "Theirs.", "nothing", scope=ACME)
    page = Page({})
    with caplog.at_level(logging.WARNING):
        first = page.render(_batch((alien, Distribution((1, 0), 1.0, 1, 1)), (friend, 5)), Format.TEXT).decode()
    (record,) = caplog.records
    assert "left off the Prometheus page" in record.getMessage()
    assert "Theirs" not in first
    assert row.description in first
    second = page.render(_batch((friend, 5), (row, 3)), Format.TEXT).decode()
    assert "\notel_hostmetrics_process_threads 3\n" in second
    assert second.count("# TYPE") == 1


def _batch(*points: tuple[Metric, Any]) -> Batch:
    return batch(*((metric, (Series(metric, {}),), [value]) for metric, value in points))


def test_a_document_has_the_scope_of_third_parties():
    made, _ = ours()
    metrics = json.loads(document(made, RESOURCE))["metrics"]
    assert [metric["scope"] for metric in metrics if metric["name"] == "shared"] == [
        {"name": "acme", "version": "1.2"},
        {"name": "acme", "version": "1.2", "schema_url": "https://example.com/1", "attributes": {"rack": 7, "site": "ä"}},
        {"name": "other"},
    ]
    assert not any("scope" in metric for metric in metrics if metric["name"].startswith("rdma."))


def test_a_workload_has_one_resource_with_all_scopes():
    """Also where its points go out as one struct."""
    pod: Any = {"k8s.pod.name": "a"}
    rows = [
        Metric(f"m{number}", Kind.GAUGE, "", "", "nothing", ("id",), scope=scope) for number, scope in enumerate((None, ACME, None, ACME))
    ]
    encode = encoder()
    columns = [(row, series(row, "a", "b", resource=pod)) for row in rows]
    for values in ([1, 2], [3, 4]):
        (resource,) = decode(encode.encode(batch(*[(row, bound, values) for row, bound in columns]))).resource_metrics
        found = {
            each.scope.name: [(metric.name, [point.as_int for point in metric.gauge.data_points]) for metric in each.metrics]
            for each in resource.scope_metrics
        }
        assert found == {"scope": [("m0", values), ("m2", values)], "acme": [("m1", values), ("m3", values)]}
