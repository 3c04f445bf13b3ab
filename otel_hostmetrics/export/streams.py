"""What stands behind an instrument: callbacks to be asked, or cells that are recorded into."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation

from otel_hostmetrics.catalogue.model import Attributes, Metric, Number, Series
from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.export.metering import Replayed
from otel_hostmetrics.export.observed import Key, NotAllowed, attributes, key, observation, observations, shown
from otel_hostmetrics.model import Column

_log = logging.getLogger(__name__)

Callback = Callable[[CallbackOptions], Iterable[Observation]] | Generator[Iterable[Observation], CallbackOptions, None]
_OPTIONS = CallbackOptions()


class Stream:
    """One metric on its way out: what exporters need of an instrument."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.position = 0  # in the order of creation

    def columns(self) -> Iterable[tuple[int, Column]]:
        """(Unix time of the values, column) of what there is now; may be empty."""
        return ()

    def merge(self, twin: Any) -> None:
        """Take over what a second instrument of the same name and kind would have exported."""

    @property
    def problems(self) -> Iterable[Unavailable]:
        """What could not be asked in the last columns()."""
        return ()


class Observed(Stream):
    """An observable instrument's callbacks."""

    def __init__(self, metric: Metric, callbacks: Sequence[Callback] | None) -> None:
        super().__init__(metric)
        callbacks = list(callbacks or ())  # also what can be gone through only once
        self.replayed = [callback for callback in callbacks if isinstance(callback, Replayed)]
        others = (callback for callback in callbacks if not isinstance(callback, Replayed))
        self.callbacks = [_primed(callback) if isinstance(callback, Generator) else callback for callback in others]
        self._began_ns = time.time_ns()
        self._failed: dict[int, Unavailable] = {}  # by the callback's position
        self._series: dict[Key, Series] = {}
        self._bound: tuple[Series, ...] = ()

    def columns(self) -> Iterable[tuple[int, Column]]:
        foreign: dict[Key, tuple[Attributes, Number]] = {}
        for index, callback in enumerate([*self.callbacks]):  # to which one may add
            try:
                for each in observations(callback(_OPTIONS)):
                    point = observation(each)
                    foreign[key(point[0])] = point  # the last of several with the same attributes counts
                self._failed.pop(index, None)
            except BaseException as error:  # one callback must not stop the others, nor the thread: exits, cancelled tasks, panics
                self._fail(index, error)
        if foreign:
            yield time.time_ns(), self._bind(foreign)

    def _fail(self, index: int, error: BaseException) -> None:
        """The traceback is said once, until it works again; what is only not allowed tells all by itself, see problems."""
        if index not in self._failed and not isinstance(error, NotAllowed):
            _log.error("callback of %s failed", self.metric.name, exc_info=error)
        self._failed[index] = _why(f"callback of {self.metric.name}", error)

    @property
    def problems(self) -> Iterable[Unavailable]:
        return self._failed.values()

    def merge(self, twin: Observed) -> None:
        self.callbacks += [callback for callback in twin.callbacks if callback not in self.callbacks]

    def _bind(self, observed: dict[Key, tuple[Attributes, Number]]) -> Column:
        """Observations of others as a column: in the order of the first, so that another is no other set of series."""
        if not self._series:
            self.metric = replace(self.metric, integer=all(isinstance(value, int) for _, value in observed.values()))
        if observed.keys() != self._series.keys():
            self._series = {
                key: self._series.get(key) or Series(self.metric, attributes, self._began_ns) for key, (attributes, _) in observed.items()
            }
            self._bound = tuple(self._series.values())
        return Column(self._bound, [observed[key][1] for key in self._series])


def _why(what: str, error: BaseException) -> Unavailable:
    if isinstance(error, NotAllowed):
        return Unavailable(Reason.MALFORMED, what, str(error))
    return unavailable(error, what) if isinstance(error, OSError) else Unavailable(Reason.UNREADABLE, what, shown(error))


def _primed(generator: Generator[Iterable[Observation], CallbackOptions, None]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """A generator as callback is advanced to its first yield, and then sent the options each time."""
    next(generator)
    return generator.send


class Recorded(Stream):
    """A synchronous instrument's cells, one per set of attributes."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self._lock = threading.Lock()
        self._cells: dict[Key, list[Any]] = {}
        self._new: list[tuple[Attributes, int]] = []  # of cells without a series yet, and when they began
        self._series: tuple[Series, ...] = ()

    def change(self, given: Mapping[str, Any] | None, change: Callable[[Any], Any]) -> None:
        """Put ``change(old value)`` in place of a cell's value, None if there is none. Raises NotAllowed for such attributes."""
        with self._lock:
            cell = self._known(given) or self._cell(attributes(given))
            cell[0] = change(cell[0])

    def _known(self, given: Mapping[str, Any] | None) -> list[Any] | None:
        """The cell of attributes that were checked before."""
        try:
            return self._cells.get(frozenset(given.items() if given else ()))
        except (TypeError, AttributeError):  # a list, or no attributes at all
            return None

    def _cell(self, own: Attributes) -> list[Any]:
        cell = self._cells.get(key(own))
        if cell is None:
            cell = self._cells[key(own)] = [None]
            self._new.append((own, time.time_ns()))
        return cell

    def columns(self) -> Iterable[tuple[int, Column]]:
        with self._lock:
            values, new, self._new = [cell[0] for cell in self._cells.values()], self._new, []
            if values and not self._series:
                self.metric = replace(self.metric, integer=all(isinstance(value, int) for value in values))
            if new:
                self._series = (*self._series, *[Series(self.metric, own, began_ns) for own, began_ns in new])
        if values:
            yield time.time_ns(), Column(self._series, values)
