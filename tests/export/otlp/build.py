"""Batches out of plain values, and requests back into objects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_hostmetrics.catalogue.model import Kind, Metric, Series
from otel_hostmetrics.export.otlp.encode import Encoder, Request
from otel_hostmetrics.model import Batch, Column, Family, Snapshot
from otel_hostmetrics.settings import Otlp

START, TIME = 1_700_000_000_000_000_000, 1_700_000_100_000_000_000
RESOURCE = {"service.name": "test", "host.name": "node-1"}


def finite(value: float) -> bool:
    """Whether a double can hold it."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def metric(name: str = "m", kind: Kind = Kind.COUNTER, integer: bool = True, boundaries: tuple[float, ...] = ()) -> Metric:
    return Metric(name, kind, "By", f"What {name} counts.", "nothing", ("id",), integer=integer, boundaries=boundaries)


def series(row: Metric, *ids: object, start_ns: int = 0, resource: Any = None) -> tuple[Series, ...]:
    return tuple(row.series({"id": each}, start_ns, resource) for each in ids)


def batch(*columns: tuple[Metric, tuple[Series, ...], Sequence[Any]], time_ns: int = TIME) -> Batch:
    """One family per metric, a column per triple."""
    families: dict[Metric, list[tuple[int, Column]]] = {}
    for row, bound, values in columns:
        families.setdefault(row, []).append((time_ns, Column(bound, values)))
    return Batch(Snapshot(1, time_ns, 0, {}, {}), tuple(Family(row, tuple(each)) for row, each in families.items()))


def encoder(**settings: Any) -> Encoder:
    return Encoder(RESOURCE, "scope", "1.2", Otlp(**settings), START)


def decode(requests: list[Request]) -> ExportMetricsServiceRequest:
    """All requests, merged, as the protobuf library reads them."""
    whole = ExportMetricsServiceRequest()
    for request in requests:
        whole.MergeFromString(request.payload)
    return whole


def points(requests: list[Request]) -> list[Any]:
    """Every data point, in order."""
    return [
        point
        for resource in decode(requests).resource_metrics
        for scope in resource.scope_metrics
        for each in scope.metrics
        for point in getattr(each, each.WhichOneof("data")).data_points
    ]


def values(requests: list[Request]) -> list[int | float]:
    return [getattr(point, point.WhichOneof("value")) for point in points(requests)]
