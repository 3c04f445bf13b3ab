"""The catalogue as observable instruments on any MeterProvider; their callbacks replay the current snapshot.

The same registration drives our provider (provider.py) and the stock SDK's: ours takes the snapshot's columns as they are,
any other SDK calls the callbacks and iterates over the ``Observations`` they return.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import overload

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue.model import Attributes, Kind, Metric, Number, Scope
from otel_hostmetrics.model import Column, Snapshot

SCOPE = "otel_hostmetrics"
OWN = Scope(SCOPE, __version__)
Rows = Mapping[str, Collection[Metric] | None]  # by source; None: a third party's, which are known when they come
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class Observations(Sequence[Observation]):
    """The points of one metric from one source."""

    __slots__ = ("column",)

    def __init__(self, column: Column) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column.series)

    @overload
    def __getitem__(self, index: int) -> Observation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Observation]: ...
    def __getitem__(self, index: int | slice) -> Observation | Sequence[Observation]:
        return list(self)[index]

    def __iter__(self) -> Iterator[Observation]:
        """What other SDKs see. What they cannot carry must not cost them the whole export: see _portable() and _text()."""
        series, values = self.column
        for each, value in zip(series, values, strict=True):
            portable = _portable(value, each.metric.integer)
            if portable is not None:
                # They have one Resource for all points: a workload's attributes are the points' own there.
                yield Observation(portable, _text({**each.resource, **each.attributes} if each.resource else each.attributes))


def _portable(value: object, integer: bool) -> Number | None:
    """An int beyond int64 as float (the stock encoder raises and loses everything), what no double can hold as nothing."""
    if not isinstance(value, (int, float)):
        return None
    if integer and isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX:
        return int(value)  # a bool becomes a number
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _text(attributes: Attributes) -> Attributes:
    """Lone surrogates, from names that were not UTF-8, become ``?`` as in our own encoder; the stock one raises."""
    if all(value.isascii() for value in attributes.values() if isinstance(value, str)):
        return attributes
    return {key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for key, value in attributes.items()}


class Replayed:
    """The callback of one metric of one source: its column in the current snapshot.

    Our provider does not call it: it takes what the snapshot has, so that an instrument without points costs nothing.
    """

    __slots__ = ("current", "metric", "source")

    def __init__(self, current: Callable[[], Snapshot | None], metric: Metric, source: str) -> None:
        self.current = current
        self.metric = metric
        self.source = source

    def __call__(self, _: CallbackOptions) -> Sequence[Observation]:
        snapshot = self.current()
        reading = snapshot.readings.get(self.source) if snapshot else None
        column = reading.columns.get(self.metric) if reading else None
        return Observations(column) if column else ()


class Replay:
    """One instrument per row on *provider*; *rows* names, per source, the metrics it may emit, or None: follow() finds them.

    *current* gives the snapshot to replay, None before the first cycle.
    """

    def __init__(self, provider: MeterProvider, rows: Rows, current: Callable[[], Snapshot | None]) -> None:
        self._provider = provider
        self._current = current
        self._histograms: dict[Metric, Histogram] = {}
        self._third_parties = [source for source, metrics in rows.items() if metrics is None]
        self._followed: set[Metric] = set()
        sources: dict[Metric, list[str]] = {}
        for source, metrics in rows.items():
            for metric in metrics or ():
                sources.setdefault(metric, []).append(source)
        meter = provider.get_meter(SCOPE, __version__)
        for metric, names in sources.items():
            self._create(meter, metric, [Replayed(current, metric, name) for name in names])

    def _create(self, meter: Meter, metric: Metric, callbacks: Sequence[Replayed]) -> None:
        if metric.kind is Kind.HISTOGRAM:
            self._histograms[metric] = meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.boundaries
            )
        elif metric.kind is Kind.COUNTER:
            meter.create_observable_counter(metric.name, callbacks, metric.unit, metric.description)
        elif metric.kind is Kind.UPDOWNCOUNTER:
            meter.create_observable_up_down_counter(metric.name, callbacks, metric.unit, metric.description)
        else:
            meter.create_observable_gauge(metric.name, callbacks, metric.unit, metric.description)

    def take(self, snapshot: Snapshot) -> None:
        """Once for each new snapshot: histograms are not observable, so each measurement is handed over."""
        if self._third_parties:
            self._follow(snapshot)
        for reading in snapshot.readings.values():
            for series, value in reading.measurements:
                self._histograms[series.metric].record(value, series.attributes)

    def _follow(self, snapshot: Snapshot) -> None:
        """Instruments for what third parties have begun to emit."""
        for source in self._third_parties:
            reading = snapshot.readings[source]
            for metric in (*reading.columns, *(each.series.metric for each in reading.measurements)):
                if metric not in self._followed:
                    self._followed.add(metric)
                    self._create(self._meter(metric.scope or OWN), metric, [Replayed(self._current, metric, source)])

    def _meter(self, scope: Scope) -> Meter:
        return self._provider.get_meter(scope.name, scope.version or None, scope.schema_url or None, dict(scope.attributes) or None)
