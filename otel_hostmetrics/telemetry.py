"""Numbers the agent keeps about itself, to be read by its own source like any other.

Parts of the agent write here from their threads: ``telemetry.add(ROW, {"attribute": "value"})``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from otel_hostmetrics.catalogue.model import Attributes, Metric, Number, Series
from otel_hostmetrics.model import Column, Measurement

_Key = frozenset[tuple[str, object]]
_MOST_MEASURED = 10_000  # measurements kept until somebody reads them: nobody does with general.no_sources: [agent]


class Telemetry:
    """Counters, gauges and histogram measurements by catalogue row and attributes. Thread-safe; not for hot loops."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began_ns = time.time_ns()
        self._cells: dict[Metric, dict[_Key, tuple[Series, list[Number]]]] = {}
        self._columns: dict[Metric, tuple[Series, ...]] = {}
        self._measured: deque[tuple[Series, float]] = deque(maxlen=_MOST_MEASURED)
        self._measured_series: dict[tuple[Metric, _Key], Series] = {}

    def add(self, metric: Metric, amount: Number = 1, attributes: Attributes | None = None) -> None:
        """Count."""
        with self._lock:
            self._cell(metric, attributes or {})[0] += amount

    def set(self, metric: Metric, value: Number, attributes: Attributes | None = None, start_ns: int = 0) -> None:
        """Replace a current value; *start_ns* is when it began to count, if not with this object."""
        with self._lock:
            self._cell(metric, attributes or {}, start_ns)[0] = value

    def only(self, metric: Metric, value: Number, attributes: Attributes, among: str) -> None:
        """set(), and forget the other series that share the attribute *among*: one state at a time."""
        with self._lock:
            cells = self._cells.get(metric, {})
            key = frozenset(attributes.items())
            old = [other for other, (series, _) in cells.items() if other != key and series.attributes[among] == attributes[among]]
            for other in old:
                del cells[other]
                self._columns.pop(metric, None)
            self._cell(metric, attributes)[0] = value

    def forget(self, metric: Metric, attributes: Attributes) -> None:
        """Drop a series: it says nothing any more."""
        with self._lock:
            if self._cells.get(metric, {}).pop(frozenset(attributes.items()), None):
                self._columns.pop(metric, None)

    def record(self, metric: Metric, value: float, attributes: Attributes | None = None) -> None:
        """One measurement for a histogram."""
        self.recorder(metric, attributes or {})(value)

    def recorder(self, metric: Metric, attributes: Attributes) -> Callable[[float], None]:
        """record() for who measures the same again and again: the series is looked up once."""
        key = (metric, frozenset(attributes.items()))
        with self._lock:
            series = self._measured_series.get(key)
            if series is None:
                series = self._measured_series[key] = metric.series(attributes, self._began_ns)

        append = self._measured.append  # atomic: no lock, and what is appended becomes a Measurement when it is read

        def record(value: float) -> None:
            append((series, value))

        return record

    def read(self) -> tuple[dict[Metric, Column], list[Measurement]]:
        """Every cell's value now, and the measurements since the last call."""
        with self._lock:
            columns = {
                metric: Column(self._bound(metric), [value[0] for _, value in cells.values()]) for metric, cells in self._cells.items()
            }
            measured = [Measurement(*self._measured.popleft()) for _ in range(len(self._measured))]
        return columns, measured

    def _bound(self, metric: Metric) -> tuple[Series, ...]:
        bound = self._columns.get(metric)
        if bound is None:
            bound = self._columns[metric] = tuple(series for series, _ in self._cells[metric].values())
        return bound

    def _cell(self, metric: Metric, attributes: Attributes, start_ns: int = 0) -> list[Number]:
        cells = self._cells.setdefault(metric, {})
        key = frozenset(attributes.items())
        found = cells.get(key)
        if found is None:
            found = cells[key] = (metric.series(attributes, start_ns or self._began_ns), [0 if metric.integer else 0.0])
            self._columns.pop(metric, None)
        return found[1]
