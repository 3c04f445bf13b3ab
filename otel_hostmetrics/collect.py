"""One cycle: read every source once, hand out one Snapshot. A source that fails or hangs costs its own points only."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from otel_hostmetrics.catalogue.model import Metric, Series
from otel_hostmetrics.model import Column, Derived, Reading, Snapshot, Source, Status
from otel_hostmetrics.report import Report
from otel_hostmetrics.slots import Slot, Worker, late
from otel_hostmetrics.telemetry import Telemetry

_log = logging.getLogger(__name__)

_REOPEN = 60.0  # s: how often a source this host had nothing for is looked for again


class _Keep:
    """Cuts a source's readings down to the metrics that are wanted and have points, and these to *most* series.

    What that means is worked out when the set of series changes. The same set is cut down to the same series.
    """

    def __init__(self, enabled: frozenset[Metric], most: int) -> None:
        self._enabled = enabled
        self._most = most
        self._series: list[tuple[Series, ...]] = []  # of the last reading, as its source had them
        self._wanted: frozenset[Metric] = frozenset()
        self._all = False  # are wanted
        self._total = 0
        self._cut: dict[Metric, tuple[tuple[Series, ...], tuple[Series, ...]]] = {}

    def apply(self, reading: Reading) -> int:
        """Returns how many series are left; the number cut off goes into the reading, whose columns become another dict."""
        columns = reading.columns
        series = [column.series for column in columns.values()]
        if series != self._series:  # quick, as most are the same objects
            self._series = series
            self._look(columns)
        wanted = self._wanted
        reading.columns = columns.copy() if self._all else {metric: column for metric, column in columns.items() if metric in wanted}
        if self._total <= self._most:
            return self._total
        self._shorten(reading)
        return self._most

    def _look(self, columns: Mapping[Metric, Column]) -> None:
        """A third party's source has left out itself what nobody wants."""
        enabled = self._enabled
        wanted = {metric: len(series) for metric, (series, _) in columns.items() if series and (metric in enabled or metric.scope)}
        self._wanted, self._all, self._total = frozenset(wanted), len(wanted) == len(columns), sum(wanted.values())
        if self._total <= self._most:
            self._cut.clear()

    def _shorten(self, reading: Reading) -> None:
        left = self._most
        for metric, column in reading.columns.items():
            if len(column.series) > left:
                reading.columns[metric] = Column(self._shortened(metric, column.series, left), column.values[:left])
            left -= len(reading.columns[metric].series)
        reading.dropped = self._total - self._most

    def _shortened(self, metric: Metric, series: tuple[Series, ...], most: int) -> tuple[Series, ...]:
        whole, cut = self._cut.get(metric, ((), ()))
        if whole is not series or len(cut) != most:
            cut = series[:most]
            self._cut[metric] = (series, cut)
        return cut


class Collector:
    """Reads *sources*, those that derive from others last, and then *own*, the agent's own metrics, which tell of this very cycle.

    *enabled* are the rows of the catalogue to keep; *deadline* (s) bounds the wait for sources that may block; *reopen* (s) is how often a
    source that could not be opened is tried again. *enrich* is called with each source's name and reading, last of all.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        own: Source | None,
        enabled: Collection[Metric],
        telemetry: Telemetry,
        deadline: float,
        max_series: int,
        reopen: float = _REOPEN,
        enrich: Callable[[str, Reading], None] | None = None,
    ) -> None:
        self._inline = [Slot(source, reopen) for source in sources if not source.blocking and not isinstance(source, Derived)]
        self._workers = [Worker(Slot(source, reopen), deadline) for source in sources if source.blocking]
        self._derived = [(each, Slot(each, reopen)) for each in sources if isinstance(each, Derived)]
        self._own = Slot(own, reopen) if own else None
        self._enabled = frozenset(enabled)
        self._deadline = deadline
        names = [source.name for source in (*sources, *([own] if own else []))]
        self._keeps = {name: _Keep(self._enabled, max_series) for name in names}
        self._report = Report(telemetry)
        self._enrich = enrich
        self._whole: dict[str, Mapping[Metric, Column]] = {}  # what the sources of this cycle read, wanted or not
        self._statuses: Mapping[str, Status] = {}  # of the last cycle
        self._not_enriched = ""  # the bug that was logged last
        self._numbers = itertools.count(1)

    def collect(self) -> Snapshot:
        time_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
        readings: dict[str, Reading] = {}
        statuses: dict[str, Status] = {}
        for worker in self._workers:
            worker.request()
        for slot in self._inline:
            self._keep(slot, slot.read(), readings, statuses)
        for worker in self._workers:
            self._keep(worker.slot, worker.take() or late(self._deadline), readings, statuses)
        for derived, slot in self._derived:
            derived.take(self._whole)
            self._keep(slot, slot.read(), readings, statuses)
        self._whole = {}
        if self._own:
            self._keep(self._own, self._own.read(), readings, statuses)
        self._statuses = statuses
        return Snapshot(next(self._numbers), time_ns, monotonic_ns, readings, statuses)

    def _keep(self, slot: Slot, result: tuple[Reading, Status], readings: dict[str, Reading], statuses: dict[str, Status]) -> None:
        name, series = slot.source.name, 0
        reading, status = readings[name], statuses[name] = result
        if reading.columns or reading.measurements:
            self._whole[name] = reading.columns
            series = self._keeps[name].apply(reading)
            if reading.measurements:
                enabled = self._enabled
                reading.measurements = [each for each in reading.measurements if (row := each.series.metric) in enabled or row.scope]
            if self._enrich:
                try:
                    self._enrich(name, reading)
                except Exception as error:  # a bug there costs points their workloads, not the cycle
                    self._tell_bug(name, error)
        if status is not self._statuses.get(name):  # of a source that rests it is the very same in each cycle
            self._report.tell(name, status, reading, series)

    def _tell_bug(self, name: str, error: Exception) -> None:
        said = repr(error)
        _log.error("workloads of source %s are not known: %s", name, said, exc_info=error if said != self._not_enriched else None)
        self._not_enriched = said

    def close(self) -> None:
        for slot in (*self._inline, *(slot for _, slot in self._derived), *([self._own] if self._own else [])):
            slot.close()
        for worker in self._workers:
            worker.close()
