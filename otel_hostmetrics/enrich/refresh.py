"""The thread that asks for names, so that a cycle never waits for a runtime or the kubelet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.enrich.names import Lookup, Names, merged
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.telemetry import Telemetry

_log = logging.getLogger(__name__)

_PACE = 1.0  # s between two rounds: many containers that start together are one round
_FIRST_RETRY = 2.0  # s; doubled as long as something stays unknown
_JOIN = 0.2  # s: a lookup under way ends by its own timeout, the process does not wait for it


class Refresh:
    """Keeps ``names`` fresh. One thread says what it wants, this one asks all *lookups*; the later one wins.

    *interval* (s) is how often they are asked without a sign of change, *pace* (s) the least time between two rounds.
    """

    def __init__(self, lookups: Sequence[Lookup], interval: float, telemetry: Telemetry, pace: float = _PACE) -> None:
        self._lookups = lookups
        self._telemetry = telemetry
        self._interval = interval
        self._pace = pace
        self.names = Names()  # replaced, never changed
        self._found: list[Names] = [Names()] * len(lookups)
        self._said: dict[str, str] = {}  # by lookup: what was logged last
        self._changed = threading.Condition()
        self._wanted: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
        self._rounds = 0  # of what was wanted: asked, and answered
        self._answered = 0
        self._stop = False
        self._thread: threading.Thread | None = None

    def want(self, containers: frozenset[str], pods: frozenset[str]) -> None:
        """All container ids and pod uids there are now; begins a round at once."""
        with self._changed:
            self._wanted = containers, pods
            self._rounds += 1
            self._changed.notify_all()
        if self._thread is None and self._lookups and not self._stop:
            self._thread = threading.Thread(target=self._run, name="workloads", daemon=True)
            self._thread.start()

    def wait(self, timeout: float) -> None:
        """Until all that was wanted has been asked for, at most *timeout* seconds."""
        with self._changed:
            if self._thread:
                self._changed.wait_for(lambda: self._answered == self._rounds or self._stop, timeout)

    def _run(self) -> None:
        retry = _FIRST_RETRY
        while not self._stop:
            with self._changed:
                (containers, pods), asked = self._wanted, self._rounds
            self._round(containers, pods)
            complete = containers <= self.names.containers.keys() and pods <= self.names.pods.keys()
            delay = self._interval if complete else min(retry, self._interval)
            retry = _FIRST_RETRY if complete else 2 * retry
            with self._changed:
                self._answered = asked
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stop, self._pace)
                self._changed.wait_for(lambda asked=asked: self._stop or self._rounds != asked, delay)  # type: ignore[misc]

    def _round(self, containers: frozenset[str], pods: frozenset[str]) -> None:
        """What a lookup found stays until it finds something else: one that fails for a while takes no name away."""
        for index, lookup in enumerate(self._lookups):
            if self._stop:
                return
            problem: Exception | None
            began = time.monotonic()
            try:
                self._found[index] = lookup.find(containers, pods)
                problem = self._found[index].problem
            except Exception as error:  # also a bug: in one, it must not stop the others
                problem = error
            self._count(lookup.name, problem, time.monotonic() - began)
            self._tell(lookup.name, _line(problem) if problem else "")
        names = merged(self._found)
        if names != self.names:
            self.names = names

    def _count(self, name: str, problem: Exception | None, seconds: float) -> None:
        attributes = {rows.LOOKUP: name}
        if problem:
            attributes[rows.ERROR_TYPE] = problem.reason.value if isinstance(problem, Unavailable) else type(problem).__qualname__
        self._telemetry.add(rows.LOOKUPS, 1, attributes)
        self._telemetry.record(rows.LOOKUP_DURATION, seconds, attributes)

    def _tell(self, name: str, said: str) -> None:
        """Once, not in every round."""
        if said and said != self._said.get(name):
            _log.warning("names of workloads from %s: %s", name, said)
        elif not said and self._said.get(name):
            _log.info("names of workloads from %s: all is well again", name)
        self._said[name] = said

    def close(self) -> None:
        """May be called again."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(_JOIN)


def _line(problem: Exception) -> str:
    if isinstance(problem, Unavailable):
        return f"{problem}, needs {problem.needs}" if problem.needs else str(problem)
    return repr(problem)
