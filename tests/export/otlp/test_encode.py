"""The encoder's bytes, read by the protobuf library, against those of the stock exporter's encoder."""

from __future__ import annotations

import gc
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.model import Batch, Distribution
from tests.export.otlp.build import RESOURCE, START, TIME, batch, decode, encoder, finite, metric, points, series, values

_CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_int64 = st.integers(-(2**63), 2**63 - 1)
_attributes = st.dictionaries(_text.filter(bool), st.one_of(_text, st.booleans(), _int64, st.floats(allow_nan=False)), max_size=4)
_counts = st.lists(st.integers(0, 2**40), min_size=4, max_size=4).filter(any)
_distributions = st.builds(
    lambda counts, total, low: Distribution(tuple(counts), total, low, low + 1), _counts, st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)
)


@st.composite
def _families(draw: Any) -> Any:
    """A row with values of its kind and any attributes."""
    kind = draw(st.sampled_from(Kind))
    integer = draw(st.booleans()) and kind is not Kind.HISTOGRAM
    bounds = (0.5, 1.0, 2.5) if kind is Kind.HISTOGRAM else ()
    row = Metric(draw(_text.filter(bool)), kind, draw(_text), draw(_text), "", integer=integer, boundaries=bounds)
    value = _distributions if kind is Kind.HISTOGRAM else _int64 if integer else st.floats(allow_nan=False, allow_infinity=False)
    rows = draw(st.lists(st.tuples(_attributes, value, st.sampled_from([0, START - 7])), min_size=1, max_size=6))
    return row, rows


def _stock(families: list[Any], time_ns: int) -> Any:
    """The same points through the SDK's data classes and the stock exporter's encoder."""
    made = []
    for row, rows in families:
        pts: list[Any] = []
        for attributes, value, start in rows:
            start_ns = start or START
            if isinstance(value, Distribution):
                counts, total, low, high = value
                pts.append(sdk.HistogramDataPoint(attributes, start_ns, time_ns, sum(counts), total, counts, row.boundaries, low, high))
            else:
                pts.append(sdk.NumberDataPoint(attributes, None if row.kind is Kind.GAUGE else start_ns, time_ns, value))
        data = {
            Kind.GAUGE: lambda: sdk.Gauge(pts),  # noqa: B023 - called at once
            Kind.HISTOGRAM: lambda: sdk.Histogram(pts, _CUMULATIVE),  # noqa: B023
            Kind.COUNTER: lambda: sdk.Sum(pts, _CUMULATIVE, True),  # noqa: B023
            Kind.UPDOWNCOUNTER: lambda: sdk.Sum(pts, _CUMULATIVE, False),  # noqa: B023
        }[row.kind]()
        made.append(sdk.Metric(row.name, row.description, row.unit, data))
    scope = sdk.ScopeMetrics(InstrumentationScope("scope", "1.2"), made, "")
    return encode_metrics(sdk.MetricsData([sdk.ResourceMetrics(Resource(RESOURCE), [scope], "")]))


@settings(max_examples=150, deadline=None)
@given(st.lists(_families(), min_size=1, max_size=4), st.data())
def test_bytes_say_what_the_stock_encoder_says_also_from_a_reused_template(families: list[Any], data: Any) -> None:
    made = encoder()
    bound = [
        (row, tuple(row.__class__.series(_open(row, attributes), attributes, start) for attributes, _, start in rows))
        for row, rows in families
    ]
    for cycle in range(3):
        if cycle:
            families = [
                (row, [(a, data.draw(st.sampled_from([value for _, value, _ in rows])), s) for a, _, s in rows]) for row, rows in families
            ]
        columns = [(row, each, [value for _, value, _ in rows]) for (row, each), (_, rows) in zip(bound, families, strict=True)]
        requests = made.encode(batch(*columns, time_ns=TIME + cycle))
        assert _sorted(decode(requests)) == _sorted(_stock(families, TIME + cycle))
        assert [request.points for request in requests] == [sum(len(rows) for _, rows in families)]


def _sorted(request: Any) -> Any:
    """The order of metrics says nothing."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            scope.metrics.sort(key=lambda each: each.SerializeToString(deterministic=True))
    return request


def _open(row: Metric, attributes: Any) -> Metric:
    """A row that allows these attributes; only the series' attributes are used."""
    return Metric(row.name, row.kind, row.unit, row.description, "", tuple(attributes))


@settings(max_examples=200, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.lists(st.one_of(st.integers(), st.floats(), st.sampled_from([2**63, -(2**63) - 1, 10**400])), min_size=5, max_size=5), max_size=4
    ),
)
def test_no_value_spoils_the_others(integer: bool, cycles: list[list[Any]]) -> None:
    row = metric(kind=Kind.GAUGE, integer=integer)
    bound = series(row, *range(5))
    made = encoder()
    for cycle in cycles:
        expected = []
        for value in cycle:
            if isinstance(value, int) and integer and -(2**63) <= value < 2**63:
                expected.append(("as_int", value))
            elif finite(value):
                expected.append(("as_double", float(value)))
        found = [
            (point.WhichOneof("value"), getattr(point, point.WhichOneof("value")))
            for point in points(made.encode(batch((row, bound, cycle))))
        ]
        assert found == expected


@given(st.text(st.characters(), max_size=10))
def test_text_that_is_not_unicode_keeps_its_point(text: str) -> None:
    row = metric()
    (point,) = points(encoder().encode(batch((row, series(row, text), [1]))))
    assert point.attributes[0].value.string_value == text.encode("utf-8", "replace").decode()


def test_attributes_keep_their_types_even_where_python_calls_them_equal() -> None:
    row = metric()
    given_values = [1, True, 1.0, "1", 0, False, -0.0, "", 2**63, -(2**63)]
    found = [point.attributes[0].value for point in points(encoder().encode(batch((row, series(row, *given_values), [1] * 10))))]
    assert [value.WhichOneof("value") for value in found] == [
        "int_value", "bool_value", "double_value", "string_value", "int_value", "bool_value", "double_value", "string_value",
        "string_value", "int_value",
    ]  # fmt: skip
    assert math.copysign(1, found[6].double_value) == -1
    assert found[8].string_value == str(2**63)  # out of range: decimal text
    assert found[9].int_value == -(2**63)


def test_attributes_of_others_may_be_sequences() -> None:
    row = metric()
    (point,) = points(encoder().encode(batch((row, series(row, ("a", 2)), [1]))))
    assert [item.string_value or item.int_value for item in point.attributes[0].value.array_value.values] == ["a", 2]


def test_an_integer_comes_back_as_integer_when_it_fits_again() -> None:
    row = metric()
    bound = series(row, "a", "b")
    made = encoder()
    assert values(made.encode(batch((row, bound, [2**63, 1])))) == [float(2**63), 1]
    found = points(made.encode(batch((row, bound, [2**60 + 1, 2]))))
    assert [point.as_int for point in found] == [2**60 + 1, 2]


def test_values_of_a_float_metric_are_doubles_also_when_a_source_gives_an_int() -> None:
    row = metric(integer=False)
    (point,) = points(encoder().encode(batch((row, series(row, "a"), [3]))))
    assert (point.WhichOneof("value"), point.as_double) == ("as_double", 3.0)


def test_histogram_without_a_finite_sum_is_absent_and_one_without_values_has_no_extremes() -> None:
    row = metric(kind=Kind.HISTOGRAM, boundaries=(1.0,))
    rows = [Distribution((1, 0), math.nan, 0.5, 0.5), Distribution((0, 0), 0.0, math.inf, -math.inf), Distribution((0, 0), 0.0, 0.0, 0.0)]
    found = points(encoder().encode(batch((row, series(row, "nan", "empty", "zero"), rows))))
    told = [(point.count, point.HasField("min"), point.HasField("max"), point.HasField("sum")) for point in found]
    assert told == [(0, False, False, True)] * 2


def test_a_batch_without_points_is_no_request() -> None:
    row, gauge = metric(), metric("g", Kind.GAUGE, integer=False)
    assert encoder().encode(batch((row, (), []), (gauge, series(gauge, "a"), [math.nan]))) == []


def test_an_empty_column_says_nothing_of_its_metric() -> None:
    """All empty tuples are one object."""
    histogram, row = metric("h", Kind.HISTOGRAM, boundaries=(1.0,)), metric()
    made = encoder()
    for each in (histogram, row, histogram):
        assert made.encode(batch((each, (), []))) == []


def test_columns_of_several_sources_make_one_metric_each_with_its_own_time() -> None:
    row = metric()
    one, two = batch((row, series(row, "a"), [1]), time_ns=5), batch((row, series(row, "b"), [2]), time_ns=9)
    family = msgspec.structs.replace(one.families[0], columns=one.families[0].columns + two.families[0].columns)
    found = decode(encoder().encode(Batch(one.snapshot, (family,))))
    (only,) = found.resource_metrics[0].scope_metrics[0].metrics
    assert [(point.time_unix_nano, point.as_int) for point in only.sum.data_points] == [(5, 1), (9, 2)]


def test_series_that_come_and_go_are_encoded_as_if_they_had_always_been_there() -> None:
    row = metric()
    bound = series(row, *"abcdef")
    made = encoder()
    for subset in (bound, bound[:3], bound[2:], (*bound[4:], *bound[:1]), (), bound):
        numbers = list(range(len(subset)))
        assert decode(made.encode(batch((row, subset, numbers)))) == decode(encoder().encode(batch((row, subset, numbers))))


def test_series_and_families_that_are_gone_are_forgotten() -> None:
    row, other = metric(), metric("other")
    made = encoder(temporality="delta")
    workload = {"k8s.pod.name": "p"}
    made.encode(batch((row, series(row, "a", resource=workload), [1]), (other, series(other, "kept"), [1])))
    for each in range(30):
        made.encode(batch((other, series(other, each), [1])))
    gc.collect()
    assert not [each for each in gc.get_referrers(workload) if isinstance(each, tuple) and len(each) == 2]  # the encoder's (mapping, bytes)
    assert len(made._families) == len(made._resources) == 1
    assert [len(each._templates) for each in made._families.values()] == [1]


def test_points_are_grouped_by_workload_with_the_hosts_attributes_too() -> None:
    counter, gauge, histogram = metric("c"), metric("g", Kind.GAUGE), metric("h", Kind.HISTOGRAM, boundaries=(1.0,))
    pods = [{"k8s.pod.name": "one"}, {"k8s.pod.name": "two", "host.name": "pod's own"}]
    mixed = tuple(counter.series({"id": i}, 0, owner) for i, owner in enumerate([None, pods[0], pods[1], pods[0], None]))
    made = encoder()
    for add in (0, 100):  # the second from the templates
        whole = decode(
            made.encode(
                batch(
                    (counter, mixed, [add + i for i in range(5)]),
                    (gauge, series(gauge, "all", resource=pods[1]), [add]),
                    (histogram, series(histogram, "x", resource=pods[0]), [Distribution((1, 0), 0.5, 0.5, 0.5)]),
                )
            )
        )
        found = {}
        for each in whole.resource_metrics:
            attributes = {pair.key: pair.value.string_value for pair in each.resource.attributes}
            (scope,) = each.scope_metrics
            assert (scope.scope.name, scope.scope.version) == ("scope", "1.2")
            found[attributes.pop("k8s.pod.name", None)] = (
                attributes,
                {
                    row.name: [getattr(point, "as_int", None) for point in getattr(row, row.WhichOneof("data")).data_points]
                    for row in scope.metrics
                },
            )
        assert found == {
            None: (RESOURCE, {"c": [add, add + 4]}),
            "one": (RESOURCE, {"c": [add + 1, add + 3], "h": [None]}),
            "two": ({**RESOURCE, "host.name": "pod's own"}, {"c": [add + 2], "g": [add]}),
        }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=6), st.integers(1, 400), st.integers(0, 3), st.booleans())
def test_requests_stay_below_their_size_and_lose_nothing(sizes: list[int], width: int, workloads: int, as_histogram: bool) -> None:
    owners = [None, *({"k8s.pod.name": f"pod-{i}"} for i in range(workloads))]
    columns: list[Any] = []
    for number, size in enumerate(sizes):
        row = metric(f"m{number}", Kind.HISTOGRAM, boundaries=(1.0,)) if as_histogram else metric(f"m{number}")
        bound = tuple(row.series({"id": f"{number}-{i}-{'x' * width}"}, 0, owners[i % len(owners)]) for i in range(size))
        columns.append((row, bound, [Distribution((i, 1), 1.0, 1.0, 1.0) for i in range(size)] if as_histogram else list(range(size))))
    requests = encoder(max_request_bytes=65_536).encode(batch(*columns))
    assert all(len(request.payload) < 65_536 for request in requests)
    assert [request.points for request in requests] == [len(points([request])) for request in requests]
    split = sorted(point.SerializeToString() for point in points(requests))
    assert split == sorted(point.SerializeToString() for point in points(encoder().encode(batch(*columns))))
    for request in requests:  # each is complete in itself
        for each in decode([request]).resource_metrics:
            assert {pair.key for pair in each.resource.attributes} >= RESOURCE.keys()
            assert all(scope.scope.name == "scope" for scope in each.scope_metrics)
            assert all(row.unit == "By" for scope in each.scope_metrics for row in scope.metrics)


def test_a_family_is_cut_only_if_it_does_not_fit_into_a_request_of_its_own() -> None:
    rows = [metric(f"m{i}") for i in range(3)]
    columns = [(row, series(row, *(f"{i:0100}" for i in range(300))), [1] * 300) for row in rows]  # 43 kB each
    requests = encoder(max_request_bytes=65_536).encode(batch(*columns))
    assert [[row.name for row in decode([each]).resource_metrics[0].scope_metrics[0].metrics] for each in requests] == [
        ["m0"],
        ["m1"],
        ["m2"],
    ]


def test_a_point_larger_than_a_request_goes_out_alone() -> None:
    row = metric()
    requests = encoder(max_request_bytes=65_536).encode(batch((row, series(row, "a", "b" * 70_000, "c"), [1, 2, 3])))
    assert [request.points for request in requests] == [1, 1, 1]
    assert values(requests) == [1, 2, 3]


def test_a_column_with_a_value_too_few_is_refused() -> None:
    row = metric()
    with pytest.raises(ValueError, match="size"):
        encoder().encode(batch((row, series(row, "a", "b"), [1])))
