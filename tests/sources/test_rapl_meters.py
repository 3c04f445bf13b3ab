"""Joules across wraps, resets, suspend and hot-plug."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.kernel.powercap import modulus
from otel_hostmetrics.sources.rapl.meters import Meter, Scale, meter

SECOND = 10**9
AMD = Scale(1e-6, modulus(65_532_610_987), 1000)  # wraps after 65.5 s at full power
FOREVER = Scale(2.0**-32, None, 1000)
SENSOR = Scale(1e-6, None, 1000, is_power=True)


def test_a_step_is_energy_and_the_first_value_is_none() -> None:
    each = Meter(AMD, 7)
    each.take(65_000_000_000, 5 * SECOND)
    assert (each.joules, each.start_ns) == (0, 7)
    each.take(65_100_000_000, 6 * SECOND)
    assert each.joules == 100


def test_a_wrap_loses_nothing_not_even_the_unit_between_the_range_and_zero() -> None:
    each = Meter(AMD, 0)
    each.take(65_532_610_987, 0)
    each.take(0, SECOND)
    assert (each.total, each.wraps, each.resets) == (15, 1, 0)  # one unit of hardware: 2**-16 J


def test_a_reset_adds_nothing_and_is_counted() -> None:
    each = Meter(AMD, 0)
    for second, counted in enumerate((30_000_000_000, 30_100_000_000, 0, 100_000_000)):
        each.take(counted, second * SECOND)
    assert (each.joules, each.wraps, each.resets) == (200, 0, 1)  # as a wrap it would have been 35 kJ in a second


def test_a_jump_upwards_is_a_reset_too() -> None:
    each = Meter(FOREVER, 0)
    each.take(0, 0)
    each.take(2**60, SECOND)
    assert (each.joules, each.resets) == (0, 1)


def test_a_64_bit_counter_that_falls_was_reset() -> None:
    each = Meter(FOREVER, 0)
    for second, counted in enumerate((10 << 32, 20 << 32, 1 << 32, 2 << 32)):
        each.take(counted, second * SECOND)
    assert (each.joules, each.resets, each.wraps) == (11, 1, 0)


def test_after_a_suspend_too_long_to_know_the_wraps_nothing_is_invented() -> None:
    each = Meter(AMD, 0)
    each.take(1_000_000_000, 0)
    each.take(1_500_000_000, 7200 * SECOND)
    assert (each.joules, each.resets) == (0, 1)
    each.take(1_600_000_000, 7201 * SECOND)
    assert each.joules == 100


def test_a_64_bit_counter_counts_through_any_suspend() -> None:
    each = Meter(FOREVER, 0)
    each.take(0, 0)
    each.take(7200 << 32, 7200 * SECOND)
    assert (each.joules, each.resets) == (7200, 0)


def test_a_counter_that_was_opened_again_begins_again_without_a_reset() -> None:
    each = Meter(FOREVER, 0)
    each.take(0, 0)
    each.take(100 << 32, SECOND)
    each.begin_again()
    each.take(0, 2 * SECOND)
    each.take(50 << 32, 3 * SECOND)
    assert (each.joules, each.resets) == (150, 0)


def test_power_is_held_between_readings() -> None:
    each = meter(SENSOR, 0)
    each.take(100_000_000, 0)
    each.take(200_000_000, 2 * SECOND)
    each.take(50_000_000, 3 * SECOND)
    assert round(each.joules, 9) == 2 * 200 + 50


def test_power_is_not_stretched_over_a_suspend_nor_taken_beyond_what_is_plausible() -> None:
    each = meter(SENSOR, 0)
    for second, microwatts in ((0, 1), (7200, 100_000_000), (7201, 4 * 10**18), (7202, -5), (7203, 100_000_000)):
        each.take(microwatts, second * SECOND)
    assert (round(each.joules, 9), each.resets) == (100, 3)


@given(
    st.integers(1, 2**33),
    st.lists(st.tuples(st.integers(1, 30 * SECOND), st.integers(0, 1000)), max_size=60),
    st.integers(1000, 2**33),
)
def test_no_energy_is_lost_or_invented_over_any_number_of_wraps(start: int, steps: list[tuple[int, int]], turn: int) -> None:
    """Power up to the plausible one; readings closer than a turn at full power, as the sampler's pace is."""
    scale = Scale(1e-6, turn * 100, 1000)
    each, now, true = Meter(scale, 0), 0, start % scale.modulus  # type: ignore[operator]
    each.take(true, now)
    for gap, watts in steps:
        gap_ns = min(gap, int(scale.turn * 1e9) - 1)  # type: ignore[operator]
        now, true = now + gap_ns, true + watts * gap_ns // 1000
        each.take(true % scale.modulus, now)  # type: ignore[operator]
        assert each.resets == 0
    assert each.total == true - start % scale.modulus  # type: ignore[operator]
    assert each.wraps == true // scale.modulus  # type: ignore[operator]


@given(
    st.sampled_from([AMD, FOREVER, SENSOR]),
    st.lists(st.tuples(st.integers(0, 10_000 * SECOND), st.integers(-(2**63), 2**64)), max_size=60),
)
def test_whatever_a_counter_says_energy_never_falls_nor_exceeds_full_power(scale: Scale, readings: list[tuple[int, int]]) -> None:
    each, now, before = meter(scale, 0), 0, 0.0
    for gap, counted in readings:
        now += gap
        each.take(counted, now)
        assert before <= each.joules <= before + scale.watts * (gap / 1e9 + 0.1) * 1.000001
        before = each.joules


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("run"), st.integers(1, 20 * SECOND), st.integers(0, 999)),
            st.tuples(st.just("reset"), st.just(0), st.just(0)),
            st.tuples(st.just("suspend"), st.integers(1, 10**4 * SECOND), st.integers(0, 5)),
            st.tuples(st.just("unplugged"), st.integers(1, 40 * SECOND), st.integers(0, 999)),
        ),
        max_size=60,
    )
)
def test_resets_suspend_and_hot_plug_lose_energy_at_most_and_are_counted(events: list[tuple[str, int, int]]) -> None:
    """A host that runs, sleeps, loses its driver's state and has packages unplugged: what is told was used."""
    each, now, used, counter = Meter(AMD, 0), 0, 0, 12_345
    each.take(counter, now)
    surprises = 0
    for event, gap, watts in events:
        now, energy = now + gap, watts * gap // 1000
        used += energy
        counter = 0 if event == "reset" else (counter + energy) % AMD.modulus  # type: ignore[operator]
        surprises += event in ("reset", "suspend", "unplugged")
        before = each.total
        if event != "unplugged":
            each.take(counter, now)
        assert each.total >= before
    assert each.resets <= surprises
    if not surprises:
        assert each.total == used


@given(st.integers(0, 10**15))
def test_microjoules_have_no_more_than_six_places(count: int) -> None:
    each = Meter(AMD, 0)
    each.total = count
    assert repr(each.joules) == repr(float(f"{count // 10**6}.{count % 10**6:06}"))


@pytest.mark.parametrize(("unit", "per_joule"), [(1e-6, 10**6), (1e-15, 10**15), (2.0**-14, 2**14), (2.0**-32, 2**32), (2.5, 0.4)])
def test_how_many_counts_make_a_joule(unit: float, per_joule: float) -> None:
    assert Meter(Scale(unit), 0).per_joule == per_joule
