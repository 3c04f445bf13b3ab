"""From lists of values to columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.gpu.points import Bound, Keyed, Merge, Names, Table

METRICS = (rows.MEMORY_USAGE, rows.MEMORY_UTILIZATION, hardware.ENERGY)  # an integer, a float, a counter


def attributes(metric, number):
    return {"hw.id": str(number), **({"hw.type": "gpu"} if metric is hardware.ENERGY else {})}


def table(names, count):
    """Every metric of *count* GPUs, with places side by side; the counter in thousandths."""
    made = Table(names)
    made.bind(
        Bound(names.series(metric, attributes(metric, gpu)), gpu * len(METRICS) + place, 1000 if metric is hardware.ENERGY else 1)
        for gpu in range(count)
        for place, metric in enumerate(METRICS)
    )
    return made


@given(st.integers(1, 4), st.lists(st.lists(st.one_of(st.none(), st.integers(0, 10**12)), min_size=12, max_size=12), max_size=8))
def test_any_values_come_out_once_under_their_own_series(count, cycles):
    names = Names()
    made = table(names, count)
    starts = {}
    before = {}
    for values in (cycle[: count * len(METRICS)] for cycle in cycles):
        columns = made.columns(values, True)
        found = {
            (metric, series.attributes["hw.id"]): (series, value)
            for metric, column in columns.items()
            for series, value in zip(*column, strict=True)
        }
        for gpu in range(count):
            for place, metric in enumerate(METRICS):
                value, key = values[gpu * len(METRICS) + place], (metric, str(gpu))
                assert (key in found) == (value is not None)
                if value is None:
                    continue
                scale = 1000 if metric is hardware.ENERGY else 1
                assert found[key][1] == (value if metric.integer else value / scale)
                if metric is hardware.ENERGY:
                    fell = key in before and found[key][1] < before[key]
                    assert not fell or found[key][0] is not starts[key]  # never a counter that falls
                    before[key], starts[key] = found[key][1], found[key][0]


def test_slow_columns_are_passed_on_until_told_otherwise():
    names = Names()
    made = Table(names)
    made.bind(
        [Bound(names.series(rows.MEMORY_LIMIT, {"hw.id": "a"}), 0, 1, slow=True), Bound(names.series(rows.MEMORY_USAGE, {"hw.id": "a"}), 1)]
    )
    first, second, third = made.columns([10, 1], True), made.columns([20, 2], False), made.columns([20, 2], True)
    assert [list(columns[rows.MEMORY_LIMIT].values) for columns in (first, second, third)] == [[10], [10], [20]]
    assert list(second[rows.MEMORY_USAGE].values) == [2]


def test_what_comes_and_goes_is_forgotten_at_once_and_keeps_its_tuple_meanwhile():
    keyed = Keyed(start_ns=7)
    point = {"process.pid": 1, "hw.id": "a"}
    first = keyed.columns({rows.PROCESS_MEMORY: [(point, 5)]})[rows.PROCESS_MEMORY]
    second = keyed.columns({rows.PROCESS_MEMORY: [(point, 6)]})[rows.PROCESS_MEMORY]
    assert second.series is first.series
    assert (second.values, second.series[0].start_ns) == ([6], 7)
    both = keyed.columns({rows.PROCESS_MEMORY: [(point, 6), ({"process.pid": 2, "hw.id": "a"}, 1)]})[rows.PROCESS_MEMORY]
    assert both.series[0] is first.series[0]
    assert keyed.columns({rows.PROCESS_MEMORY: []}) == {}
    assert keyed.columns({rows.PROCESS_MEMORY: [(point, 6)]})[rows.PROCESS_MEMORY].series[0] is not first.series[0]


def test_columns_of_several_parts_are_joined_to_one_that_stays():
    names, merge = Names(), Merge()
    one, two = (Column((names.series(rows.MEMORY_USAGE, {"hw.id": each}),), [value]) for each, value in (("a", 1), ("b", 2)))
    first = merge.columns([{rows.MEMORY_USAGE: one}, {rows.MEMORY_USAGE: two}])[rows.MEMORY_USAGE]
    second = merge.columns([{rows.MEMORY_USAGE: one}, {rows.MEMORY_USAGE: two}])[rows.MEMORY_USAGE]
    assert (len(first.series), list(first.values)) == (2, [1, 2])
    assert second.series is first.series
    assert merge.columns([{rows.MEMORY_USAGE: one}, {}])[rows.MEMORY_USAGE] is one
