"""Cycles over sources that fail, hang, come and go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Column, Measurement, Reading, Snapshot, Source, State
from otel_hostmetrics.settings import General
from otel_hostmetrics.telemetry import Telemetry

COUNT = Metric("test.count", Kind.COUNTER, "", "Counts.", "nothing", ("id",))
LEVEL = Metric("test.level", Kind.GAUGE, "", "Levels.", "nothing", ("id",))
TIMES = Metric("test.times", Kind.HISTOGRAM, "s", "Times.", "nothing", boundaries=(1.0,))
SERIES = tuple(COUNT.series({"id": number}) for number in range(10))


def nothing() -> None:
    """Open or close without a word."""


class Fake:
    """A source that does what it is told."""

    metrics = (COUNT, LEVEL)

    def __init__(
        self,
        name: str,
        read: Callable[[], Reading],
        blocking: bool = False,
        open_: Callable[[], object] = nothing,
        close: Callable[[], object] = nothing,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.blocking = blocking  # type: ignore[misc]
        self._read, self._open, self._close = read, open_, close
        self.calls: list[str] = []

    def open(self) -> None:
        self.calls.append("open")
        self._open()

    def read(self) -> Reading:
        self.calls.append("read")
        return self._read()

    def close(self) -> None:
        self.calls.append("close")
        self._close()


def good() -> Reading:
    return Reading({COUNT: Column(SERIES, list(range(10)))})


def refuse(reason: Reason) -> Callable[[], Reading]:
    def read() -> Reading:
        raise Unavailable(reason, "thing", "detail", "CAP_X" if reason is Reason.DENIED else "")

    return read


def broken() -> Reading:
    raise KeyError("bug")


Make = Callable[..., Collector]


@pytest.fixture
def collector() -> Iterator[Make]:
    """Collectors that are closed at the end."""
    made: list[Collector] = []

    def make(*sources: Fake, most: int = 100, deadline: float = 0.1, reopen: float = 60, telemetry: Telemetry | None = None) -> Collector:
        found: Sequence[Source] = sources  # type: ignore[assignment]
        made.append(Collector(found, None, [COUNT, LEVEL, TIMES], telemetry or Telemetry(), deadline, most, reopen))
        return made[-1]

    yield make
    for each in made:
        each.close()


def values(snapshot: Snapshot, name: str) -> list[object]:
    return [value for column in snapshot.readings[name].columns.values() for value in column.values]


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.ABSENT, State.OFF),
        (Reason.UNSUPPORTED, State.OFF),
        (Reason.DENIED, State.FAILED),
        (Reason.UNREADABLE, State.FAILED),
        (Reason.GONE, State.FAILED),
        (Reason.MALFORMED, State.FAILED),
        (Reason.LATE, State.FAILED),
    ],
)
@pytest.mark.parametrize("when", ["open", "read"])
def test_each_reason_has_its_state_and_costs_nobody_else_anything(collector, reason, state, when):
    bad = Fake("bad", refuse(reason)) if when == "read" else Fake("bad", good, open_=refuse(reason))
    snapshot = collector(bad, Fake("fine", good)).collect()
    status = snapshot.statuses["bad"]
    assert (status.state, status.reason, status.detail) == (state, reason, f"thing: {reason.value}: detail")
    assert status.needs == ("CAP_X" if reason is Reason.DENIED else "")
    assert values(snapshot, "bad") == []
    assert values(snapshot, "fine") == list(range(10))
    assert snapshot.statuses["fine"].state is State.OK
    assert bad.calls[-1] == "close"


@pytest.mark.parametrize("reason", [Reason.GONE, Reason.UNREADABLE])
def test_what_may_be_over_soon_is_opened_again_in_the_next_cycle(collector, reason):
    answers = [good, refuse(reason)]

    def read() -> Reading:
        return answers.pop()()

    source = Fake("it", read)
    cycle = collector(source)
    assert cycle.collect().statuses["it"].state is State.FAILED
    assert values(cycle.collect(), "it") == list(range(10))
    assert source.calls == ["open", "read", "close", "open", "read"]


def test_what_is_absent_is_looked_for_again_after_a_while_only(collector):
    hardware: list[int] = []
    source = Fake("it", good, open_=lambda: None if hardware else refuse(Reason.ABSENT)())
    cycle = collector(source, reopen=0.2)
    first = cycle.collect().statuses["it"]
    again = cycle.collect().statuses["it"]
    assert (again.state, again.reason, again.detail, again.took_ns) == (first.state, first.reason, first.detail, 0)
    assert source.calls == ["open", "close"]
    hardware.append(1)
    time.sleep(0.21)
    assert cycle.collect().statuses["it"].state is State.OK


def test_a_bug_in_one_source_is_a_failed_source_and_one_traceback(collector, caplog):
    cycle = collector(Fake("bad", broken), Fake("fine", good))
    for _ in range(3):
        snapshot = cycle.collect()
    assert snapshot.statuses["bad"].state is State.FAILED
    assert snapshot.statuses["bad"].detail == "KeyError('bug')"
    assert values(snapshot, "fine") == list(range(10))
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    assert len(caplog.records) == 2, "the traceback, and the state of the source"


def test_what_a_failed_open_left_behind_is_closed_and_a_failing_close_is_survived(collector):
    source = Fake("it", good, open_=broken, close=broken)  # type: ignore[arg-type]
    cycle = collector(source)
    for _ in range(2):
        status = cycle.collect().statuses["it"]
        assert (status.state, status.detail) == (State.FAILED, "KeyError('bug')")
    assert source.calls == ["open", "close"], "not opened again in each cycle"


class Hanging:
    """Reads that wait until they are let go; each reading is numbered."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.number = 0

    def read(self) -> Reading:
        self.go.wait(10)
        self.number += 1
        return Reading({COUNT: Column(SERIES[:1], [self.number])})


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_source_that_hangs_is_late_and_the_others_are_on_time(collector):
    hanging = Hanging()
    cycle = collector(Fake("hangs", hanging.read, blocking=True), Fake("quick", good, blocking=True), Fake("inline", good))
    for least, most in ((0.09, 0.5), (0, 0.05)):  # it is waited for once, not in every cycle
        began = time.monotonic()
        snapshot = cycle.collect()
        assert least < time.monotonic() - began < most
        assert (snapshot.statuses["hangs"].state, snapshot.statuses["hangs"].reason) == (State.LATE, Reason.LATE)
        assert values(snapshot, "hangs") == []
        assert values(snapshot, "quick") == values(snapshot, "inline") == list(range(10))
    hanging.go.set()
    wait_for(lambda: hanging.number)
    done_ns = time.time_ns()
    time.sleep(0.02)
    late = cycle.collect()
    assert values(late, "hangs") == [1]
    assert abs(late.readings["hangs"].time_ns - done_ns) < 15_000_000, "the time of the reading, not of the cycle"
    assert late.statuses["hangs"].took_ns > 90_000_000
    assert values(cycle.collect(), "hangs") == [2], "taken once, then read anew"


def test_a_late_reading_that_waited_too_long_is_replaced_by_a_fresh_one(collector):
    hanging = Hanging()
    cycle = collector(Fake("hangs", hanging.read, blocking=True), deadline=0.05)
    assert cycle.collect().statuses["hangs"].state is State.LATE
    hanging.go.set()
    wait_for(lambda: hanging.number)
    time.sleep(0.05 * 3 + 0.02)
    snapshot = cycle.collect()
    assert values(snapshot, "hangs") == [2]
    assert snapshot.statuses["hangs"].state is State.OK


def test_close_does_not_wait_for_a_source_that_hangs():
    hanging = Hanging()
    source = Fake("hangs", hanging.read, blocking=True)
    cycle = Collector([source], None, [COUNT], Telemetry(), 0.05, 10)  # type: ignore[list-item]
    cycle.collect()
    began = time.monotonic()
    cycle.close()
    assert time.monotonic() - began < 0.5
    assert "close" not in source.calls, "while it is inside a call"
    hanging.go.set()
    wait_for(lambda: "close" in source.calls)
    wait_for(lambda: not any(thread.name == "source-hangs" for thread in threading.enumerate()))


def test_a_problem_makes_a_source_partial_with_the_problem_s_reason(collector):
    problem = Unavailable(Reason.DENIED, "a file", "", "CAP_DAC_READ_SEARCH")
    snapshot = collector(Fake("it", lambda: Reading({COUNT: Column(SERIES, range(10))}, problems=[problem]))).collect()
    status = snapshot.statuses["it"]
    assert (status.state, status.reason, status.needs) == (State.PARTIAL, Reason.DENIED, "CAP_DAC_READ_SEARCH")
    assert len(values(snapshot, "it")) == 10


def test_series_beyond_the_limit_are_cut_off_the_same_way_each_time_and_counted(collector):
    telemetry = Telemetry()
    levels = tuple(LEVEL.series({"id": number}) for number in range(4))
    bound = [SERIES]
    source = Fake("it", lambda: Reading({LEVEL: Column(levels, [0] * 4), COUNT: Column(bound[0], list(range(len(bound[0]))))}))
    cycle = collector(source, most=9, telemetry=telemetry)
    first, second = cycle.collect().readings["it"], cycle.collect().readings["it"]
    assert first.columns[LEVEL].series is second.columns[LEVEL].series is levels
    assert first.columns[COUNT].series is second.columns[COUNT].series
    assert list(first.columns[COUNT].series) == list(SERIES[:5])
    assert list(first.columns[COUNT].values) == [0, 1, 2, 3, 4]
    assert first.dropped == 5
    assert list(telemetry.read()[0][rows.SOURCE_SERIES_DROPPED].values) == [5]
    assert list(telemetry.read()[0][rows.SOURCE_SERIES].values) == [9]
    bound[0] = SERIES[:7]
    assert cycle.collect().readings["it"].dropped == 2
    bound[0] = SERIES[:5]
    last = cycle.collect().readings["it"]
    assert (last.dropped, last.columns[COUNT].series) == (0, bound[0])


def test_a_metric_wholly_beyond_the_limit_has_no_series_left(collector):
    levels = tuple(LEVEL.series({"id": number}) for number in range(4))
    source = Fake("it", lambda: Reading({COUNT: Column(SERIES, [0] * 10), LEVEL: Column(levels, [0] * 4)}))
    reading = collector(source, most=10).collect().readings["it"]
    assert reading.columns[LEVEL] == ((), [])
    assert reading.dropped == 4


def test_what_is_not_enabled_is_left_out(collector):
    other = Metric("test.other", Kind.GAUGE, "", "", "nothing")
    spans = Metric("test.spans", Kind.HISTOGRAM, "s", "", "nothing", boundaries=(1.0,))
    measured = [Measurement(TIMES.series({}), 0.5), Measurement(spans.series({}), 0.5)]
    source = Fake("it", lambda: Reading({other: Column((other.series({}),), [1]), COUNT: Column((), [])}, measured))
    snapshot = collector(source).collect()
    assert snapshot.readings["it"].columns == {}
    assert snapshot.readings["it"].measurements == measured[:1]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), {"test.count", "test.level"}),
        (("test.c*",), (), {"test.count"}),
        (("test.*", "hidden"), ("*.level",), {"test.count", "hidden"}),
        ((), ("*",), set()),
        (("TEST.*",), (), set()),
    ],
)
def test_include_and_exclude_are_shell_patterns(include, exclude, expected):
    """What is off by default comes only by name."""
    hidden = Metric("hidden", Kind.GAUGE, "", "", "nothing", enabled=False)
    general = General(include=include, exclude=exclude)
    assert {metric.name for metric in (COUNT, LEVEL, hidden) if general.keeps(metric.name, metric.enabled)} == expected


def test_snapshots_are_numbered_and_own_metrics_come_last(collector):
    order: list[str] = []

    def told(name: str) -> Callable[[], Reading]:
        return lambda: order.append(name) or good()  # type: ignore[func-returns-value]

    sources: list[Source] = [Fake("host", told("host"), blocking=True)]  # type: ignore[list-item]
    cycle = Collector(sources, Fake("agent", told("agent")), [COUNT], Telemetry(), 1, 100)  # type: ignore[arg-type]
    assert [cycle.collect().number, cycle.collect().number] == [1, 2]
    assert order == ["host", "agent"] * 2
    cycle.close()


class Sum(Fake):
    """Derives a level from what others counted."""

    seen: Mapping[str, Mapping[Metric, Column]]

    def take(self, columns: Mapping[str, Mapping[Metric, Column]]) -> None:
        self.calls.append("take")
        self.seen = dict(columns)


def test_what_derives_from_others_is_told_all_they_read_and_a_failure_costs_its_own_points_only(collector):
    """Also of sources that are read in a thread, of metrics that nobody wants, and of a source that failed: nothing."""
    level = LEVEL.series({"id": 1})

    def total() -> Reading:
        return Reading({LEVEL: Column((level,), [sum(map(sum, (columns[COUNT].values for columns in derived.seen.values() if columns)))])})

    derived = Sum("sum", total)
    sources: list[Source] = [derived, Fake("slow", good, blocking=True), Fake("quick", good), Fake("bad", refuse(Reason.DENIED))]  # type: ignore[list-item]
    cycle = Collector(sources, None, [LEVEL], Telemetry(), 1, 100)
    assert values(cycle.collect(), "sum") == [90]
    assert derived.calls == ["take", "open", "read"]
    derived._read = broken
    snapshot = cycle.collect()
    assert [snapshot.statuses[name].state for name in ("quick", "sum")] == [State.OK, State.FAILED]
    cycle.close()


def test_the_log_says_what_became_of_a_source_once(collector, caplog):
    caplog.set_level(logging.INFO)
    cycle = collector(Fake("it", refuse(Reason.DENIED)), reopen=0)
    for _ in range(3):
        cycle.collect()
    assert [record.getMessage() for record in caplog.records] == [
        "source it is failed (thing: denied: detail); needs CAP_X, see `otel-hostmetrics doctor`"
    ]
