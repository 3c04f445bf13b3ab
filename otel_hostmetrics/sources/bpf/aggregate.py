"""One series per type and name instead of one per object: ids churn, names do not."""

from __future__ import annotations

from typing import NamedTuple

from otel_hostmetrics.catalogue.bpf import GROUP_ATTRIBUTES
from otel_hostmetrics.catalogue.model import Combine, Kind, Metric, Number, Series
from otel_hostmetrics.model import Column

_Key = frozenset[tuple[str, object]]
_MOST_GONE = 10_000  # groups without members whose counts are kept, per metric; names may be as many as loads


class _Groups(NamedTuple):
    """Which group each series of a column belongs to."""

    members: tuple[Series, ...]
    positions: list[int]  # in *series*, of each member
    series: tuple[Series, ...]


class Aggregate:
    """Keeps groups between cycles: a counter's group never loses what members that are gone had counted."""

    def __init__(self) -> None:
        self._groups: dict[Metric, _Groups] = {}
        self._series: dict[Metric, dict[_Key, Series]] = {}
        self._gone: dict[Series, Number] = {}  # what members that are gone had counted, of counters that add up
        self._level: dict[Metric, dict[Series, Number]] = {}  # last sum, of levels that a seed calls counters
        self._last: dict[Metric, Column] = {}

    def apply(self, columns: dict[Metric, Column], time_ns: int) -> dict[Metric, Column]:
        """Columns by group; those that mean nothing for a group are left out.

        A metric without a column in one cycle was not read: its members are not gone, or they would count twice later.
        """
        return {metric: self._one(metric, column, time_ns) for metric, column in columns.items() if metric.combine is not Combine.NONE}

    def _one(self, metric: Metric, column: Column, time_ns: int) -> Column:
        counter = metric.kind is Kind.COUNTER
        groups = self._groups.get(metric)
        if groups is None or groups.members is not column.series:
            if counter and metric.combine is Combine.SUM:
                self._bury(metric, column.series)
            groups = self._groups[metric] = self._group(metric, column.series, time_ns)
        self._last[metric] = column
        values = _maxima(groups, column) if metric.combine is Combine.MAX else self._sums(groups, column)
        if counter and metric.combine is Combine.LIVE:
            groups = self._restarted(metric, groups, values, time_ns)
        return Column(groups.series, values)

    def _group(self, metric: Metric, members: tuple[Series, ...], time_ns: int) -> _Groups:
        places: dict[_Key, int] = {}
        positions = []
        known = self._series.get(metric, {})
        # A group that appears later, or again, begins now where its members do not say when: as a counter it may be lower.
        began_ns = time_ns if metric in self._series else 0
        kept = {key: series for key, series in known.items() if series in self._gone}
        for each in members:
            key: _Key = frozenset((name, value) for name, value in each.attributes.items() if name in GROUP_ATTRIBUTES)
            positions.append(places.setdefault(key, len(places)))
            if key not in kept:
                kept[key] = known.get(key) or Series(metric, dict(key), each.start_ns or began_ns)  # type: ignore[arg-type]
        for key in [key for key in kept if key not in places][:-_MOST_GONE]:
            del self._gone[kept.pop(key)]
        self._series[metric] = kept
        return _Groups(members, positions, tuple(kept[key] for key in places))

    def _sums(self, groups: _Groups, column: Column) -> list[Number]:
        sums: list[Number] = [self._gone.get(series, 0) for series in groups.series]
        for position, value in zip(groups.positions, column.values, strict=True):
            sums[position] += value  # type: ignore[operator]
        return sums

    def _bury(self, metric: Metric, members: tuple[Series, ...]) -> None:
        """Add what vanished members had counted to their groups."""
        last, groups = self._last.get(metric), self._groups.get(metric)
        if last is None or groups is None or metric.kind is not Kind.COUNTER or metric.combine is not Combine.SUM:
            return
        alive = {id(each) for each in members}
        for each, position, value in zip(last.series, groups.positions, last.values, strict=True):
            if id(each) not in alive:
                self._gone[groups.series[position]] = self._gone.get(groups.series[position], 0) + value  # type: ignore[operator]

    def _restarted(self, metric: Metric, groups: _Groups, values: list[Number], time_ns: int) -> _Groups:
        """A level that a seed calls a counter: where the sum fell, the group's series starts anew."""
        level = self._level.get(metric, {})
        fallen = {series for series, value in zip(groups.series, values, strict=True) if value < level.get(series, 0)}
        new = {series: Series(metric, series.attributes, time_ns) for series in fallen}
        if new:
            self._series[metric] = {key: new.get(series, series) for key, series in self._series[metric].items()}
            groups = groups._replace(series=tuple(new.get(series, series) for series in groups.series))
            self._groups[metric] = groups
        self._level[metric] = dict(zip(groups.series, values, strict=True))
        return groups


def _maxima(groups: _Groups, column: Column) -> list[Number]:
    members: list[list[Number]] = [[] for _ in groups.series]
    for position, value in zip(groups.positions, column.values, strict=True):
        members[position].append(value)  # type: ignore[arg-type]
    return [max(values) for values in members]
