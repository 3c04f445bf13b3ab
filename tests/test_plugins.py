"""Sources of third parties, one by one: what their functions and callbacks may do to a cycle."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint

import pytest
from opentelemetry.metrics import Histogram, Meter, Observation

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.export.metering import Replay
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.model import Distribution, Snapshot, State
from otel_hostmetrics.plugins import GROUP, Plugin
from otel_hostmetrics.settings import General
from otel_hostmetrics.telemetry import Telemetry
from tests.process import eventually

seen: list[object] = []  # what the plugins below were asked


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


Cycles = Callable[..., Collector]
KEEPS_ALL = General().keeps


@pytest.fixture
def cycles() -> Iterator[Cycles]:
    """Collectors of one plugin, whose function or path is given; closed at the end."""
    made: list[Collector] = []

    def make(
        register: Callable[[Meter], object] | str,
        keeps: Callable[[str], bool] = KEEPS_ALL,
        telemetry: Telemetry | None = None,
        deadline: float = 5,
        reopen: float = 60,
    ) -> Collector:
        value = register if isinstance(register, str) else f"{__name__}:{register.__name__}"
        source = Plugin(EntryPoint("it", value, GROUP), keeps)
        made.append(Collector([source], None, [], telemetry or Telemetry(), deadline, 100, reopen))
        return made[-1]

    yield make
    for each in made:
        each.close()


def points(snapshot: Snapshot) -> dict[str, list[tuple[dict[str, object], object]]]:
    return {
        metric.name: [(dict(series.attributes), value) for series, value in zip(column.series, column.values, strict=True)]
        for metric, column in snapshot.readings["plugin.it"].columns.items()
    }


def good(meter: Meter) -> Callable[[], None]:
    seen.append((meter.name, meter.version))
    meter.create_observable_gauge("good", [lambda _: [Observation(len(seen), {"a": 1})]])
    return lambda: seen.append("closed")


def test_what_it_makes_is_asked_once_in_each_cycle_and_closed_at_the_end(cycles):
    cycle = cycles(good)
    assert points(cycle.collect()) == {"good": [({"a": 1}, 1)]}
    snapshot = cycle.collect()
    assert snapshot.statuses["plugin.it"].state is State.OK
    (metric,) = snapshot.readings["plugin.it"].columns
    assert metric.scope is not None
    assert metric.scope.name == __name__, "without a distribution, the module's"
    cycle.close()
    assert seen == [(__name__, None), "closed"]


def closing_badly(meter: Meter) -> Callable[[], None]:
    def close() -> None:
        raise asyncio.CancelledError

    meter.create_counter("good").add(1)
    return close


def test_a_close_that_raises_whatever_is_said(cycles, caplog):
    cycle = cycles(closing_badly)
    assert points(cycle.collect()) == {"good": [({}, 1)]}
    cycle.close()
    eventually(lambda: "source plugin.it cannot be closed" in caplog.messages)


def test_nothing_returned_is_nothing_to_close(cycles):
    cycle = cycles(silent)
    assert points(cycle.collect()) == {}
    assert cycle.collect().statuses["plugin.it"].state is State.OK


def silent(meter: Meter) -> None:
    meter.create_counter("silent")


def raising(meter: Meter) -> None:
    seen.append("asked")
    meter.create_counter("half").add(1)
    if len(seen) < 3:
        raise ValueError("no such device")


def test_a_register_that_raises_is_said_once_and_tried_again_after_a_while(cycles, caplog):
    cycle = cycles(raising, reopen=0.2)
    first = cycle.collect()
    assert (first.statuses["plugin.it"].state, first.statuses["plugin.it"].detail) == (State.FAILED, "ValueError('no such device')")
    again = cycle.collect()
    assert again.statuses["plugin.it"].state is State.FAILED
    assert seen == ["asked"], "not in every cycle"
    assert points(again) == {}
    deadline = time.monotonic() + 5
    while (snapshot := cycle.collect()).statuses["plugin.it"].state is State.FAILED and time.monotonic() < deadline:
        time.sleep(0.05)
    assert points(snapshot) == {"half": [({}, 1)]}, "what the failed attempts had made is gone"
    assert seen == ["asked"] * 3
    assert sum(record.exc_info is not None for record in caplog.records) == 1


def leaving(meter: Meter) -> None:
    raise SystemExit(2)


def cancelled(meter: Meter) -> None:
    raise asyncio.CancelledError


def returning_rubbish(meter: Meter) -> int:
    meter.create_counter("half").add(1)
    return 7


def badly_named(meter: Meter) -> None:
    meter.create_counter("no spaces")


@pytest.mark.parametrize(
    ("register", "said"),
    [
        (leaving, "RuntimeError('it raised SystemExit(2)')"),
        (cancelled, "RuntimeError('it raised CancelledError()')"),
        (returning_rubbish, f"TypeError('{__name__}:returning_rubbish returned 7, neither None nor a function')"),
        (badly_named, "ValueError(\"instrument 'no spaces' in ''"),
    ],
)
def test_what_else_a_register_may_do_costs_its_plugin_only(cycles, register, said):
    cycle = cycles(register)
    for _ in range(2):
        status = cycle.collect().statuses["plugin.it"]
        assert status.state is State.FAILED
        assert status.detail.startswith(said)


def test_what_is_not_there_to_be_imported_is_a_failure(cycles):
    assert cycles("no.such:module").collect().statuses["plugin.it"].detail == "ModuleNotFoundError(\"No module named 'no'\")"


def partly_broken(meter: Meter) -> None:
    def leave(_: object) -> list[Observation]:
        raise SystemExit

    def fail(_: object) -> list[Observation]:
        raise KeyError("x")

    meter.create_observable_gauge("fine", [lambda _: [Observation(1)]])
    meter.create_observable_gauge("rubbish", [lambda _: [1]])  # type: ignore[list-item]
    meter.create_observable_gauge("leaves", [leave])
    meter.create_observable_gauge("fails", [fail])


def test_callbacks_that_fail_cost_their_points_are_said_once_and_counted(cycles, caplog):
    caplog.set_level(logging.INFO)
    telemetry = Telemetry()
    cycle = cycles(partly_broken, telemetry=telemetry)
    for _ in range(3):
        snapshot = cycle.collect()
        assert points(snapshot) == {"fine": [({}, 1)]}
        assert snapshot.statuses["plugin.it"].state is State.PARTIAL
    said = [record.getMessage() for record in caplog.records]
    assert said.count("source plugin.it: callback of rubbish: malformed: 1 is not an Observation") == 1
    assert said.count("source plugin.it: callback of leaves: unreadable: SystemExit()") == 1
    assert said.count("source plugin.it: callback of fails: unreadable: KeyError('x')") == 1
    assert len(said) == 6, "besides, that it is partial, and a traceback of each that raised"
    columns, _ = telemetry.read()
    counted = {series.attributes[rows.ERROR_TYPE]: value for series, value in zip(*columns[rows.SOURCE_PROBLEMS], strict=True)}
    assert counted == {"malformed": 3, "unreadable": 6}


released = threading.Event()


def hanging(meter: Meter) -> None:
    def hang(_: object) -> list[Observation]:
        released.wait()
        return [Observation(1)]

    meter.create_observable_gauge("it", [hang])


def test_a_callback_that_hangs_is_late_and_comes_back(cycles):
    released.clear()
    cycle = cycles(hanging, deadline=0.1)
    try:
        began = time.monotonic()
        assert cycle.collect().statuses["plugin.it"].state is State.LATE
        assert time.monotonic() - began < 2
    finally:
        released.set()
    deadline = time.monotonic() + 5
    while not points(cycle.collect()):
        assert time.monotonic() < deadline


def excluded(meter: Meter) -> None:
    for name in ("acme.wanted", "acme.not"):
        meter.create_observable_gauge(name, [lambda _, name=name: seen.append(name) or [Observation(1)]])  # type: ignore[misc]
    meter.create_counter("acme.not.counted").add(1)
    meter.create_histogram("acme.not.took").record(1)


def test_what_include_and_exclude_leave_out_is_not_even_asked(cycles):
    cycle = cycles(excluded, General(include=("acme.*",), exclude=("acme.not*",)).keeps)
    snapshot = cycle.collect()
    assert points(snapshot) == {"acme.wanted": [({}, 1)]}
    assert not snapshot.readings["plugin.it"].measurements
    assert seen == ["acme.wanted"]


handles: dict[str, Histogram] = {}


def recording(meter: Meter) -> None:
    handles["took"] = meter.create_histogram("took", "s", explicit_bucket_boundaries_advisory=(1, 2))


def test_histograms_are_recorded_where_they_are_exported_each_value_once(cycles):
    cycle, provider, current = cycles(recording), Provider(), []
    replay = Replay(provider, {"plugin.it": None}, lambda: current[-1])
    cycle.collect()
    for values in ((0.5, 1.5), (), (5,)):
        for value in values:
            handles["took"].record(value, {"way": "in"})
        current.append(cycle.collect())
        replay.take(current[-1])
        (family,) = provider.collect()
    assert list(family.columns[0][1].values) == [Distribution((1, 1, 1), 7.0, 0.5, 5)]
    assert family.metric.scope == current[0].readings["plugin.it"].measurements[0].series.metric.scope
    assert family.metric.boundaries == (1, 2)


def test_more_values_than_can_be_kept_are_a_problem(cycles):
    cycle = cycles(recording)
    cycle.collect()
    for number in range(10_005):
        handles["took"].record(number)
    snapshot = cycle.collect()
    assert len(snapshot.readings["plugin.it"].measurements) == 10_000
    (problem,) = snapshot.readings["plugin.it"].problems
    assert "5 of 10005 values" in problem.detail
    assert cycle.collect().statuses["plugin.it"].state is State.OK


def late(meter: Meter) -> None:
    def more(_: object) -> list[Observation]:
        seen.append(1)
        meter.create_observable_gauge(f"late.{len(seen)}", [lambda _: [Observation(1)]])
        return []

    meter.create_observable_gauge("first", [more])


def test_instruments_made_later_are_exported_from_then_on(cycles):
    cycle, provider, current = cycles(late), Provider(), []
    replay = Replay(provider, {"plugin.it": None}, lambda: current[-1])
    names = []
    for _ in range(3):
        current.append(cycle.collect())
        replay.take(current[-1])
        names.append([family.metric.name for family in provider.collect()])
    assert names == [[], ["late.1"], ["late.1", "late.2"]]
