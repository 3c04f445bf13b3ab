"""One cycle: read every source once, hand out one Snapshot. A source that fails or hangs costs its own points only."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from queue import Empty, SimpleQueue

from otel_hostmetrics.catalogue.model import Metric, Series
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Column, Derived, Measurement, Reading, Snapshot, Source, State, Status
from otel_hostmetrics.report import Report
from otel_hostmetrics.telemetry import Telemetry

_log = logging.getLogger(__name__)

_REOPEN = 60.0  # s: how often a source this host had nothing for is looked for again
_AT_ONCE = (Reason.GONE, Reason.UNREADABLE, Reason.LATE)  # what may be over by the next cycle
_STALE = 3  # a late reading that waited this many deadlines to be taken is thrown away


class _Slot:
    """One source, opened when possible, read once per call."""

    def __init__(self, source: Source, reopen: float) -> None:
        self.source = source
        self._reopen_ns = int(reopen * 1e9)
        self._open = False
        self._try_at_ns = 0
        self._off = Status(State.OFF)
        self._said = ""  # the bug that was logged last

    def read(self) -> tuple[Reading, Status]:
        began = time.monotonic_ns()
        if not self._open and began < self._try_at_ns:
            return Reading(), self._off
        try:
            reading = self._opened_read()
        except Unavailable as error:
            return Reading(), self._close(error, began)
        except Exception as error:  # a bug in one source must not stop the others
            return Reading(), self._bug(error, began)
        self._said = ""
        reading.time_ns = reading.time_ns or time.time_ns()
        first = reading.off or (reading.problems[0] if reading.problems else None)
        took_ns = time.monotonic_ns() - began
        if first is None:
            return reading, Status(State.OK, took_ns=took_ns)
        return reading, Status(State.OFF if reading.off else State.PARTIAL, first.reason, str(first), first.needs, took_ns)

    def _opened_read(self) -> Reading:
        if not self._open:
            self.source.open()
            self._open = True
        return self.source.read()

    def _close(self, error: Unavailable, began: int) -> Status:
        self.close()
        state = State.OFF if error.reason in (Reason.ABSENT, Reason.UNSUPPORTED) else State.FAILED
        self._try_at_ns = 0 if error.reason in _AT_ONCE else began + self._reopen_ns
        self._off = Status(state, error.reason, str(error), error.needs)
        return Status(state, error.reason, str(error), error.needs, time.monotonic_ns() - began)

    def _bug(self, error: Exception, began: int) -> Status:
        """The traceback once, not in every cycle. What open() had opened before it failed is given back."""
        said = repr(error)
        if said != self._said:
            _log.error("source %s failed", self.source.name, exc_info=error)
        self._said = said
        if not self._open:
            self.close()
            self._try_at_ns = began + self._reopen_ns
            self._off = Status(State.FAILED, None, said)
        return Status(State.FAILED, None, said, took_ns=time.monotonic_ns() - began)

    def close(self) -> None:
        self._open = False
        try:
            self.source.close()
        except Exception:
            _log.exception("source %s cannot be closed", self.source.name)


class _Worker:
    """Reads a slot in a thread of its own. A driver that hangs holds one cycle for *deadline* seconds, and those after it not at all."""

    def __init__(self, slot: _Slot, deadline: float) -> None:
        self.slot = slot
        self._deadline = deadline
        self._asked_at = self._done_at = 0.0
        # Queues in C, which no more than one item is ever in: an Event's wait is a new lock and Python code each time.
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._done: SimpleQueue[tuple[Reading, Status]] = SimpleQueue()
        self._busy = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"source-{slot.source.name}", daemon=True)

    def request(self) -> None:
        """Begin a reading, unless one is still under way or waits to be taken; one that waited too long is no news any more."""
        if not self._thread.is_alive():
            self._thread.start()
        if not self._done.empty() and time.monotonic() - self._done_at > _STALE * self._deadline:
            self.take()
        if not self._busy:
            self._busy = True
            self._asked_at = time.monotonic()
            self._wanted.put(True)

    def take(self) -> tuple[Reading, Status] | None:
        """The reading under way once it is done; None if it is not done in time."""
        try:
            result = self._done.get(timeout=max(self._asked_at + self._deadline - time.monotonic(), 0))
        except Empty:
            return None
        self._busy = False
        return result

    def _run(self) -> None:
        while self._wanted.get() and not self._stop:
            result = self.slot.read()
            self._done_at = time.monotonic()
            self._done.put(result)
        self.slot.close()

    def close(self) -> None:
        """Let the thread end once its call returns; a call that never does dies with the process."""
        self._stop = True
        self._wanted.put(False)
        if self._thread.is_alive():
            self._thread.join(0.1)


class _Limit:
    """Cuts a source's reading down to *most* series, the same ones as long as the reading's series stay the same."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._cut: dict[Metric, tuple[tuple[Series, ...], tuple[Series, ...]]] = {}

    def apply(self, reading: Reading) -> int:
        """Returns how many series are left; the number cut off goes into the reading."""
        total = sum([len(column.series) for column in reading.columns.values()])
        if total <= self._most:
            self._cut.clear()
            return total
        left = self._most
        for metric, column in reading.columns.items():
            if len(column.series) > left:
                reading.columns[metric] = Column(self._shortened(metric, column.series, left), column.values[:left])
            left -= len(reading.columns[metric].series)
        reading.dropped = total - self._most
        return self._most

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
        self._inline = [_Slot(source, reopen) for source in sources if not source.blocking and not isinstance(source, Derived)]
        self._workers = [_Worker(_Slot(source, reopen), deadline) for source in sources if source.blocking]
        self._derived = [(each, _Slot(each, reopen)) for each in sources if isinstance(each, Derived)]
        self._own = _Slot(own, reopen) if own else None
        self._enabled = frozenset(enabled)
        self._deadline = deadline
        names = [source.name for source in (*sources, *([own] if own else []))]
        self._limits = {name: _Limit(max_series) for name in names}
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
            self._keep(worker.slot, worker.take() or _late(self._deadline), readings, statuses)
        for derived, slot in self._derived:
            derived.take(self._whole)
            self._keep(slot, slot.read(), readings, statuses)
        self._whole = {}
        if self._own:
            self._keep(self._own, self._own.read(), readings, statuses)
        self._statuses = statuses
        return Snapshot(next(self._numbers), time_ns, monotonic_ns, readings, statuses)

    def _keep(self, slot: _Slot, result: tuple[Reading, Status], readings: dict[str, Reading], statuses: dict[str, Status]) -> None:
        name, series = slot.source.name, 0
        reading, status = readings[name], statuses[name] = result
        if reading.columns or reading.measurements:
            enabled = self._enabled
            self._whole[name] = reading.columns
            # A third party's source has left out itself what nobody wants.
            reading.columns = {
                metric: column for metric, column in reading.columns.items() if (metric in enabled or metric.scope) and column.series
            }
            if reading.measurements:
                reading.measurements = [each for each in reading.measurements if (row := each.series.metric) in enabled or row.scope]
            series = self._limits[name].apply(reading)
            if self._enrich:
                self._add_workloads(self._enrich, name, reading)
        if status is not self._statuses.get(name):  # of a source that rests it is the very same in each cycle
            self._report.tell(name, status, reading, series)

    def _add_workloads(self, enrich: Callable[[str, Reading], None], name: str, reading: Reading) -> None:
        """A bug there costs points their workloads, not the cycle."""
        try:
            enrich(name, reading)
        except Exception as error:
            said = repr(error)
            _log.error("workloads of source %s are not known: %s", name, said, exc_info=error if said != self._not_enriched else None)
            self._not_enriched = said

    def close(self) -> None:
        for slot in (*self._inline, *(slot for _, slot in self._derived), *([self._own] if self._own else [])):
            slot.close()
        for worker in self._workers:
            worker.close()


def _late(deadline: float) -> tuple[Reading, Status]:
    return Reading(), Status(State.LATE, Reason.LATE, f"no answer within {deadline:g} s", took_ns=int(deadline * 1e9))


def measurements(snapshot: Snapshot) -> Sequence[Measurement]:
    """What every histogram is to record from this cycle."""
    return [each for reading in snapshot.readings.values() for each in reading.measurements]
