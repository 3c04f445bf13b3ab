"""Delta temporality, read by the protobuf library."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue.model import Kind, Scope, Series
from otel_hostmetrics.export.otlp import delta
from otel_hostmetrics.model import Distribution
from tests.export.otlp.build import START, batch, decode, encoder, finite, metric, points, series, values


def _spans(requests: Any) -> list[tuple[int, int, int | float]]:
    return [
        (point.start_time_unix_nano, point.time_unix_nano, value) for point, value in zip(points(requests), values(requests), strict=True)
    ]


@pytest.mark.parametrize(
    ("temporality", "expected"),
    [
        ("cumulative", {"c": 2, "u": 2, "h": 2}),
        ("delta", {"c": 1, "u": 2, "h": 1}),
        ("lowmemory", {"c": 2, "u": 2, "h": 1}),
    ],
)
def test_temporality_by_kind_is_that_of_the_stock_exporter(temporality: str, expected: dict[str, int]) -> None:
    rows = [metric("c"), metric("u", Kind.UPDOWNCOUNTER), metric("h", Kind.HISTOGRAM, boundaries=(1.0,)), metric("g", Kind.GAUGE)]
    columns = [
        (row, series(row, "a", start_ns=START), [Distribution((1, 0), 0.5, 0.5, 0.5) if row.kind is Kind.HISTOGRAM else 1]) for row in rows
    ]
    whole = decode(encoder(temporality=temporality).encode(batch(*columns)))
    found = {row.name: getattr(row, row.WhichOneof("data")) for row in whole.resource_metrics[0].scope_metrics[0].metrics}
    assert {name: data.aggregation_temporality for name, data in found.items() if name != "g"} == expected
    assert found["g"].data_points[0].start_time_unix_nano == 0


def test_gains_follow_each_other_without_gap() -> None:
    row = metric()
    bound = (*series(row, "a", start_ns=START + 1), *series(row, "b", start_ns=START))
    made = encoder(temporality="delta")
    assert _spans(made.encode(batch((row, bound, [10, 100]), time_ns=START + 1))) == [(START + 1, START + 1, 10), (START, START + 1, 100)]
    assert _spans(made.encode(batch((row, bound, [15, 100]), time_ns=START + 2))) == [(START + 1, START + 2, 5), (START + 1, START + 2, 0)]


@pytest.mark.parametrize("start_ns", [7, 0], ids=["of the kernel", "not known"])
def test_what_was_counted_before_us_is_nobodys_gain(start_ns: int) -> None:
    """It may have been that of an agent before us; a gain of a lifetime would be a spike."""
    row = metric()
    bound = series(row, "a", "b", start_ns=start_ns)
    made = encoder(temporality="delta")
    assert _spans(made.encode(batch((row, bound, [10**15, 5]), time_ns=START + 1))) == []
    assert _spans(made.encode(batch((row, bound, [10**15 + 3, 4]), time_ns=START + 2))) == [
        (START + 1, START + 2, 3),
        (START + 1, START + 2, 4),
    ]


def test_a_counter_that_went_down_began_anew() -> None:
    row = metric()
    bound = series(row, "a", "b", start_ns=START)
    made = encoder(temporality="delta")
    assert [values(made.encode(batch((row, bound, cycle)))) for cycle in ([10, 10], [3, 11], [4, 12])] == [[10, 10], [3, 1], [1, 1]]


def test_a_replaced_series_gives_its_whole_value_since_its_own_start() -> None:
    row = metric()
    made = encoder(temporality="delta")
    made.encode(batch((row, series(row, "a"), [10]), time_ns=START + 1))
    assert _spans(made.encode(batch((row, series(row, "a", start_ns=START + 5), [12]), time_ns=START + 9))) == [(START + 5, START + 9, 12)]


def test_a_series_or_a_family_that_was_away_continues_where_it_was() -> None:
    row, other = metric(), metric("other")
    a, b = series(row, "a", "b")
    made = encoder(temporality="delta")
    made.encode(batch((row, (a, b), [10, 10]), time_ns=START + 1))
    made.encode(batch((row, (a,), [11]), time_ns=START + 2))
    made.encode(batch((other, series(other, "x"), [1]), time_ns=START + 3))
    found = _spans(made.encode(batch((row, (b, a), [30, 12]), time_ns=START + 4)))
    assert found == [(START + 1, START + 4, 20), (START + 2, START + 4, 1)]


def test_metrics_of_an_object_that_was_away_continue_each_where_it_was() -> None:
    """They have the same attributes and the same start: bytes and packets of one port."""
    rows = [metric("rx"), metric("tx")]
    made = encoder(temporality="delta")

    def cycle(second: int, ids: str, *counted: list[int]) -> list[int | float]:
        columns = [(row, series(row, *ids), numbers) for row, numbers in zip(rows, counted, strict=True)]
        return values(made.encode(batch(*columns, time_ns=START + second)))

    cycle(1, "ab", [100, 1000], [7, 70])
    assert cycle(2, "a", [101], [8]) == [1, 1]
    assert cycle(3, "ab", [110, 1100], [10, 80]) == [9, 100, 2, 10]


def test_a_third_partys_metric_that_is_made_anew_continues_where_it_was() -> None:
    """Of two plugins of one distribution that share a metric, the family has that of whichever came first in the cycle."""
    one, two = (replace(metric(), scope=Scope("acme", "1")) for _ in range(2))
    made = encoder(temporality="delta")
    a, b = series(one, "a", start_ns=START), series(two, "b", start_ns=START)
    both = (one, a, [10]), (one, b, [100])
    assert values(made.encode(batch(*both))) == [10, 100]
    assert values(made.encode(batch((two, b, [101])))) == [1]
    assert values(made.encode(batch((one, a, [12]), (one, b, [103])))) == [2, 2]
    assert values(made.encode(batch((two, series(two, "b", start_ns=START), [107])))) == [4]


@pytest.mark.parametrize("start_ns", [START, 7], ids=["of ours", "of the kernel"])
def test_a_series_whose_workload_becomes_known_continues_where_it_was(start_ns: int) -> None:
    """Another object: its Resource has more, and so may the point."""
    row = metric()
    made = encoder(temporality="delta")
    made.encode(batch((row, series(row, "a", start_ns=start_ns), [10]), time_ns=START + 1))
    names = {"k8s.pod.name": "web-1"}
    (bare,) = series(row, "a", start_ns=start_ns, resource=names)
    known = Series(row, {**bare.attributes, **names}, start_ns, names)
    assert _spans(made.encode(batch((row, (known,), [12]), time_ns=START + 2))) == [(START + 1, START + 2, 2)]
    assert _spans(made.encode(batch((row, series(row, "a", start_ns=start_ns), [15]), time_ns=START + 3))) == [(START + 2, START + 3, 3)]


def test_a_value_that_is_not_finite_leaves_the_base() -> None:
    row = metric(integer=False)
    bound = series(row, "a", "b")
    made = encoder(temporality="delta")
    made.encode(batch((row, bound, [1.0, 1.0]), time_ns=START + 1))
    assert _spans(made.encode(batch((row, bound, [math.nan, 2.0]), time_ns=START + 2))) == [(START + 1, START + 2, 1.0)]
    found = _spans(made.encode(batch((row, bound, [4.0, 2.5]), time_ns=START + 3)))
    assert found == [(START + 1, START + 3, 3.0), (START + 2, START + 3, 0.5)]


def test_histograms_give_what_was_recorded_since() -> None:
    row = metric(kind=Kind.HISTOGRAM, boundaries=(1.0,))
    bound = series(row, "a")
    made = encoder(temporality="delta")
    cycles = [
        Distribution((1, 0), 0.5, 0.5, 0.5),
        Distribution((2, 1), 4.0, 0.5, 3.0),
        Distribution((2, 1), 4.0, 0.5, 3.0),
        Distribution((1, 0), 0.1, 0.1, 0.1),
    ]
    found = [points(made.encode(batch((row, bound, [value]), time_ns=START + i))) for i, value in enumerate(cycles, 1)]
    told = [[(list(p.bucket_counts), p.sum, p.HasField("min"), p.start_time_unix_nano - START) for p in each] for each in found]
    # nothing recorded: no point; fewer than before: it began anew
    assert told == [[([1, 0], 0.5, True, 0)], [([1, 1], 3.5, False, 1)], [], [([1, 0], 0.1, True, 2)]]


@given(
    st.lists(st.lists(st.one_of(st.integers(0, 2**64), st.floats(), st.just(10**400)), min_size=3, max_size=3), max_size=6), st.booleans()
)
def test_each_gain_is_over_the_last_finite_value(cycles: list[list[Any]], integer: bool) -> None:
    row = metric(integer=integer)
    bound = series(row, 0, 1, 2, start_ns=START)
    made = encoder(temporality="delta")
    last: list[Any] = [0] * 3
    for cycle in cycles:
        for point, gain in zip(points(made.encode(batch((row, bound, cycle)))), _gains(cycle, last), strict=True):
            index = point.attributes[0].value.int_value
            assert getattr(point, point.WhichOneof("value")) == pytest.approx(gain[index])


def _gains(cycle: list[Any], last: list[Any]) -> list[dict[int, float]]:
    """Each finite value's gain over *last*, which it replaces."""
    gains = []
    for index, value in enumerate(cycle):
        if not finite(value):
            continue
        gains.append({index: value - last[index] if value >= last[index] else value})
        last[index] = value
    return gains


def test_what_is_remembered_of_absent_series_is_bounded() -> None:
    row = metric()
    made = delta.Deltas(START)
    for cycle in range(6):
        made.family(batch((row, series(row, *range(3000 * cycle, 3000 * (cycle + 1))), [cycle] * 3000)).families[0])
    assert len(made._absent) == delta._ABSENT_LIMIT
