"""What is said of sources: once per change, and what would cure it."""

from __future__ import annotations

import logging

import pytest

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Reading, State, Status
from otel_hostmetrics.report import Report
from otel_hostmetrics.telemetry import Telemetry

OK = Status(State.OK, took_ns=2_000_000)
LATE = Status(State.LATE, Reason.LATE, "no answer within 2 s")
DENIED = Unavailable(Reason.DENIED, "a file", "Permission denied", "CAP_DAC_READ_SEARCH")
PARTIAL = Status(State.PARTIAL, Reason.DENIED, str(DENIED), DENIED.needs, 1_000_000)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.DEBUG)
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


def value(telemetry: Telemetry, row, **attributes):
    """The value of one series, None if there is none."""
    column = telemetry.read()[0].get(row)
    found = dict(zip([str(dict(series.attributes)) for series in column.series], column.values, strict=True)) if column else {}
    return found.get(str(attributes))


def test_a_state_is_said_once_until_it_changes(said):
    report = Report(Telemetry())
    for status in (OK, OK, LATE, LATE, OK):
        report.tell("gpu", status, Reading(), 1)
    assert said() == [
        ("INFO", "source gpu is ok"),
        ("WARNING", "source gpu is late (no answer within 2 s)"),
        ("INFO", "source gpu is ok"),
    ]


def test_a_problem_is_said_once_with_its_cure_and_again_after_it_was_away(said):
    report = Report(Telemetry())
    other = Unavailable(Reason.UNSUPPORTED, "b file", "EINVAL")
    for status, problems in ((PARTIAL, [DENIED]), (PARTIAL, [DENIED, other]), (PARTIAL, [DENIED, other]), (OK, []), (PARTIAL, [DENIED])):
        report.tell("rapl", status, Reading(problems=problems), 1)
    told = ("WARNING", "source rapl: a file: denied: Permission denied; needs CAP_DAC_READ_SEARCH, see `otel-hostmetrics doctor`")
    assert said() == [
        ("INFO", "source rapl is partial"),
        told,
        ("INFO", "source rapl: b file: unsupported: EINVAL"),
        ("INFO", "source rapl is ok"),
        ("INFO", "source rapl is partial"),
        told,
    ]


def test_a_flood_of_distinct_problems_is_bounded(said):
    report = Report(Telemetry())
    for cycle in range(3):
        problems = [Unavailable(Reason.UNREADABLE, f"file {number}") for number in range(5000)]
        report.tell("it", Status(State.PARTIAL, Reason.UNREADABLE), Reading(problems=problems), 1)
        assert len(said()) == 1 + 1000, cycle


def test_counts_of_a_source():
    telemetry = Telemetry()
    report = Report(telemetry)
    for _ in range(3):
        report.tell("rapl", PARTIAL, Reading(problems=[DENIED, DENIED], dropped=4), 7)
    name = {rows.SOURCE: "rapl"}
    assert value(telemetry, rows.SOURCE_PROBLEMS, **name, **{rows.ERROR_TYPE: "denied"}) == 6
    assert value(telemetry, rows.SOURCE_SUCCESS, **name) == 1
    assert value(telemetry, rows.SOURCE_SERIES, **name) == 7
    assert value(telemetry, rows.SOURCE_SERIES_DROPPED, **name) == 4
    assert value(telemetry, rows.SOURCE_STATUS, **name, **{rows.STATE: "partial", rows.ERROR_TYPE: "denied"}) == 1


def test_a_source_has_one_state_at_a_time():
    telemetry = Telemetry()
    report = Report(telemetry)
    for status in (OK, LATE, PARTIAL):
        report.tell("a", status, Reading(), 1)
        report.tell("b", OK, Reading(), 1)
    states = [(series.attributes[rows.SOURCE], series.attributes[rows.STATE]) for series in telemetry.read()[0][rows.SOURCE_STATUS].series]
    assert sorted(states) == [("a", "partial"), ("b", "ok")]


@pytest.mark.parametrize("state", [State.FAILED, State.LATE])
def test_a_failure_is_no_success(state):
    telemetry = Telemetry()
    Report(telemetry).tell("a", Status(state, Reason.DENIED), Reading(), 0)
    assert value(telemetry, rows.SOURCE_SUCCESS, **{rows.SOURCE: "a"}) == 0


def test_what_a_source_had_is_forgotten_when_the_host_has_nothing_for_it():
    telemetry = Telemetry()
    report = Report(telemetry)
    report.tell("gpu", OK, Reading(), 7)
    report.tell("gpu", Status(State.OFF, Reason.ABSENT, "gone"), Reading(), 0)
    columns = {metric for metric, column in telemetry.read()[0].items() if column.series}
    assert columns == {rows.SOURCE_STATUS}


def test_only_readings_that_took_place_have_a_duration():
    telemetry = Telemetry()
    report = Report(telemetry)
    report.tell("a", OK, Reading(), 1)
    report.tell("a", Status(State.FAILED, Reason.DENIED), Reading(), 0)
    assert [(each.series.attributes, each.value) for each in telemetry.read()[1]] == [({rows.SOURCE: "a"}, 0.002)]
