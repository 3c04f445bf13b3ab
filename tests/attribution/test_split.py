"""Parts that add up to the whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.attribution.split import split

AMOUNTS = st.integers(0, 10**15)
WEIGHTS = st.lists(st.integers(0, 10**12), max_size=50)


@given(AMOUNTS, WEIGHTS)
def test_all_of_the_amount_is_in_the_parts_and_each_part_is_within_one_of_exact(amount, weights):
    parts = split(amount, weights)
    total = sum(weights)
    assert len(parts) == len(weights)
    assert sum(parts) == (amount if total else 0)
    assert all(abs(part * total - amount * weight) < total for part, weight in zip(parts, weights, strict=True) if total)


@given(AMOUNTS, WEIGHTS, st.integers(0, 10**13))
def test_a_whole_beyond_the_weights_leaves_its_share(amount, weights, more):
    whole = sum(weights) + more
    parts = split(amount, weights, whole)
    assert sum(parts) == (amount * sum(weights) // whole if whole else 0)
    assert all(part >= 0 for part in parts)


def test_a_whole_that_is_too_small_is_not_believed():
    assert split(100, [3, 1], whole=2) == [75, 25]
