"""What became of each request: numbers for the agent's own metrics, and a log line per change, not per attempt."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import AttributeValue
from otel_hostmetrics.export.otlp.client import Outcome
from otel_hostmetrics.export.otlp.request import Request
from otel_hostmetrics.export.otlp.response import PartialSuccess
from otel_hostmetrics.telemetry import Telemetry

_log = logging.getLogger(__name__)

_EXPORTER: dict[str, AttributeValue] = {rows.EXPORTER: "otlp"}
_MOST_MESSAGES = 100  # distinct partial-success messages that are logged


class Journal:
    """Counts, and remembers what was said. Thread-safe as far as Telemetry is; a log line too many does no harm."""

    def __init__(self, telemetry: Telemetry, endpoint: str, capacity: int) -> None:
        self._telemetry = telemetry
        self._endpoint = endpoint
        self._trouble: set[str] = set()  # what was logged of the present outage; empty while all is well
        self._since = 0.0
        self._lost_requests = self._lost_points = 0
        self._told: set[tuple[str, bool]] = set()  # messages of partial success, and whether points were rejected
        telemetry.set(rows.EXPORT_QUEUE_CAPACITY, capacity, _EXPORTER)
        self.queued(0)

    def queued(self, size: int) -> None:
        self._telemetry.set(rows.EXPORT_QUEUE_SIZE, size, _EXPORTER)

    def attempt(self, outcome: Outcome, seconds: float) -> None:
        """Count one call, whatever becomes of the request."""
        attributes = _because(outcome.code)
        self._telemetry.add(rows.EXPORT_REQUESTS, 1, attributes)
        self._telemetry.record(rows.EXPORT_DURATION, seconds, attributes)

    def accepted(self, request: Request, partial: PartialSuccess) -> None:
        """Count points taken and rejected; each distinct message of the collector is logged once, as a rejection and as a warning."""
        rejected = min(partial.rejected, request.points)
        self._telemetry.add(rows.EXPORT_POINTS, request.points - rejected, _EXPORTER)
        if rejected:
            self._telemetry.add(rows.EXPORT_POINTS, rejected, _because("rejected"))
        told = (partial.message, rejected > 0)
        if any(told) and told not in self._told and len(self._told) < _MOST_MESSAGES:
            self._told.add(told)
            what = f"rejected {rejected} of {request.points} points" if rejected else "warns"
            _log.warning("collector %s %s: %s", self._endpoint, what, partial.message or "no reason given")

    def failed(self, outcome: Outcome) -> None:
        """Log the first failure of an outage that may pass, and the first that will not."""
        action = "retrying" if outcome.retryable else "such requests are dropped"
        level = logging.WARNING if self._new(action) else logging.DEBUG
        _log.log(level, "OTLP export to %s fails: %s; %s", self._endpoint, outcome, action)

    def lost(self, requests: Collection[Request], why: str) -> None:
        """Count requests given up: queue_full, shutdown, or the gRPC status."""
        if not requests:
            return
        points = sum(request.points for request in requests)
        self._lost_requests += len(requests)
        self._lost_points += points
        self._telemetry.add(rows.EXPORT_DROPPED, len(requests), _because(why))
        self._telemetry.add(rows.EXPORT_POINTS, points, _because(why))
        if why == "queue_full" and self._new(why):
            _log.warning("OTLP queue is full (otlp.queue_bytes): dropping the oldest requests until %s takes some", self._endpoint)
        if why == "shutdown":
            _log.warning("OTLP export to %s stopped with %d requests (%d points) undelivered", self._endpoint, len(requests), points)

    def recovered(self) -> None:
        """Log the end of an outage and what it cost: when everything waiting has been delivered."""
        if self._trouble:
            _log.info(
                "OTLP export to %s works again after %.0f s; lost %d requests (%d points)",
                self._endpoint, time.monotonic() - self._since, self._lost_requests, self._lost_points,
            )  # fmt: skip
        self._trouble.clear()
        self._lost_requests = self._lost_points = 0

    def _new(self, trouble: str) -> bool:
        """Whether this kind of trouble has not been logged in this outage."""
        if not self._trouble:
            self._since = time.monotonic()
        new = trouble not in self._trouble
        self._trouble.add(trouble)
        return new


def _because(why: str) -> dict[str, AttributeValue]:
    return {**_EXPORTER, rows.ERROR_TYPE: why} if why else _EXPORTER
