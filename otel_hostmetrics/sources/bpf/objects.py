"""Objects of one kind - programs, maps or links - from records to columns.

What never changes for an object is bound to series once, when its id is first seen; a cycle in which no id came or went
costs one comparison of two lists, and hands out the very same columns again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from otel_hostmetrics.catalogue.model import Metric, Number, Owner, Series
from otel_hostmetrics.kernel.bpf_objects import Link, Map, Program
from otel_hostmetrics.model import Column

R = TypeVar("R", Program, Map, Link)


class Bound(NamedTuple):
    """One object's series: *fixed* have their value with them, *live* get one in every cycle."""

    fixed: Sequence[tuple[Series, Number]]
    live: Mapping[Metric, Series] = {}


class Objects(Generic[R]):
    """All objects of one kind. *describe* turns ids into records; ids it leaves out have vanished meanwhile."""

    def __init__(
        self, describe: Callable[[Collection[int]], Mapping[int, R]], bind: Callable[[R], Bound], count: tuple[Metric, str, tuple[str, ...]]
    ) -> None:
        self._describe: Callable[[Collection[int]], Mapping[int, R]] = describe
        self._bind: Callable[[R], Bound] = bind
        self._count_metric, self._count_attribute, self._type_names = count
        self._ids: list[int] = []  # of the last sync()
        self._complete = True  # each of them has a record
        self.records: dict[int, R] = {}
        self._bound: dict[int, Bound] = {}
        self.owners: Mapping[int, Owner] = {}
        self._type_series: dict[int, Series] = {}
        self.columns: dict[Metric, Column] = {}
        self._live: dict[Metric, tuple[tuple[Series, ...], list[int]]] = {}
        self.changes = 0

    def knows(self, ids: list[int]) -> bool:
        """Whether sync() would have nothing to do."""
        return self._complete and ids == self._ids

    def sync(self, ids: list[int]) -> None:
        """Take over what is there now. *ids* in the order in which live values will be given."""
        if self.knows(ids):
            return
        new = [each for each in ids if each not in self.records]
        found = self._describe(new) if new else {}
        if ids == self._ids and not found:
            return
        self.records = {each: record for each in ids if (record := self.records.get(each) or found.get(each)) is not None}
        self._bound = {each: self._bound.get(each) or self._owned(record) for each, record in self.records.items()}
        self._ids, self._complete = ids, len(self.records) == len(ids)  # an id without a record is tried again
        self._arrange()

    def refresh(self, ids: Collection[int]) -> None:
        """Read these objects again, for what may change in the life of an object; rebind those that did."""
        changed = {each: record for each, record in self._describe(ids).items() if each in self.records and record != self.records[each]}
        if changed:
            self.records.update(changed)
            self._rebind(changed)
            self._arrange()

    def rebind(self) -> None:
        """Bind everything anew, after what names are made of has changed."""
        self._rebind(self.records)
        self._arrange()

    def own(self, owners: Mapping[int, Owner]) -> None:
        """Whose the objects are now, by id. Those that changed hands get new series."""
        changed = {each: record for each, record in self.records.items() if owners.get(each) != self.owners.get(each)}
        self.owners = owners
        if changed:
            self._rebind(changed)
            self._arrange()

    def _owned(self, record: R) -> Bound:
        bound: Bound = self._bind(record)
        owner = self.owners.get(record.id)
        if owner:
            for series in (*(series for series, _ in bound.fixed), *bound.live.values()):
                series.owner = owner
        return bound

    def _rebind(self, records: Mapping[int, R]) -> None:
        """Keep the Series that come out the same: counters go on where they are, also for exporters that send deltas."""
        for each, record in records.items():
            old: Bound = self._bound[each]
            new = self._owned(record)
            known = {_key(series): series for series in (*[series for series, _ in old.fixed], *old.live.values())}
            fixed = [(known.get(_key(series), series), value) for series, value in new.fixed]
            self._bound[each] = Bound(fixed, {metric: known.get(_key(series), series) for metric, series in new.live.items()})

    def _arrange(self) -> None:
        """Columns of all bound objects, in the order of the ids."""
        self.changes += 1
        fixed: dict[Metric, tuple[list[Series], list[Number]]] = {}
        live: dict[Metric, tuple[list[Series], list[int]]] = {}
        for position, each in enumerate(self._ids):
            bound = self._bound.get(each)
            if bound is None:
                continue
            for series, value in bound.fixed:
                column = fixed.setdefault(series.metric, ([], []))
                column[0].append(series)
                column[1].append(value)
            for metric, series in bound.live.items():
                places = live.setdefault(metric, ([], []))
                places[0].append(series)
                places[1].append(position)
        fixed[self._count_metric] = self._count()
        nothing: tuple[tuple[Series, ...], object] = ((), None)
        self.columns = {
            metric: Column(_same(self.columns.get(metric, nothing)[0], series), tuple(values)) for metric, (series, values) in fixed.items()
        }
        self._live = {
            metric: (_same(self._live.get(metric, nothing)[0], series), positions) for metric, (series, positions) in live.items()
        }

    def _count(self) -> tuple[list[Series], list[Number]]:
        counts = Counter(record.type for record in self.records.values())
        for number in counts.keys() - self._type_series.keys():
            name = self._type_names[number] if number < len(self._type_names) else str(number)
            self._type_series[number] = self._count_metric.series({self._count_attribute: name})
        return [self._type_series[number] for number in counts], list(counts.values())

    def live(self, metric: Metric, values: Sequence[Number]) -> Iterable[tuple[Metric, Column]]:
        """The column of *metric*, from *values* in the order of the ids of the last sync(); none if no object has it."""
        series, positions = self._live.get(metric, ((), []))
        if series:
            yield metric, Column(series, values if len(positions) == len(values) else [values[position] for position in positions])

    def live_series(self, metric: Metric) -> tuple[Series, ...]:
        """The series of *metric*, in the order of live()'s columns."""
        return self._live.get(metric, ((), []))[0]


def _key(series: Series) -> tuple[Metric, frozenset[tuple[str, object]], Owner | None]:
    return series.metric, frozenset(series.attributes.items()), series.owner


def _same(old: tuple[Series, ...], new: list[Series]) -> tuple[Series, ...]:
    """The old tuple if it holds the new one's very Series: what exporters keep for it stays good."""
    made = tuple(new)
    return old if made == old else made
