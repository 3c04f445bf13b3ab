"""What became of each source, told once per change: to the log, and in numbers to the agent's own metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import AttributeValue
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Reading, State, Status
from otel_hostmetrics.telemetry import Telemetry

_log = logging.getLogger(__name__)

_LEVELS = {
    State.OK: logging.INFO,
    State.OFF: logging.INFO,
    State.PARTIAL: logging.INFO,
    State.FAILED: logging.WARNING,
    State.LATE: logging.WARNING,
}
_MOST_PROBLEMS = 1000  # remembered per source, so that a flood of distinct ones stays bounded


class Report:
    """Remembers what was said of each source and says only what is new."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._told: dict[str, tuple[State, Reason | None, int, int]] = {}  # state, reason, series, dropped
        self._problems: dict[str, frozenset[tuple[Reason, str]]] = {}
        self._durations: dict[str, Callable[[float], None]] = {}

    def tell(self, name: str, status: Status, reading: Reading, series: int) -> None:
        """Log a change of state and each new problem; count everything."""
        told, now = self._told.get(name), (status.state, status.reason, series, reading.dropped)
        if told != now:  # mostly they are the same: 40 -> 15 us a cycle with cold caches
            self._told[name] = now
            if told is None or told[:2] != now[:2]:
                _log.log(_LEVELS[status.state], "source %s is %s%s", name, status.state.value, "" if reading.problems else _because(status))
            self._set_gauges({rows.SOURCE: name}, status, reading, series)
        if reading.problems or name in self._problems:
            self._tell_problems(name, reading.problems)
        if status.took_ns and status.state is not State.OFF:  # 0: it was not read, too early to try again
            record = self._durations.get(name)
            if record is None:
                record = self._durations[name] = self._telemetry.recorder(rows.SOURCE_DURATION, {rows.SOURCE: name})
            record(status.took_ns / 1e9)

    def _tell_problems(self, name: str, problems: list[Unavailable]) -> None:
        known = self._problems.get(name, frozenset())
        now = {(problem.reason, problem.what): problem for problem in problems[:_MOST_PROBLEMS]}
        for key, problem in now.items():
            if key not in known:
                level = logging.WARNING if problem.reason in (Reason.DENIED, Reason.MALFORMED) else logging.INFO
                _log.log(level, "source %s: %s%s", name, problem, _cure(problem.needs))
        self._problems[name] = frozenset(now)
        for problem in problems:
            self._telemetry.add(rows.SOURCE_PROBLEMS, 1, {rows.SOURCE: name, rows.ERROR_TYPE: problem.reason.value})

    def _set_gauges(self, source: dict[str, AttributeValue], status: Status, reading: Reading, series: int) -> None:
        telemetry = self._telemetry
        state: dict[str, AttributeValue] = {**source, rows.STATE: status.state.value}
        if status.reason:
            state[rows.ERROR_TYPE] = status.reason.value
        telemetry.only(rows.SOURCE_STATUS, 1, state, among=rows.SOURCE)
        if status.state is State.OFF:
            for row in (rows.SOURCE_SUCCESS, rows.SOURCE_SERIES, rows.SOURCE_SERIES_DROPPED):
                telemetry.forget(row, source)  # of the time before the hardware went
            return
        telemetry.set(rows.SOURCE_SUCCESS, int(status.state in (State.OK, State.PARTIAL)), source)
        telemetry.set(rows.SOURCE_SERIES, series, source)
        telemetry.set(rows.SOURCE_SERIES_DROPPED, reading.dropped, source)


def _because(status: Status) -> str:
    return f" ({status.detail}){_cure(status.needs)}" if status.detail else ""


def _cure(needs: str) -> str:
    return f"; needs {needs}, see `otel-hostmetrics doctor`" if needs else ""
