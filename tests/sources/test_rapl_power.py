"""Watts over a window of at least a second, the same for all who ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.sources.rapl.meters import Meter, Scale
from otel_hostmetrics.sources.rapl.power import Window
from otel_hostmetrics.sources.rapl.sampler import pace

SECOND = 10**9
SCALE = Scale(1e-6, None, 1000)


def test_the_first_window_has_no_power_and_the_second_has() -> None:
    each, window = Meter(SCALE, 0), Window()
    each.take(5, SECOND)
    window.update([each], SECOND)
    assert each.watts is None
    each.take(5 + 84_000_000, 2 * SECOND)
    window.update([each], 2 * SECOND)
    assert each.watts == 84


def test_readings_within_the_second_change_nothing() -> None:
    each, window = Meter(SCALE, 0), Window()
    for tick in range(1, 31):
        now = SECOND * 10 + tick * SECOND // 10
        each.take(tick * 8_000_000, now)  # 80 W
        window.update([each], now)
    assert each.watts is not None
    assert abs(each.watts - 80) < 1e-9
    number = window.number
    each.take(10**9, SECOND * 13 + 1)
    window.update([each], SECOND * 13 + 1)
    assert (each.watts, window.number) == (80, number)


def test_a_window_with_a_reset_has_no_power() -> None:
    each, window = Meter(SCALE, 0), Window()
    for second, counted in enumerate((0, 90_000_000, 10, 50_000_010), start=1):
        each.take(counted, second * SECOND)
        window.update([each], second * SECOND)
        if second == 3:
            assert each.watts is None
    assert each.watts == 50


def test_what_was_used_while_a_zone_could_not_be_read_is_energy_but_not_power() -> None:
    """It was used over three windows, so it is the power of none: no spike when the zone is back."""
    each, other, window = Meter(SCALE, 0), Meter(SCALE, 0), Window()
    watts = []
    for second in range(1, 8):
        other.take(second * 70_000_000, second * SECOND)
        if second not in (3, 4):
            each.take(second * 80_000_000, second * SECOND)
        window.update([each, other], second * SECOND)
        watts.append((each.watts, other.watts))
    assert watts == [(None, None), (80, 70), (None, 70), (None, 70), (None, 70), (80, 70), (80, 70)]
    assert each.joules == 480


def test_a_zone_that_comes_back_has_no_power_until_a_whole_window_has_seen_it() -> None:
    each, other, window = Meter(SCALE, 0), Meter(SCALE, 0), Window()
    for second in range(1, 8):
        present = [each, other] if second not in (3, 4) else [other]
        for meter in present:
            meter.take(second * 80_000_000, second * SECOND)
        window.update(present, second * SECOND)
        if second == 5:
            assert each.watts is None
    assert each.watts == 80


@given(st.lists(st.tuples(st.integers(1, 3 * SECOND), st.integers(0, 900_000)), min_size=1, max_size=40))
def test_power_times_time_is_energy(steps: list[tuple[int, int]]) -> None:
    """Over the windows that had power: no reader, however often it reads, makes energy vanish between windows."""
    each, window, now, counted = Meter(SCALE, 0), Window(), 10 * SECOND, 0
    each.take(counted, now)
    window.update([each], now)
    begun, number, joules = now, window.number, 0.0
    for gap, milliwatts in steps:
        now, counted = now + gap, counted + milliwatts * gap // 10**6
        each.take(counted, now)
        window.update([each], now)
        if window.number != number:
            assert each.watts is not None
            joules += each.watts * (now - begun) / 1e9
            begun, number = now, window.number
            assert abs(joules - each.joules) < 1e-6 * max(joules, 1)


def test_the_pace_is_half_a_minute_or_a_third_of_the_quickest_wrap() -> None:
    assert pace([SCALE]) == 30
    assert pace([]) == 30
    assert round(pace([SCALE, Scale(1e-6, 65_532_611_002, 1000)]), 1) == 21.8
    assert pace([Scale(1e-6, 262_143_328_911, 1000)]) == 30
    assert pace([Scale(1e-6, 1, 1000)]) == 1
