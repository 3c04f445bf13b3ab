"""What stands behind an instrument: callbacks to be asked, or cells that are recorded into."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry.metrics import CallbackOptions, Observation

from otel_hostmetrics.catalogue.model import Attributes, Metric, Number, Series
from otel_hostmetrics.export.metering import Replayed
from otel_hostmetrics.model import Column

_log = logging.getLogger(__name__)

Callback = Callable[[CallbackOptions], Iterable[Observation]] | Generator[Iterable[Observation], CallbackOptions, None]
_Key = frozenset[tuple[str, object]]
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


class Observed(Stream):
    """An observable instrument's callbacks."""

    def __init__(self, metric: Metric, callbacks: Sequence[Callback] | None) -> None:
        super().__init__(metric)
        self.replayed = [callback for callback in callbacks or () if isinstance(callback, Replayed)]
        others = (callback for callback in callbacks or () if not isinstance(callback, Replayed))
        self.callbacks = [_primed(callback) if isinstance(callback, Generator) else callback for callback in others]
        self._began_ns = time.time_ns()
        self._failed: set[int] = set()
        self._series: dict[_Key, Series] = {}
        self._bound: tuple[Series, ...] = ()

    def columns(self) -> Iterable[tuple[int, Column]]:
        foreign: dict[_Key, tuple[Attributes, Number]] = {}
        for index, callback in enumerate(self.callbacks):
            try:
                for each in callback(_OPTIONS):
                    attributes, value = _checked(each)
                    foreign[_key(attributes)] = attributes, value  # the last of several with the same attributes counts
                self._failed.discard(index)
            except Exception:  # one callback must not stop the others; said once, until it works again
                if index not in self._failed:
                    _log.exception("callback of %s failed", self.metric.name)
                self._failed.add(index)
        if foreign:
            yield time.time_ns(), self._bind(foreign)

    def merge(self, twin: Observed) -> None:
        self.callbacks.extend(twin.callbacks)

    def _bind(self, observed: dict[_Key, tuple[Attributes, Number]]) -> Column:
        """Observations of others as a column."""
        if not self._series:
            self.metric = replace(self.metric, integer=all(isinstance(value, int) for _, value in observed.values()))
        if tuple(observed) != tuple(self._series):
            self._series = {
                key: self._series.get(key) or Series(self.metric, attributes, self._began_ns) for key, (attributes, _) in observed.items()
            }
            self._bound = tuple(self._series.values())
        return Column(self._bound, [value for _, value in observed.values()])


def _checked(observation: Observation) -> tuple[Attributes, Number]:
    """Attributes and value of an observation that somebody else made. Raises TypeError or AttributeError for what is none."""
    if not isinstance(observation.value, (int, float)):
        raise TypeError(f"{observation.value!r} is not a number")
    return dict(observation.attributes or {}), observation.value  # type: ignore[arg-type] # the API also allows lists


def _key(attributes: Attributes) -> _Key:
    """Raises TypeError for attribute values that OpenTelemetry does not allow."""
    return frozenset((name, tuple(value) if isinstance(value, list) else value) for name, value in attributes.items())


def _primed(generator: Generator[Iterable[Observation], CallbackOptions, None]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """A generator as callback is advanced to its first yield, and then sent the options each time."""
    next(generator)
    return generator.send


class Recorded(Stream):
    """A synchronous instrument's cells, one per set of attributes."""

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self._lock = threading.Lock()
        self._cells: dict[_Key, list[Any]] = {}
        self._series: tuple[Series, ...] = ()

    def change(self, attributes: Attributes | None, change: Callable[[Any], Any]) -> None:
        key = _key(attributes or {})
        with self._lock:
            cell = self._cells.get(key)
            if cell is None:
                cell = self._cells[key] = [None]
                self._series = (*self._series, Series(self.metric, dict(attributes or {}), time.time_ns()))
            cell[0] = change(cell[0])

    def columns(self) -> Iterable[tuple[int, Column]]:
        with self._lock:
            if self._series:
                yield time.time_ns(), Column(self._series, [cell[0] for cell in self._cells.values()])
