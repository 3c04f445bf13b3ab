"""The handles a Meter gives out, on the public API's classes."""

from __future__ import annotations

import bisect
import logging
import math
from typing import Any

from opentelemetry import metrics as api
from opentelemetry.context import Context

from otel_hostmetrics.catalogue.model import Kind
from otel_hostmetrics.export.streams import Recorded
from otel_hostmetrics.model import Distribution

_log = logging.getLogger(__name__)


class Counter(api.Counter, api.UpDownCounter):
    def __init__(self, stream: Recorded) -> None:
        self._stream = stream

    def add(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        if amount < 0 and self._stream.metric.kind is Kind.COUNTER:
            _log.warning("%s: a counter cannot go down by %s", self._stream.metric.name, amount)
            return
        self._stream.change(attributes, lambda total: amount if total is None else total + amount)


class Gauge(api._Gauge):  # noqa: SLF001 - the API's own name for its public synchronous gauge
    def __init__(self, stream: Recorded) -> None:
        self._stream = stream

    def set(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        self._stream.change(attributes, lambda _: amount)


class Histogram(api.Histogram):
    def __init__(self, stream: Recorded) -> None:
        self._stream = stream

    def record(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        if not 0 <= amount < math.inf:  # the specification wants non-negative ones; NaN would stay in the sum for ever
            _log.warning("%s: a histogram cannot record %s", self._stream.metric.name, amount)
            return
        boundaries = self._stream.metric.boundaries
        slot = bisect.bisect_left(boundaries, amount)

        def put(old: Distribution | None) -> Distribution:
            old = old or Distribution((0,) * (len(boundaries) + 1), 0.0, amount, amount)
            counts = (*old.counts[:slot], old.counts[slot] + 1, *old.counts[slot + 1 :])
            return Distribution(counts, old.sum + amount, min(old.min, amount), max(old.max, amount))

        self._stream.change(attributes, put)


class Observable(api.ObservableCounter, api.ObservableUpDownCounter, api.ObservableGauge):
    """The handle create_observable_*() returns; the API gives it no methods."""

    def __init__(self) -> None:
        """The API's own __init__ only validates what the meter has registered."""
