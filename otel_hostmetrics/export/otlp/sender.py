"""Delivers encoded requests in their order, from a thread of its own, through outages of the collector."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable

from otel_hostmetrics import settings
from otel_hostmetrics.export.otlp import channel
from otel_hostmetrics.export.otlp.client import Client, Outcome
from otel_hostmetrics.export.otlp.journal import Journal
from otel_hostmetrics.export.otlp.request import Request
from otel_hostmetrics.telemetry import Telemetry

_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 30.0  # seconds; each is multiplied by a random part of one ("full jitter")
_LONGEST_DELAY = 300.0  # of those a server asks for
_LOOK = 1.0  # how often, and for how long, a lost connection is tried meanwhile
_RECONNECT_SPREAD = 1.0  # a fleet that sees its collector come back does not send in the same moment
_JOIN = 0.25  # seconds of close() kept for the thread's end


def _join(thread: threading.Thread | None, timeout: float) -> None:
    if thread is not None:
        thread.join(max(timeout, 0.0))


class Sender:
    """A queue bounded in bytes, and the thread that empties it. Safe to use from several threads.

    The newest request is always kept, so the bound is queue_bytes or one request, whichever is more. The thread
    starts with the first submit().
    """

    def __init__(self, settings: settings.Otlp, telemetry: Telemetry) -> None:
        """Raises ValueError or Unavailable, in one line, if the settings cannot work. Does not connect yet."""
        self._settings = settings
        self._client = Client(settings)
        self._endpoint = channel.target(settings).name
        self._journal = Journal(telemetry, self._endpoint, settings.queue_bytes)
        self._changed = threading.Condition()
        self._queue: deque[Request] = deque()
        self._size = 0  # bytes, with the request under way
        self._under_way: Request | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._hurry = False  # a flush wants the next attempt now
        self._failures = 0  # in a row
        self._clean = True  # nothing was refused since the queue was last empty

    def submit(self, requests: list[Request]) -> None:
        """Queue requests; never blocks. The oldest make room for them."""
        with self._changed:
            if self._stopped:
                self._journal.lost(requests, "shutdown")
                return
            self._queue.extend(requests)
            self._size += sum(len(request.payload) for request in requests)
            self._make_room()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until everything has been delivered or given up; cuts one back-off short. False on timeout."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._stopped or self._idle(), timeout)
            self._hurry = False
            return done and self._idle()

    def close(self, timeout: float, hand_over: bool = False) -> list[Request]:
        """Flush, then stop, within *timeout* seconds whatever the collector does.

        What is left is counted as lost, or returned, for another sender, if it is to be handed over.
        """
        deadline = time.monotonic() + timeout
        self.flush(max(timeout - min(_JOIN, timeout / 4), 0.0))
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        _join(self._thread, (deadline - time.monotonic()) / 4)  # enough unless it is in a call
        closing = threading.Thread(target=self._client.close, name="otlp-close", daemon=True)  # may take longer than we have
        closing.start()  # ends the call under way
        _join(self._thread, deadline - time.monotonic())
        _join(closing, deadline - time.monotonic())
        with self._changed:
            left = [*([self._under_way] if self._under_way else []), *self._queue]
            self._queue.clear()
            self._under_way, self._size = None, 0
            if not hand_over:
                self._journal.lost(left, "shutdown")
            self._journal.queued(0)
        return left if hand_over else []

    def deliver(self, requests: list[Request], timeout: float) -> str | None:
        """Send now, in the calling thread, each request once. None, or in one line the first reason why not all arrived."""
        deadline = time.monotonic() + timeout
        problems = []
        for request in requests:
            outcome = self._attempt(request, min(self._settings.timeout, max(deadline - time.monotonic(), 0.001)))
            if outcome.code:
                self._journal.lost([request], outcome.code)
                problems.append(f"OTLP export to {self._endpoint} failed: {outcome}")
                continue
            self._journal.accepted(request, outcome.partial)
            if outcome.partial.rejected:
                problems.append(f"collector {self._endpoint} rejected {outcome.partial.rejected} points: {outcome.partial.message}")
        return problems[0] if problems else None

    def _idle(self) -> bool:
        return not self._queue and self._under_way is None

    def _make_room(self) -> None:
        dropped = []
        while self._size > self._settings.queue_bytes and len(self._queue) > 1:
            dropped.append(self._queue.popleft())
            self._size -= len(dropped[-1].payload)
        self._journal.lost(dropped, "queue_full")
        self._journal.queued(self._size)

    def _run(self) -> None:
        while (request := self._next()) is not None:
            outcome = self._attempt(request, self._settings.timeout)
            if not outcome.code:
                self._failures = 0
                self._journal.accepted(request, outcome.partial)
                self._done(request)
            elif not self._stopped:
                self._journal.failed(outcome)
                self._failed(request, outcome)

    def _next(self) -> Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._queue)
            if self._stopped:
                return None
            self._under_way = self._queue.popleft()
            return self._under_way

    def _attempt(self, request: Request, timeout: float) -> Outcome:
        began = time.monotonic()
        outcome = self._client.export(request.payload, timeout)
        self._journal.attempt(outcome, time.monotonic() - began)
        return outcome

    def _done(self, request: Request) -> None:
        with self._changed:
            self._under_way = None
            self._size -= len(request.payload)
            self._journal.queued(self._size)
            if not self._queue:
                if self._clean:
                    self._journal.recovered()
                self._clean = True
            self._changed.notify_all()

    def _failed(self, request: Request, outcome: Outcome) -> None:
        if not outcome.retryable:
            self._failures, self._clean = 0, False
            self._journal.lost([request], outcome.code)
            self._done(request)
            return
        with self._changed:  # back to the front, where it may be dropped as the oldest
            self._under_way = None
            self._queue.appendleft(request)
            self._make_room()
        self._failures += 1
        if outcome.delay is not None:
            self._wait(min(outcome.delay, _LONGEST_DELAY), lambda: self._stopped)
            return
        longest = min(_FIRST_BACKOFF * 2 ** min(self._failures - 1, 10), _LONGEST_BACKOFF)
        self._back_off(random.uniform(0, longest), outcome.code == "unavailable")  # noqa: S311 - spreads load

    def _back_off(self, seconds: float, watch: bool) -> None:
        """Wait, less if a lost connection comes back meanwhile; the delays of a long outage would cost data otherwise."""
        ends = time.monotonic() + seconds
        left = seconds
        while watch and left > _LOOK:
            if self._wait(_LOOK, self._urgent):
                return
            if self._client.returns(_LOOK):
                left = min(left, random.uniform(0, _RECONNECT_SPREAD))  # noqa: S311 - spreads load
                break
            left = ends - time.monotonic()
        self._wait(max(left, 0.0), self._urgent)

    def _urgent(self) -> bool:
        return self._stopped or self._hurry

    def _wait(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Whether it is so before the time is over."""
        with self._changed:
            reached = self._changed.wait_for(until, seconds)
            self._hurry = False  # one attempt per flush
            return reached
