"""The energy that a GPU takes whether it works or not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.attribution.idle import Idle

WATT = 1_000_000  # microjoules per second


def test_until_it_was_seen_at_rest_nothing_is_known() -> None:
    idle = Idle(0)
    assert idle.microjoules("0", 400 * WATT, 1, busy=True) is None
    assert idle.microjoules("0", 200 * WATT, 1, busy=False) is None  # it ended in this interval: nothing to learn
    assert idle.microjoules("0", 400 * WATT, 1, busy=True) is None


def test_the_least_of_whole_intervals_at_rest_counts() -> None:
    idle = Idle(0)
    for watts in (200, 90, 70, 80):
        idle.microjoules("0", watts * WATT * 10, 10, busy=False)
    assert idle.microjoules("0", 400 * WATT * 10, 10, busy=True) == 70 * WATT * 10
    assert idle.microjoules("0", 50 * WATT * 10, 10, busy=True) == 50 * WATT * 10  # never more than was measured
    assert idle.microjoules("1", 400 * WATT, 1, busy=True) is None, "another GPU"


def test_what_ended_within_an_interval_is_not_idle() -> None:
    idle = Idle(0)
    for watts, busy in ((70, False), (70, False), (400, True)):
        idle.microjoules("0", watts * WATT, 1, busy=busy)
    assert idle.microjoules("0", 300 * WATT, 1, busy=False) == 70 * WATT
    assert idle.microjoules("0", 80 * WATT, 1, busy=False) == 80 * WATT  # at rest from end to end


def test_short_intervals_and_counters_that_stand_still_teach_nothing() -> None:
    idle = Idle(0)
    for microjoules, seconds in ((1, 0.1), (1, 0.1), (0, 10.0)):
        idle.microjoules("0", microjoules, seconds, busy=False)
    assert idle.microjoules("0", 400 * WATT, 1, busy=True) is None


def test_the_configuration_knows_it_from_the_start() -> None:
    assert Idle(75).microjoules("0", 400 * WATT, 2, busy=True) == 150 * WATT


@given(st.lists(st.tuples(st.integers(0, 2**40), st.floats(0, 1e6), st.booleans())), st.floats(0, 1e6))
def test_it_is_a_part_of_what_was_measured(intervals: list[tuple[int, float, bool]], watts: float) -> None:
    idle = Idle(watts)
    for measured, seconds, busy in intervals:
        found = idle.microjoules("0", measured, seconds, busy=busy)
        assert found is None or 0 <= found <= measured
