"""A snapshot with points of every row of the catalogue, and what a pipeline made of it as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_hostmetrics.catalogue import CATALOGUE, agent
from otel_hostmetrics.catalogue.model import AttributeValue, Kind, Metric, Number, Series
from otel_hostmetrics.model import Column, Measurement, Reading, Snapshot, State, Status

TIME, START = 1_800_000_000_000_000_000, 1_799_999_000_000_000_000
_HOST = tuple(row for row in CATALOGUE if row not in agent.ALL)
ROWS: Mapping[str, tuple[Metric, ...]] = {"host": _HOST, "agent": agent.ALL, "twin": _HOST}  # two sources with the same metrics
RESOURCE = {"service.name": "test", "host.name": "knoten-ä", "host.id": "0"}
_INTEGERS: tuple[Number, ...] = (7, True, 0, 2**63 - 1, -(2**63), 2**53 + 1)
_FLOATS: tuple[Number, ...] = (0.25, 3, 0.0, -1e300, 5e-324)


def attributes(metric: Metric, name: str, complete: bool) -> dict[str, AttributeValue]:
    """Values of every type: words, numbers, booleans."""
    keys = [*metric.attributes, *(metric.optional if complete else ())]
    kinds: tuple[AttributeValue, ...] = (f"{name} ü\n", 42, True, 1.5, "", -1)
    return {key: kinds[position % len(kinds)] if position else f"{name}-{metric.name}" for position, key in enumerate(keys)}


def values(metric: Metric) -> tuple[Number, ...]:
    found = _INTEGERS if metric.integer else _FLOATS
    return tuple(value for value in found if value >= 0) if metric.kind is Kind.COUNTER else found


def column(metric: Metric, source: str) -> Column:
    """A series per value, as far as the row has attributes to tell them apart."""
    each = values(metric) if metric.attributes else values(metric)[:1]
    series = tuple(metric.series(attributes(metric, f"{source}{number}", number % 2 == 0), START) for number in range(len(each)))
    return Column(series, each)


def reading(metrics: Iterable[Metric], source: str) -> Reading:
    metrics = tuple(metrics)
    # A metric without attributes has one series: from one source only.
    wanted = [metric for metric in metrics if metric.kind is not Kind.HISTOGRAM and (metric.attributes or source != "twin")]
    measured = [
        Measurement(metric.series(attributes(metric, f"m{number}", bool(number)), START), value)
        for metric in metrics
        if metric.kind is Kind.HISTOGRAM
        for number in range(2)
        for value in (0.0, 0.004, 0.005, 2, 1e6, *metric.boundaries)
    ]
    return Reading({metric: column(metric, source) for metric in wanted}, measured, time_ns=TIME)


def snapshot(**readings: Reading) -> Snapshot:
    """The whole catalogue, or just these readings."""
    readings = readings or {source: reading(metrics, source) for source, metrics in ROWS.items()}
    return Snapshot(1, TIME, 1, readings, {name: Status(State.OK) for name in readings})


def with_value(metric: Metric, **points: Any) -> Column:
    """A column of *metric* with a series per point: the key is its first attribute's value."""
    more = dict.fromkeys(metric.attributes[1:], "x")
    return Column(tuple(Series(metric, {metric.attributes[0]: name, **more}, START) for name in points), list(points.values()))


class Point(NamedTuple):
    attributes: frozenset[tuple[str, str, Any]]
    value: tuple[Any, ...]  # ("as_int", 1), or everything of a histogram
    time_ns: int
    start_ns: int


class Exported(NamedTuple):
    """One metric as it went out."""

    name: str
    description: str
    unit: str
    kind: str
    temporality: int
    monotonic: bool | None
    points: list[Point]


def decoded(request: ExportMetricsServiceRequest) -> tuple[list[Any], list[Any], dict[str, Exported]]:
    """(resources, scopes, metrics by name)."""
    resources = [(_pairs(each.resource.attributes), each.schema_url) for each in request.resource_metrics]
    scopes = [
        (scope.scope.name, scope.scope.version, _pairs(scope.scope.attributes), scope.schema_url)
        for each in request.resource_metrics
        for scope in each.scope_metrics
    ]
    metrics = [exported(metric) for each in request.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
    assert len({metric.name for metric in metrics}) == len(metrics)
    return resources, scopes, {metric.name: metric for metric in metrics}


def _pairs(attributes: Iterable[Any]) -> frozenset[tuple[str, str, Any]]:
    found = [(each.key, each.value.WhichOneof("value"), getattr(each.value, each.value.WhichOneof("value"))) for each in attributes]
    assert len(set(found)) == len(found)
    return frozenset(found)


def exported(metric: Any) -> Exported:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    points = sorted((_point(point, kind) for point in data.data_points), key=lambda point: sorted(map(str, point.attributes)))
    temporality = 0 if kind == "gauge" else data.aggregation_temporality
    return Exported(metric.name, metric.description, metric.unit, kind, temporality, data.is_monotonic if kind == "sum" else None, points)


def _point(point: Any, kind: str) -> Point:
    if kind == "histogram":
        value = (
            point.count, point.sum, point.min, point.max, tuple(point.bucket_counts), tuple(point.explicit_bounds), len(point.exemplars),
            point.HasField("sum"), point.HasField("min"), point.HasField("max"),
        )  # fmt: skip
    else:
        value = (point.WhichOneof("value"), getattr(point, point.WhichOneof("value")), point.flags, len(point.exemplars))
    return Point(_pairs(point.attributes), value, point.time_unix_nano, point.start_time_unix_nano)
