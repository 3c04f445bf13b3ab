"""The stage of a cycle that gives points the workload they belong to.

Where a point's owner is known - Series.owner, or the attribute ``process.pid`` - its Series is replaced by one with that
workload as ``resource``. In a cycle in which no series came or went and no owner changed hands this costs one look at
each distinct owner and nothing per point: columns get the very tuple of series they got the last time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeAlias

from otel_hostmetrics.catalogue.model import Attributes, Metric, Owner, Series
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.enrich.workloads import Workloads
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Column, Reading

_PID, _CGROUP, _CGROUP_ID = "process.pid", "bpf.cgroup.path", "bpf.cgroup.id"
_DEVICES = ("hw.id", "gpu_uuid", "rdma.device.name")  # attributes that name what may have been given to a pod
_FIRST_WAIT = 1.0  # s

_Whose: TypeAlias = Owner | str  # a str is a device
_Answers: TypeAlias = dict[_Whose, Attributes | None]


class _Plan(NamedTuple):
    """What was worked out for a tuple of series."""

    source: tuple[Series, ...]  # as the source has them
    owners: tuple[_Whose | None, ...]
    distinct: frozenset[_Whose]
    series: tuple[Series, ...]  # with their workloads; the source's own tuple where none has one


class _Source:
    """The plans for one source's metrics, and the last answers about their owners.

    A metric that is missing in one cycle keeps its plan: exporters go on with the series they know.
    """

    def __init__(self) -> None:
        self.plans: dict[Metric, _Plan] = {}
        self.present: Collection[Metric] = ()
        self.series: list[tuple[Series, ...]] = []  # of the last reading's columns
        self.owners: frozenset[_Whose] = frozenset()
        self.answers: _Answers = {}


class Stage:
    """Called with each reading of each source, by one thread at a time.

    *points* are shell patterns of attributes that are also put on each point; *devices*: whether it may be known which
    device was given to which pod.
    """

    def __init__(self, workloads: Workloads, refresh: Refresh, points: tuple[str, ...] = (), devices: bool = False) -> None:
        self._workloads = workloads
        self._refresh = refresh
        self._points = points
        self._device_attributes = _DEVICES if devices else ()
        self._sources: dict[str, _Source] = {}
        self._first = True

    def __call__(self, source: str, reading: Reading) -> None:
        """Put the columns of workloads in place of the source's; what may not be read is a problem of the reading."""
        state = self._sources.get(source) or self._sources.setdefault(source, _Source())
        series = [column.series for column in reading.columns.values()]
        new = self._plan(state, reading.columns, series) if series != state.series else {}
        if not state.owners:
            return
        before, state.answers = state.answers, self._answers(state, reading)
        changed = new.keys() | {
            metric
            for metric, plan in (state.plans.items() if _differ(before, state.answers) else ())
            if any(before.get(owner) is not state.answers.get(owner) for owner in plan.distinct)
        }
        for metric in changed:
            state.plans[metric] = self._bound(state.plans[metric], new.get(metric) or state.plans[metric], state.answers)
        for metric, column in reading.columns.items():
            own = state.plans[metric].series
            if own is not column.series:
                reading.columns[metric] = Column(own, column.values)

    def _plan(self, state: _Source, columns: Mapping[Metric, Column], series: list[tuple[Series, ...]]) -> dict[Metric, _Plan]:
        """Plan for tuples that are new; returns, for those metrics, the plans they had before."""
        new: dict[Metric, _Plan] = {}
        state.series = series
        for metric, column in columns.items():
            old = state.plans.get(metric)
            if old is None or old.source is not column.series:
                owners = tuple(map(self._owner, column.series))
                plan = _Plan(column.series, owners, frozenset(owner for owner in owners if owner is not None), column.series)
                new[metric] = old or plan
                state.plans[metric] = plan
            elif metric not in state.present:
                new[metric] = old
        if new or columns.keys() != state.present:
            state.present = frozenset(columns)
            state.owners = frozenset[_Whose]().union(*(state.plans[metric].distinct for metric in columns))
        return new

    def _owner(self, one: Series) -> _Whose | None:
        """The source's word, else the process or cgroup that the point names, else the device."""
        if one.owner is not None or one.resource is not None:
            return one.owner
        if type(pid := one.attributes.get(_PID)) is int:
            return Owner(pid)
        if type(path := one.attributes.get(_CGROUP)) is str:
            return Owner(cgroup=path)
        if type(number := one.attributes.get(_CGROUP_ID)) is int:
            return Owner(cgroup_id=number)
        return next((value for key in self._device_attributes if type(value := one.attributes.get(key)) is str), None)

    def _answers(self, state: _Source, reading: Reading) -> _Answers:
        self._workloads.begin()
        answers = self._all(state, reading.problems)
        if self._workloads.ask() and self._first:  # with their names from the first points on, also in a run of one cycle
            self._first = False
            self._refresh.wait(_FIRST_WAIT)
            self._workloads.begin()
            answers = self._all(state, [])
        return answers

    def _all(self, state: _Source, problems: list[Unavailable]) -> _Answers:
        denied: list[Unavailable] = []
        before = state.answers
        answers = {owner: self._answer(owner, before.get(owner), denied) for owner in state.owners}
        problems += denied[:1]
        return answers

    def _answer(self, owner: _Whose, before: Attributes | None, denied: list[Unavailable]) -> Attributes | None:
        """Of what does not exist any more, the answer of *before*: the point is one that the source still has of it."""
        workloads = self._workloads
        if isinstance(owner, str):
            return workloads.device(owner)
        try:
            if owner.pid:
                return workloads.process(owner.pid)
        except Unavailable as error:
            if error.reason is Reason.DENIED:
                denied.append(error)
        try:
            if owner.cgroup or owner.cgroup_id:
                return workloads.cgroup(owner.cgroup) if owner.cgroup else workloads.cgroup_id(owner.cgroup_id)
        except Unavailable as error:
            if error.reason is Reason.DENIED:
                denied.append(error)
        return before

    def _bound(self, plan: _Plan, old: _Plan, answers: _Answers) -> _Plan:
        """With new Series for those whose workload is another one; the others stay the same objects."""
        known = dict(zip(old.source, old.series, strict=True))
        series = tuple(
            one if owner is None else self._series(one, answers.get(owner), known.get(one))
            for one, owner in zip(plan.source, plan.owners, strict=True)
        )
        return plan._replace(series=plan.source if series == plan.source else old.series if series == old.series else series)

    def _series(self, one: Series, resource: Attributes | None, known: Series | None) -> Series:
        if resource is None:
            return one
        if known is not None and known.resource is resource:
            return known
        more = {key: value for key, value in resource.items() if any(fnmatchcase(key, pattern) for pattern in self._points)}
        return Series(one.metric, {**one.attributes, **more} if more else one.attributes, one.start_ns, resource)

    def close(self) -> None:
        """May be called again."""
        self._refresh.close()
        self._workloads.close()


def _differ(before: _Answers, now: _Answers) -> bool:
    return any(before.get(owner) is not answer for owner, answer in now.items())
