"""Power of cards that only count energy."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.sources.gpu.watts import Watts
from tests.gpu.conftest import write
from tests.gpu.sysfs_hosts import values

BATTLEMAGE = "0000:03:00.0"
NAMES = ("temp.pkg.input", "energy.card.input", "energy.pkg.input")


def test_energy_over_the_time_of_a_window():
    watts = Watts(NAMES)
    assert watts.names == ("power.mean",)
    assert watts.read([50, 7_000_000, 1], 100) == [None]
    assert watts.read([50, 207_000_000, 2], 102) == [100]
    assert watts.read([50, 999_000_000, 3], 102.9) == [100]  # the same for all who ask within a second
    assert watts.read([50, 217_000_000, 4], 103) == [10]


def test_a_jump_is_no_power():
    watts = Watts(NAMES)
    watts.read([50, 7_000_000, 1], 100)
    assert watts.read([50, 2**63, 1], 101) == [None]
    assert watts.read([50, 2**63 + 5_000_000, 1], 102) == [5]


@pytest.mark.parametrize("lost", [None, 3])
def test_what_was_reset_or_not_read_has_no_power(lost):
    watts = Watts(NAMES)
    watts.read([50, 7_000_000, 1], 100)
    assert watts.read([50, lost, 1], 101) == [None]
    assert watts.read([50, 9_000_000, 1], 102) == ([None] if lost is None else [pytest.approx(9, 1e-6)])
    assert watts.read([50, 19_000_000, 1], 103) == [10]


@pytest.mark.parametrize(
    "names", [("power.PPT.average", "energy.1.input"), ("socket_power.1.input", "energy.1.input"), ("power.card.max",)]
)
def test_cards_with_a_sensor_or_without_a_counter_have_none(names):
    assert Watts(names).names == ()
    assert Watts(names).read([1] * len(names), 1) == []


@given(st.lists(st.tuples(st.none() | st.integers(0, 2**63), st.floats(0, 10)), max_size=9))
def test_power_is_plausible(readings):
    watts, now = Watts(("energy.1.input",)), 0.0
    for count, elapsed in readings:
        now += elapsed
        (power,) = watts.read([count], now)
        assert power is None or 0 <= power <= 10_000


def test_an_intel_card_draws_what_it_counts(intel, opened, tmp_path):
    source = opened(intel)
    first, begun = source.read(), time.monotonic()
    assert hardware.POWER not in first.columns
    assert first.again == 1.0
    time.sleep(1.05)
    write(tmp_path / "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4/energy1_input", str(987_654_321_000 + 60_000_000))
    reading = source.read()
    (power,) = values(reading, hardware.POWER).values()
    assert 60 / (time.monotonic() - begun + 0.1) < power < 60 / 1.04
    assert list(reading.columns[rows.POWER_DRAW].values) == [power]
    assert reading.again == 0.0
