"""The grid of cycles, on clocks made of numbers."""

from __future__ import annotations

import itertools
import random

from hypothesis import example, given
from hypothesis import strategies as st

from otel_hostmetrics.schedule import Ticks, phase

intervals = st.floats(0.05, 3600)
clocks = st.floats(0, 2e6)
walls = st.floats(1.6e9, 2.2e9)


@given(intervals, clocks, walls, st.floats(0, 1, exclude_max=True), st.lists(st.floats(0, 10), max_size=50))
@example(1.0, 0.0, 1.6e9, 0.0, [0.0, 0.9999999999999999])
def test_every_cycle_is_on_the_grid_however_long_the_ones_before_took(interval, now, wall, share, durations):
    """*durations* are in intervals. Never earlier than the grid, never twice for one point of it, and no drift."""
    ticks = Ticks(interval, share * interval, now, wall)
    assert 0 <= ticks.remaining(now) <= interval
    first = ticks.due
    passed = 0
    for took in durations:
        now = ticks.due + took * interval
        missed = ticks.advance(now)
        passed += missed + 1
        assert ticks.due > now, "a point of the grid that has passed is not due again: cycles would bunch"
        assert ticks.remaining(now) <= interval * 1.000001
        assert abs(ticks.due - (first + passed * interval)) < 1e-6 * interval + 1e-6
        assert missed == 0 or took > 0.999999, "the clock's reading may be rounded up onto the next point"


@given(intervals, clocks, walls, st.floats(0, 1, exclude_max=True))
def test_quick_cycles_have_the_interval_as_their_mean(interval, now, wall, share):
    ticks = Ticks(interval, share * interval, now, wall)
    due = [ticks.due]
    for _ in range(100):
        assert ticks.advance(ticks.due + 0.01 * interval) == 0
        due.append(ticks.due)
    steps = [after - before for before, after in itertools.pairwise(due)]
    assert abs(sum(steps) / len(steps) - interval) < 1e-6
    assert max(abs(step - interval) for step in steps) < 1e-6


@given(intervals, clocks, walls, clocks, walls, st.text(max_size=40))
def test_a_host_has_the_same_place_on_the_grid_of_unix_time_after_every_start(interval, now, wall, other_now, other_wall, identity):
    shift = phase(identity, interval)
    assert 0 <= shift < interval
    places = []
    for clock, unix in ((now, wall), (other_now, other_wall)):
        ticks = Ticks(interval, shift, clock, unix)
        place = (unix + (ticks.due - clock) - shift) % interval
        places.append(min(place, interval - place))
    assert max(places) < 1e-4


def test_a_fleet_is_spread_over_the_interval():
    """Ten groups of a thousand hosts with random ids: none has a third more or less than its share."""
    ids = random.Random(1)
    shifts = [phase(f"{ids.getrandbits(128):032x}node-{number}", 10.0) for number in range(1000)]
    groups = [sum(int(shift) == group for shift in shifts) for group in range(10)]
    assert min(groups) > 66
    assert max(groups) < 133


def test_a_late_cycle_tells_how_many_were_missed():
    ticks = Ticks(10, 0, now=100, wall=1_000_000_000)
    assert ticks.due == 100 or ticks.due == 110
    due = ticks.due
    assert ticks.advance(due + 35) == 3
    assert ticks.due == due + 40
