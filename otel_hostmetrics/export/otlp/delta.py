"""Delta temporality: what a counter or histogram gained since it was last exported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import sub
from typing import Any, NamedTuple

from otel_hostmetrics.catalogue.model import Kind, Metric, Number, Scope, Series
from otel_hostmetrics.model import Distribution, Family

_TOGETHER_NS = 10_000_000_000  # before the encoder is made, the agent has begun to count
_ABSENT_LIMIT = 10_000  # series remembered while they are away; the one away longest is forgotten first


class Increments(NamedTuple):
    """A column's gains, each since its own start (Unix nanoseconds). One that is NaN, or whose sum is, is not to be exported."""

    values: Sequence[Any]
    starts: Sequence[int]


_Identity = tuple[Scope | None, str]  # Metric.identity: a third party's metric may become another object of the same name
_Key = tuple[_Identity, frozenset[tuple[str, object]], int]


def _key(series: Series) -> _Key:
    """What stays the same when its workload is known better, or its source is opened again."""
    workload = series.resource or {}
    return series.metric.identity, frozenset(each for each in series.attributes.items() if each[0] not in workload), series.start_ns


class Deltas:
    """Remembers what was exported of every series.

    The first gain of a series that began with us is its whole value. One that began before, as a counter of the kernel's
    does, or whose beginning is not known, has none: what it counted until then may have been exported by an agent before
    us. A counter that went down began anew: its gain is its value. A series that could not be read for a while (a tuple
    without it, a cycle without its source) continues where it was, so nothing is counted twice.
    """

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._streams: dict[_Identity, dict[int, _Stream]] = {}  # by identity of Column.series
        self._absent: dict[_Key, tuple[Any, int]] = {}

    def family(self, family: Family) -> list[Increments]:
        """Gains of each column; its values become the new base."""
        identity = family.metric.identity
        before = self._streams.get(identity, {})
        present = {id(column.series): column.series for _, column in family.columns}
        for key in before.keys() - present.keys():
            self._absent.update({_key(one): last for one, last in before[key].last().items()})
        streams = {key: before.get(key) or self._open(family.metric, series) for key, series in present.items()}
        while len(self._absent) > _ABSENT_LIMIT:
            del self._absent[next(iter(self._absent))]
        self._streams[identity] = streams
        return [streams[id(column.series)].advance(column.values, time_ns) for time_ns, column in family.columns]

    def _open(self, metric: Metric, series: tuple[Series, ...]) -> _Stream:
        stream: type[_Stream] = _Histograms if metric.kind is Kind.HISTOGRAM else _Numbers
        nothing: tuple[Any, int] = (None, 0)
        found = [self._absent.pop(_key(one), nothing) if self._absent else nothing for one in series]
        last = [each if each[1] else self._first(one, stream.zero) for one, each in zip(series, found, strict=True)]
        return stream(series, [value for value, _ in last], [time_ns for _, time_ns in last])

    def _first(self, series: Series, zero: Any) -> tuple[Any, int]:
        ours = series.start_ns >= self._start_ns - _TOGETHER_NS or series.metric.kind is Kind.HISTOGRAM
        return (zero if ours else None), series.start_ns or self._start_ns


class _Stream:
    """The values of one column that were exported last, and when. None: of none is known."""

    zero: Any = 0
    nothing: Any = math.nan
    gain: Callable[[Any, Any], Any]  # of a new value over an old one; None if it cannot be exported

    def __init__(self, series: tuple[Series, ...], values: list[Any], times: list[int]) -> None:
        self._series = series  # also keeps the tuple alive, so that its identity is not given to another
        self._values = values
        self._times = times

    def last(self) -> dict[Series, tuple[Any, int]]:
        return dict(zip(self._series, zip(self._values, self._times, strict=True), strict=True))

    def advance(self, values: Sequence[Any], time_ns: int) -> Increments:
        """Point by point. What cannot be exported leaves its base as it is."""
        starts = self._times.copy()
        gains = [self.nothing] * len(values)
        for index, (new, old) in enumerate(zip(values, self._values, strict=True)):
            gain = self.gain(new, self.zero if old is None else old)
            if gain is not None and old is None:
                self._values[index], self._times[index] = new, time_ns
            elif gain is not None:
                gains[index], self._values[index], self._times[index] = gain, new, time_ns
        return Increments(gains, starts)


class _Numbers(_Stream):
    def advance(self, values: Sequence[Any], time_ns: int) -> Increments:
        """All at once (0.05 us per point) if all are finite and none went down, else point by point (0.4 us)."""
        try:
            gains = list(map(sub, values, self._values))
            plain = math.isfinite(sum(gains)) and min(gains, default=0) >= 0
        except (OverflowError, TypeError):  # an integer beyond the range of a double; no value before
            plain = False
        if not plain:
            return super().advance(values, time_ns)
        starts, self._times = self._times, [time_ns] * len(values)
        self._values = list(values)
        return Increments(gains, starts)

    @staticmethod
    def gain(new: Number, old: Number) -> Number | None:
        try:
            gain = new - old
            return (gain if gain >= 0 else new) if math.isfinite(new) else None
        except OverflowError:
            return None


class _Histograms(_Stream):
    zero = Distribution((), 0.0, math.nan, math.nan)
    nothing = Distribution((), math.nan, math.nan, math.nan)

    @staticmethod
    def gain(new: Distribution, old: Distribution) -> Distribution | None:
        """Without minimum and maximum, except the first time: a cumulative value does not tell an interval's."""
        counts = tuple(map(sub, new.counts, old.counts))
        if not math.isfinite(new.sum) or (counts and not any(counts)):
            return None  # nothing was recorded: no point, as from the stock SDK
        if not counts or min(counts) < 0:
            return new
        return Distribution(counts, new.sum - old.sum, math.nan, math.nan)
