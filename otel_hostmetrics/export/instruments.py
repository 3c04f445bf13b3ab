"""The handles a Meter gives out, on the public API's classes.

What cannot be recorded is left out, and said once: the API's methods do not raise.
"""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics as api
from opentelemetry.context import Context

from otel_hostmetrics.catalogue.model import Kind, Metric, Number, Series
from otel_hostmetrics.export import observed
from otel_hostmetrics.export.observed import NotAllowed
from otel_hostmetrics.export.streams import Recorded
from otel_hostmetrics.model import Distribution, Measurement

_log = logging.getLogger(__name__)


class _Recording:
    """A third party may get it wrong a thousand times a second: each instrument says it once."""

    _said = False

    def _attempt(self, metric: Metric, amount: object, put: Callable[[Number], None]) -> None:
        try:
            value = observed.number(amount)
            if metric.kind is Kind.HISTOGRAM and not 0 <= value < math.inf:  # not negative: the specification; NaN would stay in the sum
                raise NotAllowed(f"a histogram cannot record {value}")
            put(value)
        except NotAllowed as error:
            if not self._said:
                _log.warning("%s: %s; what else it cannot record is left out without a word", metric.name, error)
            self._said = True


class Counter(_Recording, api.Counter, api.UpDownCounter):
    def __init__(self, stream: Recorded) -> None:
        self._stream = stream

    def add(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        def put(plus: Number) -> None:
            if not math.isfinite(plus):  # it would be the sum for ever
                raise NotAllowed(f"a sum cannot change by {plus}")
            if plus < 0 and self._stream.metric.kind is Kind.COUNTER:
                raise NotAllowed(f"a counter cannot go down by {plus}")
            self._stream.change(attributes, lambda total: plus if total is None else observed.number(total + plus))

        self._attempt(self._stream.metric, amount, put)


class Gauge(_Recording, api._Gauge):  # noqa: SLF001 - the API's own name for its public synchronous gauge
    def __init__(self, stream: Recorded) -> None:
        self._stream = stream

    def set(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        self._attempt(self._stream.metric, amount, lambda value: self._stream.change(attributes, lambda _: value))


class Histogram(_Recording, api.Histogram):
    def __init__(self, stream: Recorded) -> None:
        self._stream = stream

    def record(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        self._attempt(self._stream.metric, amount, lambda value: self._stream.change(attributes, lambda old: self._with(old, value)))

    def _with(self, old: Distribution | None, amount: Number) -> Distribution:
        boundaries = self._stream.metric.boundaries
        slot = bisect.bisect_left(boundaries, amount)
        old = old or Distribution((0,) * (len(boundaries) + 1), 0.0, amount, amount)
        counts = (*old.counts[:slot], old.counts[slot] + 1, *old.counts[slot + 1 :])
        return Distribution(counts, old.sum + amount, min(old.min, amount), max(old.max, amount))


class Forwarded(_Recording, api.Histogram):
    """Hands each value on, to be recorded where it is exported: a provider's histogram cannot be read back into another's."""

    def __init__(self, metric: Metric, forward: Callable[[Measurement], None]) -> None:
        self._metric = metric
        self._forward = forward

    def record(self, amount: float, attributes: Any = None, context: Context | None = None) -> None:  # noqa: ARG002 - the API's signature
        def put(value: Number) -> None:
            self._forward(Measurement(Series(self._metric, observed.attributes(attributes)), value))

        self._attempt(self._metric, amount, put)


class Observable(api.ObservableCounter, api.ObservableUpDownCounter, api.ObservableGauge):
    """The handle create_observable_*() returns; the API gives it no methods."""

    def __init__(self) -> None:
        """The API's own __init__ only validates what the meter has registered."""
