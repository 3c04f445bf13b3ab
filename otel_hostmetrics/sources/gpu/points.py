"""From flat lists of values to columns.

A vendor's part binds each Series once to a place in the list of values that it yields in every cycle. As long as the same
values are there, a cycle costs one loop per metric, and every column keeps its tuple of series.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter, lt
from typing import NamedTuple, TypeAlias

from otel_hostmetrics.catalogue.model import Attributes, AttributeValue, Kind, Metric, Number, Series
from otel_hostmetrics.model import Column

Value: TypeAlias = Number | None
_Attributes: TypeAlias = frozenset[tuple[str, AttributeValue]]
_MOST_MASKS = 16  # patterns of missing values remembered


class Bound(NamedTuple):
    """One series and where its value is. An integer metric is the value times *scale*, another one the value by *scale*."""

    series: Series
    place: int
    scale: float = 1
    slow: bool = False  # changes only in the cycles that say so


class Names:
    """Series by metric and attributes: what is discovered again is the same Series, and its counters go on."""

    def __init__(self) -> None:
        self._series: dict[tuple[Metric, _Attributes], Series] = {}

    def series(self, metric: Metric, attributes: Attributes, start_ns: int = 0) -> Series:
        key = (metric, frozenset(attributes.items()))
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = metric.series(attributes, start_ns)
        return found

    def replace(self, old: Series, new: Series) -> None:
        """*new* is what the same attributes mean from now on."""
        self._series[old.metric, frozenset(old.attributes.items())] = new


class _Plan(NamedTuple):
    """How one metric's column is made of the values."""

    metric: Metric
    series: tuple[Series, ...]
    compute: Callable[[Sequence[Value]], Sequence[Number]]
    slow: bool  # all of it


class Table:
    """The columns of everything bound."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._bound: list[Bound] = []
        self._plans: dict[tuple[int, ...], tuple[_Plan, ...]] = {}
        self._current: tuple[_Plan, ...] = ()
        self._columns: dict[Metric, Column] = {}  # of the last cycle
        self._last: dict[Metric, tuple[tuple[Series, ...], Sequence[Number]]] = {}  # of counters, in the last cycle that had them
        self._counted: dict[Series, Number] = {}  # and what those that were not in every cycle had counted

    def bind(self, bound: Iterable[Bound]) -> None:
        """Take over what there is now."""
        self._bound = list(bound)
        self._plans = {}

    def columns(self, values: Sequence[Value], slow: bool) -> dict[Metric, Column]:
        """One column per metric that has any value. Counters that fell begin anew: GPU reset, driver reload.

        Without *slow*, columns of nothing but slow values are those of the last cycle: half of the work on a big host.
        """
        missing = tuple(place for place, value in enumerate(values) if value is None) if None in values else ()
        plans = self._plans.get(missing)
        if plans is None:
            if len(self._plans) >= _MOST_MASKS:
                self._plans.clear()
            plans = self._plans[missing] = self._plan(frozenset(missing))
        if plans is self._current and not slow:
            columns, old = {}, self._columns
            for metric, series, compute, unchanged in plans:
                columns[metric] = old[metric] if unchanged else Column(series, compute(values))
        else:
            columns = {metric: Column(series, compute(values)) for metric, series, compute, _ in plans}
        if self._restarted(columns):
            self._plans.clear()
            return self.columns(values, True)
        self._current, self._columns = plans, columns
        return columns

    def _plan(self, missing: frozenset[int]) -> tuple[_Plan, ...]:
        by_metric: dict[Metric, list[Bound]] = {}
        for bound in self._bound:
            if bound.place not in missing:
                by_metric.setdefault(bound.series.metric, []).append(bound)
        return tuple(
            _Plan(metric, tuple(each.series for each in some), _compute(metric, some), all(each.slow for each in some))
            for metric, some in by_metric.items()
        )

    def _restarted(self, columns: Mapping[Metric, Column]) -> bool:
        """Give each counter that is lower than before a new start."""
        found = False
        for metric, (series, values) in columns.items():
            if metric.kind is not Kind.COUNTER:
                continue
            known, before = self._last.get(metric, ((), ()))
            if values is before:
                continue
            if known is series and not any(map(lt, values, before)):
                self._last[metric] = (series, values)  # type: ignore[assignment]
                continue
            self._counted.update(zip(known, before, strict=True))
            fallen = [each for each, value in zip(series, values, strict=True) if value < self._counted.get(each, 0)]  # type: ignore[operator]
            if fallen:
                self._renew(fallen)
                found = True
            self._last[metric] = (series, values) if not fallen else ((), ())  # type: ignore[assignment]
        return found

    def _renew(self, fallen: Sequence[Series]) -> None:
        now = time.time_ns()
        new = {each: Series(each.metric, each.attributes, now, each.resource) for each in fallen}
        for old, replacement in new.items():
            self._names.replace(old, replacement)
            self._counted.pop(old, None)
        self._bound = [bound._replace(series=new.get(bound.series, bound.series)) for bound in self._bound]


def _compute(metric: Metric, some: Sequence[Bound]) -> Callable[[Sequence[Value]], Sequence[Number]]:
    """The quickest way to one column: a third of the time of a loop over pairs where nothing is to be scaled."""
    places = [bound.place for bound in some]
    scales = {bound.scale for bound in some}
    if scales == {1} and metric.integer and len(places) > 1:
        return itemgetter(*places)
    if len(scales) == 1:
        scale = scales.pop()
        if metric.integer:
            return lambda values: [values[place] * scale for place in places]  # type: ignore[operator]
        return lambda values: [values[place] / scale for place in places]  # type: ignore[operator]
    pairs = [(bound.place, bound.scale) for bound in some]
    if metric.integer:
        return lambda values: [values[place] * scale for place, scale in pairs]  # type: ignore[operator]
    return lambda values: [values[place] / scale for place, scale in pairs]  # type: ignore[operator]


class Keyed:
    """Columns of things that come and go, such as processes: attributes -> value in every cycle."""

    def __init__(self, start_ns: int = 0) -> None:
        """*start_ns*: when what is counted here began to be counted."""
        self._start_ns = start_ns
        self._series: dict[Metric, dict[_Attributes, Series]] = {}
        self._columns: dict[Metric, tuple[Series, ...]] = {}

    def columns(self, points: Mapping[Metric, Sequence[tuple[Attributes, Number]]]) -> dict[Metric, Column]:
        """Forgets at once what is no longer there."""
        self._series = {metric: series for metric, series in self._series.items() if points.get(metric)}
        return {metric: Column(self._bound(metric, some), [value for _, value in some]) for metric, some in points.items() if some}

    def _bound(self, metric: Metric, some: Sequence[tuple[Attributes, Number]]) -> tuple[Series, ...]:
        known = self._series.get(metric, {})
        keys = [frozenset(attributes.items()) for attributes, _ in some]
        if list(known) != keys:
            known = self._series[metric] = {
                key: known.get(key) or metric.series(attributes, self._start_ns) for key, (attributes, _) in zip(keys, some, strict=True)
            }
            self._columns[metric] = tuple(known.values())
        return self._columns[metric]


class Merge:
    """One column per metric, of what several parts emit."""

    def __init__(self) -> None:
        self._joined: dict[Metric, tuple[tuple[tuple[Series, ...], ...], tuple[Series, ...]]] = {}

    def columns(self, parts: Sequence[Mapping[Metric, Column]]) -> dict[Metric, Column]:
        """A column that only one part has is passed on as it is."""
        merged: dict[Metric, Column] = {}
        shared: set[Metric] = set()
        for part in parts:
            shared |= merged.keys() & part.keys()
            merged.update(part)
        for metric in shared:
            merged[metric] = self._join(metric, [part[metric] for part in parts if metric in part])
        return merged

    def _join(self, metric: Metric, columns: Sequence[Column]) -> Column:
        tuples = tuple(column.series for column in columns)
        known = self._joined.get(metric)
        if known is None or len(known[0]) != len(tuples) or any(old is not new for old, new in zip(known[0], tuples, strict=True)):
            known = self._joined[metric] = (tuples, tuple(series for each in tuples for series in each))
        return Column(known[1], [value for column in columns for value in column.values])  # type: ignore[arg-type]
