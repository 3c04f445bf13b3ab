"""Points that are found anew in each reading, as columns whose series stay the same objects as long as they can."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator
from itertools import chain
from typing import NamedTuple, TypeAlias

from otel_hostmetrics.catalogue.model import AttributeValue, Kind, Metric, Number, Series
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.rdma.began import booted_ns
from otel_hostmetrics.sources.rdma.devices import Owner

_Key: TypeAlias = tuple[Owner, tuple[tuple[str, AttributeValue], ...]]


class Point(NamedTuple):
    """One value of *metric*; *attributes* are pairs, beside those that name the owner."""

    metric: Metric
    owner: Owner
    attributes: tuple[tuple[str, AttributeValue], ...]
    value: Number


class Table:
    """The points of one metric. A counter that goes down has begun anew."""

    def __init__(self, metric: Metric, lasting: bool) -> None:
        self._metric = metric
        self._lasting = lasting
        self._shown: list[_Key] = []  # those of the column, in its order
        self._series: dict[_Key, Series] = {}  # also of what is not shown, where it lasts
        self._values: dict[_Key, Number] = {}
        self.column = Column((), ())

    def fill(self, values: dict[_Key, Number], since_ns: int, begin_ns: int) -> None:
        """Take over what was found. *since_ns* is the time of the reading before, *begin_ns* when what is new began."""
        fallen = self._fallen(values)
        shown = list(values)
        same = not fallen and shown == self._shown
        for key in shown if not same else ():
            if key not in self._series:
                self._series[key] = key[0].series(self._metric, dict(key[1]), begin_ns)
        for key in fallen:
            self._series[key] = Series(self._metric, self._series[key].attributes, since_ns)
        if not same and not self._lasting:
            self._series = {key: self._series[key] for key in shown}
        self._shown = shown
        self._values = {**self._values, **values} if self._lasting else values
        self.column = Column(self.column.series if same else tuple(self._series[key] for key in shown), tuple(values.values()))

    def forget(self, present: Container[Owner]) -> None:
        """All but these owners are gone."""
        self._series = {key: series for key, series in self._series.items() if key[0] in present}
        self._values = {key: value for key, value in self._values.items() if key[0] in present}
        if any(key[0] not in present for key in self._shown):
            self._shown = []
            self.column = Column((), ())

    def _fallen(self, values: dict[_Key, Number]) -> list[_Key]:
        if self._metric.kind is not Kind.COUNTER:
            return []
        return [key for key, value in values.items() if value < self._values.get(key, value)]


class Tables:
    """The points of several metrics; of two for the same series the first is taken.

    *lasting*: the kernel keeps these counters as long as their owner is there. Those of the first reading began with the
    kernel, those found later after the reading before; one that cannot be read for a while goes on where it was.
    """

    def __init__(self, lasting: bool = False) -> None:
        self._lasting = lasting
        self._tables: dict[Metric, Table] = {}
        self._filled_ns = 0  # when it was filled last

    def keep(self, before: Tables, present: Container[Owner]) -> None:
        """Go on where *before*, which ends, has come to with those of its owners that are *present* still."""
        self._tables, self._filled_ns = before._tables, before._filled_ns
        for table in self._tables.values():
            table.forget(present)

    def fill(self, points: Iterable[Point]) -> None:
        """What was found now; a metric without a point has none any more."""
        found: dict[Metric, dict[_Key, Number]] = {metric: {} for metric in self._tables}
        for metric, owner, attributes, value in points:
            found.setdefault(metric, {}).setdefault((owner, attributes), value)
        begin_ns = (self._filled_ns or booted_ns()) if self._lasting else time.time_ns()
        for metric, values in found.items():
            if metric not in self._tables:
                self._tables[metric] = Table(metric, self._lasting)
            self._tables[metric].fill(values, self._filled_ns, begin_ns)
        self._filled_ns = time.time_ns()

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        return ((metric, table.column) for metric, table in self._tables.items() if table.column.series)


class Merge:
    """One column from several of the same metric, with a tuple of series that stays while theirs stay."""

    def __init__(self) -> None:
        self._merged: dict[Metric, tuple[list[tuple[Series, ...]], tuple[Series, ...]]] = {}

    def apply(self, columns: dict[Metric, Column], more: Iterable[tuple[Metric, Column]]) -> dict[Metric, Column]:
        """*columns* and *more*, by metric."""
        found = columns.copy()
        several: dict[Metric, list[Column]] = {}
        for metric, column in more:
            if (first := found.setdefault(metric, column)) is not column:
                several.setdefault(metric, [first]).append(column)
        for metric, parts in several.items():
            found[metric] = self._one(metric, parts)
        return found

    def _one(self, metric: Metric, parts: list[Column]) -> Column:
        tuples = [part.series for part in parts]
        known, merged = self._merged.get(metric, ([], ()))
        if len(known) != len(tuples) or any(a is not b for a, b in zip(known, tuples, strict=True)):
            merged = tuple(series for each in tuples for series in each)
            self._merged[metric] = tuples, merged
        return Column(merged, list(chain.from_iterable([part.values for part in parts])))  # type: ignore[arg-type]  # numbers, not distributions
