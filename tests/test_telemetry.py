"""The agent's own numbers."""

from __future__ import annotations

import threading
import time

import pytest

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.telemetry import Telemetry

A, B = {rows.SOURCE: "a"}, {rows.SOURCE: "b"}


def points(telemetry: Telemetry, row):
    column = telemetry.read()[0].get(row)
    return [(dict(series.attributes), value) for series, value in zip(column.series, column.values, strict=True)] if column else []


def test_counters_add_and_gauges_are_replaced():
    telemetry = Telemetry()
    for amount in (1, 2, 3):
        telemetry.add(rows.HTTP_REJECTED, amount, {rows.ERROR_TYPE: "limit"})
        telemetry.set(rows.SOURCE_SERIES, amount, A)
    telemetry.set(rows.SOURCE_SERIES, 9, B)
    telemetry.add(rows.CPU_TIME, 0.5, {"cpu.mode": "user"})
    assert points(telemetry, rows.HTTP_REJECTED) == [({rows.ERROR_TYPE: "limit"}, 6)]
    assert points(telemetry, rows.SOURCE_SERIES) == [(A, 3), (B, 9)]
    assert points(telemetry, rows.CPU_TIME) == [({"cpu.mode": "user"}, 0.5)]


def test_the_tuple_of_series_is_the_same_until_a_series_comes_or_goes():
    telemetry = Telemetry()
    telemetry.set(rows.SOURCE_SERIES, 1, A)
    first = telemetry.read()[0][rows.SOURCE_SERIES].series
    telemetry.set(rows.SOURCE_SERIES, 2, A)
    telemetry.set(rows.SOURCE_SUCCESS, 1, B)
    assert telemetry.read()[0][rows.SOURCE_SERIES].series is first
    telemetry.set(rows.SOURCE_SERIES, 1, B)
    both = telemetry.read()[0][rows.SOURCE_SERIES].series
    assert both[0] is first[0]
    telemetry.forget(rows.SOURCE_SERIES, B)
    telemetry.forget(rows.SOURCE_SERIES, B)
    telemetry.forget(rows.MEMORY_USAGE, {})
    assert points(telemetry, rows.SOURCE_SERIES) == [(A, 2)]


def test_a_column_that_was_read_does_not_change_afterwards():
    telemetry = Telemetry()
    telemetry.add(rows.HTTP_REJECTED, 1, {rows.ERROR_TYPE: "limit"})
    column = telemetry.read()[0][rows.HTTP_REJECTED]
    telemetry.add(rows.HTTP_REJECTED, 1, {rows.ERROR_TYPE: "limit"})
    assert list(column.values) == [1]


def test_only_keeps_one_series_among_those_that_share_an_attribute():
    telemetry = Telemetry()
    for name, state in (("a", "ok"), ("b", "ok"), ("a", "late"), ("a", "late")):
        telemetry.only(rows.SOURCE_STATUS, 1, {rows.SOURCE: name, rows.STATE: state}, among=rows.SOURCE)
    assert sorted(str(point) for point in points(telemetry, rows.SOURCE_STATUS)) == sorted(
        str(({rows.SOURCE: name, rows.STATE: state}, 1)) for name, state in (("b", "ok"), ("a", "late"))
    )


def test_measurements_are_given_once():
    telemetry = Telemetry()
    telemetry.record(rows.SOURCE_DURATION, 0.5, A)
    telemetry.record(rows.SOURCE_DURATION, 0.7, A)
    _, measured = telemetry.read()
    assert [each.value for each in measured] == [0.5, 0.7]
    assert measured[0].series is measured[1].series
    assert telemetry.read()[1] == []


def test_measurements_nobody_reads_are_bounded():
    telemetry = Telemetry()
    for number in range(25_000):
        telemetry.record(rows.SOURCE_DURATION, number, A)
    measured = telemetry.read()[1]
    assert [measured[0].value, measured[-1].value, len(measured)] == [15_000, 24_999, 10_000]


def test_series_began_when_the_agent_did():
    before = time.time_ns()
    telemetry = Telemetry()
    telemetry.add(rows.HTTP_REJECTED, 1, {rows.ERROR_TYPE: "limit"})
    (series,) = telemetry.read()[0][rows.HTTP_REJECTED].series
    assert before <= series.start_ns <= time.time_ns()


def test_wrong_attributes_are_refused():
    with pytest.raises(TypeError, match="missing"):
        Telemetry().add(rows.HTTP_REJECTED)
    with pytest.raises(TypeError, match="unknown"):
        Telemetry().set(rows.MEMORY_USAGE, 1, A)


def test_nothing_is_lost_between_threads():
    telemetry = Telemetry()
    seen = []

    def count() -> None:
        for _ in range(2000):
            telemetry.add(rows.HTTP_REJECTED, 1, {rows.ERROR_TYPE: "limit"})
            telemetry.record(rows.SOURCE_DURATION, 1.0, A)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen += telemetry.read()[1]
        time.sleep(0.001)
    seen += telemetry.read()[1]
    assert points(telemetry, rows.HTTP_REJECTED)[0][1] == 8000
    assert len(seen) == 8000
