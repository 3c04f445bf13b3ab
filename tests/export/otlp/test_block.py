"""The numbers of a batch as structs: the same request as without, whatever the values and however series change."""

from __future__ import annotations

import math
from dataclasses import replace
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_hostmetrics.catalogue.model import Kind, Metric, Scope, Series
from otel_hostmetrics.export.otlp.block import picker
from otel_hostmetrics.export.otlp.encode import Request
from otel_hostmetrics.model import Batch, Column, Distribution, Family, Snapshot
from tests.export.otlp.build import RESOURCE, START, TIME, batch, decode, encoder, finite, metric, series

PODS: list[Any] = [{"k8s.pod.name": f"pod-{number}"} for number in range(4)]
ROWS = (metric("c"), metric("g", Kind.GAUGE, integer=False), metric("u", Kind.UPDOWNCOUNTER), metric("s", integer=False))

Found = dict[str | None, list[tuple[str, str, int, int, object]]]


def content(requests: list[Request]) -> Found:
    """By workload: (metric, id, start, time, value); asserts that no request has a workload or one of its metrics twice."""
    found: Found = {}
    for request in requests:
        names = set()
        for each in decode([request]).resource_metrics:
            attributes = {pair.key: pair.value.string_value for pair in each.resource.attributes}
            name = attributes.pop("k8s.pod.name", None)
            assert attributes == RESOURCE
            assert name not in names
            names.add(name)
            (scope,) = each.scope_metrics
            assert scope.scope.name == "scope"
            rows = [row.name for row in scope.metrics]
            assert len(set(rows)) == len(rows)
            for row in scope.metrics:
                assert row.unit == "By"
                for point in getattr(row, row.WhichOneof("data")).data_points:
                    (pair,) = point.attributes
                    value = getattr(point, point.WhichOneof("value"))
                    told = (row.name, pair.value.string_value, point.start_time_unix_nano, point.time_unix_nano, value)
                    found.setdefault(name, []).append(told)
        assert request.points == sum(len(points) for points in content_of(request))
    return {name: sorted(points, key=str) for name, points in found.items()}


def content_of(request: Request) -> list[Any]:
    return [
        getattr(row, row.WhichOneof("data")).data_points
        for each in decode([request]).resource_metrics
        for scope in each.scope_metrics
        for row in scope.metrics
    ]


def wanted(families: list[tuple[Metric, list[tuple[int, tuple[Series, ...], list[Any]]]]]) -> Found:
    found: Found = {}
    for row, columns in families:
        for time_ns, bound, values in columns:
            for one, value in zip(bound, values, strict=True):
                if finite(value):
                    fits = row.integer and isinstance(value, int) and -(2**63) <= value < 2**63
                    start = 0 if row.kind is Kind.GAUGE else one.start_ns or START
                    name = (one.resource or {}).get("k8s.pod.name")
                    told = (row.name, str(one.attributes["id"]), start, time_ns, value if fits else float(value))
                    found.setdefault(name, []).append(told)  # type: ignore[arg-type]
    return {name: sorted(points, key=str) for name, points in found.items()}


_values = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.integers(2**63, 2**70)
_column = st.lists(st.tuples(st.integers(-1, 3), _values), max_size=6)
_cycle = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), _column), max_size=5, unique_by=lambda each: each[0])


@settings(deadline=None)
@given(cycles=st.lists(_cycle, min_size=1, max_size=3), plain=st.booleans(), repeat=st.booleans())
def test_any_cycles_come_out_as_they_went_in(cycles: list[Any], plain: bool, repeat: bool) -> None:
    """With values that fit (*plain*) the block is used, with others mostly not."""
    made = encoder()
    for number, cycle in enumerate(cycles):
        families: list[tuple[Metric, list[tuple[int, tuple[Series, ...], list[Any]]]]] = []
        for row_index, split, column in cycle:
            row = ROWS[row_index]
            bound = tuple(
                row.series({"id": f"{number}-{index}"}, 5, None if pod < 0 else PODS[pod]) for index, (pod, _) in enumerate(column)
            )
            values = [(index if row.integer else index / 2) if plain else value for index, (_, value) in enumerate(column)]
            parts = [(TIME, bound[:split], values[:split]), (TIME + 1, bound[split:], values[split:])]  # two sources
            families.append((row, [part for part in parts if part[1]]))
        families = [each for each in families if each[1]]
        made_of = tuple(
            Family(row, tuple((time_ns, Column(bound, values)) for time_ns, bound, values in columns)) for row, columns in families
        )
        for _ in range(2 if repeat else 1):
            assert content(made.encode(Batch(Snapshot(1, TIME, 0, {}, {}), made_of))) == wanted(families)


ACME = Scope("acme", "1", "https://example.com/1", (("rack", 7),))
_POOL_ROWS = (*ROWS, replace(metric("c"), scope=ACME), replace(metric("f", integer=False), scope=ACME))
_HISTOGRAM = metric("h", Kind.HISTOGRAM, boundaries=(1.0,))
_ODD = (None, None, None, None, math.nan, 2**63, True, 0.5, 10**400)
_column_of_pool = st.tuples(st.lists(st.integers(0, 5), max_size=5, unique=True), st.sampled_from(_ODD))
_columns_of_pool = st.lists(_column_of_pool, min_size=1, max_size=2)
_cycle_of_pool = st.tuples(
    st.lists(st.tuples(st.integers(0, 6), _columns_of_pool), min_size=2, max_size=7, unique_by=itemgetter(0)),
    st.booleans(),
)


class _Pool:
    """Six series of each metric, and the tuples of them that were asked for since forget()."""

    def __init__(self, *, workloads: bool, of_histograms: bool, width: int) -> None:
        self.made = 0
        self._columns: dict[tuple[Metric, int, tuple[int, ...]], tuple[Series, ...]] = {}
        self._series = {row: [self._one(row, index, workloads, width) for index in range(6)] for row in _POOL_ROWS}
        self._series[_HISTOGRAM] = [self._one(_HISTOGRAM, index, workloads and of_histograms, width) for index in range(6)]

    def _one(self, row: Metric, index: int, workload: bool, width: int) -> Series:
        owner = PODS[index % 3] if workload and index > 1 else None
        return row.series({"id": f"{index}{'x' * (width if index % 2 else 0)}"}, index % 3 and START - index, owner)

    def column(self, row: Metric, place: int, indices: list[int], odd: object) -> Column:
        bound = self._columns.setdefault((row, place, tuple(indices)), tuple([self._series[row][index] for index in indices]))
        self.made += 1
        if row is _HISTOGRAM:
            return Column(bound, [Distribution((self.made, index), float(self.made), 0.5, 0.5) for index in indices])
        values: list[Any] = [self.made * 10 + index if row.integer else self.made + index / 8 for index in indices]
        if values and odd is not None:
            values[self.made % len(values)] = odd
        return Column(bound, values)

    def forget(self) -> None:
        """Their identities may be given to others."""
        self._columns.clear()


def _said(requests: list[Request], limit: int) -> list[tuple[Any, ...]]:
    """(workload, scope, metric, attribute, start, time, value); asserts that requests keep their size and are well grouped."""
    found: list[tuple[Any, ...]] = []
    for request in requests:
        assert len(request.payload) < limit or request.points == 1
        seen = len(found)
        resources = decode([request]).resource_metrics
        names = [next((pair.value.string_value for pair in each.resource.attributes if "pod" in pair.key), None) for each in resources]
        assert len(set(names)) == len(names)
        for name, resource in zip(names, resources, strict=True):
            scopes = [(each.scope.name, each.scope.version, each.schema_url, len(each.scope.attributes)) for each in resource.scope_metrics]
            assert len(set(scopes)) == len(scopes)
            for scope, within in zip(scopes, resource.scope_metrics, strict=True):
                for row in within.metrics:
                    for point in getattr(row, row.WhichOneof("data")).data_points:
                        value = (tuple(point.bucket_counts), point.sum) if row.name == "h" else getattr(point, point.WhichOneof("value"))
                        (pair,) = point.attributes
                        times = point.start_time_unix_nano, point.time_unix_nano
                        found.append((name, scope, row.name, pair.value.string_value, *times, value))
        assert len(found) - seen == request.points
    return sorted(found, key=repr)


def _put_in(families: list[tuple[Metric, list[tuple[int, Column]]]]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for row, columns in families:
        scope = ("acme", "1", "https://example.com/1", 1) if row.scope else ("scope", "1.2", "", 0)
        for time_ns, (bound, values) in columns:
            for one, value in zip(bound, values, strict=True):
                start = 0 if row.kind is Kind.GAUGE else one.start_ns or START
                told = ((one.resource or {}).get("k8s.pod.name"), scope, row.name, one.attributes["id"], start, time_ns)
                if isinstance(value, Distribution):
                    found.append((*told, (value.counts, value.sum)))
                elif finite(value):
                    found.append((*told, int(value) if row.integer and isinstance(value, int) and value < 2**63 else float(value)))
    return sorted(found, key=repr)


@settings(deadline=None, max_examples=300)
@given(
    cycles=st.lists(_cycle_of_pool, min_size=1, max_size=6),
    limit=st.integers(150, 1500) | st.just(4_000_000),
    workloads=st.booleans(),
    of_histograms=st.booleans(),
    width=st.sampled_from([0, 0, 130]),
)
def test_series_of_a_pool_come_and_go(cycles: list[Any], limit: int, workloads: bool, of_histograms: bool, width: int) -> None:
    """One encoder, whose templates the series of all cycles share; sizes of requests at which everything is cut, some or nothing."""
    rows = (*_POOL_ROWS, _HISTOGRAM)
    pool, made = _Pool(workloads=workloads, of_histograms=of_histograms, width=width), encoder(max_request_bytes=limit)
    for parts, forget in cycles:
        for repeat in range(2):
            families = [
                (rows[number], [(TIME + place + repeat, pool.column(rows[number], place, *each)) for place, each in enumerate(columns)])
                for number, columns in parts
            ]
            made_of = tuple(Family(row, tuple(columns)) for row, columns in families)
            assert _said(made.encode(Batch(Snapshot(1, TIME, 0, {}, {}), made_of)), limit) == _put_in(families)
        if forget:
            pool.forget()


@pytest.mark.parametrize("host", [False, True])
@pytest.mark.parametrize("histograms", [False, True])
def test_a_request_of_exactly_the_limit_is_one_too_large(histograms: bool, host: bool) -> None:
    row, other = (metric("h", Kind.HISTOGRAM, boundaries=(1.0,)) if histograms else metric("c")), metric("g", Kind.GAUGE)
    value: Any = Distribution((1, 0), 0.5, 0.5, 0.5) if histograms else 7
    bound = tuple(row.series({"id": 1}, 0, pod) for pod in PODS)
    columns: list[Any] = [(row, bound, [value] * len(PODS)), *([(other, series(other, "host"), [1])] if host else [])]
    (whole,) = encoder().encode(batch(*columns))
    size = len(whole.payload)
    requests = encoder(max_request_bytes=size).encode(batch(*columns))
    assert [len(request.payload) < size for request in requests] == [True, True]
    assert sum(request.points for request in requests) == whole.points
    framing = 16 if histograms else 0  # at most, where it is only known afterwards
    assert len(encoder(max_request_bytes=size + 1 + framing).encode(batch(*columns))) == 1


def test_a_value_that_does_not_fit_costs_nothing_but_itself() -> None:
    row = ROWS[1]
    bound = tuple(row.series({"id": index}, 0, PODS[index % 2]) for index in range(4))
    made = encoder()
    first = content(made.encode(batch((row, bound, [0.0, 1.0, 2.0, 3.0]))))
    odd = content(made.encode(batch((row, bound, [0.0, math.nan, 2.0, 3.0]))))
    assert odd == {name: [point for point in points if point[-1] != 1.0] for name, points in first.items()}
    assert content(made.encode(batch((row, bound, [0.0, 1.0, 2.0, 3.0])))) == first


def test_a_workload_with_a_histogram_has_one_resource_all_the_same() -> None:
    """As with points whose start moves: they cannot be in the block, so none of them is."""
    histogram, row = metric("h", Kind.HISTOGRAM, boundaries=(1.0,)), ROWS[0]
    values = [Distribution((1, 0), 0.5, 0.5, 0.5)]
    columns = (histogram, series(histogram, "x", resource=PODS[0]), values), (row, series(row, "y", resource=PODS[0]), [1])
    assert len(decode(encoder().encode(batch(*columns))).resource_metrics) == 1
    gauge = ROWS[1]
    delta = encoder(temporality="delta").encode(
        batch((row, series(row, "y", resource=PODS[0]), [1]), (gauge, series(gauge, "z", resource=PODS[0]), [0.5]))
    )
    assert len(decode(delta).resource_metrics) == 1


def test_numbers_and_histograms_of_a_scope_stand_together() -> None:
    histogram, row = metric("h", Kind.HISTOGRAM, boundaries=(1.0,)), ROWS[0]
    columns = (histogram, series(histogram, "x"), [Distribution((1, 0), 0.5, 0.5, 0.5)]), (row, series(row, "y"), [1])
    (resource,) = decode(encoder().encode(batch(*columns))).resource_metrics
    (scope,) = resource.scope_metrics
    assert sorted(each.name for each in scope.metrics) == ["c", "h"]


def test_a_request_stays_as_it_is_while_the_next_is_made() -> None:
    row = ROWS[0]
    bound, made = series(row, *range(100)), encoder()
    (first,) = made.encode(batch((row, bound, [1] * 100)))
    (_,) = made.encode(batch((row, bound, [2] * 100)))
    assert content([first]) == content(encoder().encode(batch((row, bound, [1] * 100))))


def test_workloads_fill_requests_up_to_their_size() -> None:
    row = ROWS[0]
    bound = tuple(row.series({"id": f"{index:0100}"}, 0, {"k8s.pod.name": f"pod-{index % 300}"}) for index in range(3000))
    grouped = {each.resource["k8s.pod.name"]: each.resource for each in bound if each.resource}
    for each in bound:
        each.resource = grouped[each.resource["k8s.pod.name"]]  # type: ignore[index] # one object a workload
    requests = encoder(max_request_bytes=65_536).encode(batch((row, bound, list(range(3000)))))
    assert all(len(request.payload) < 65_536 for request in requests)
    assert sum(request.points for request in requests) == 3000
    assert len(requests) < 10


def test_metrics_of_the_host_fill_requests_up_to_their_size() -> None:
    rows = [metric(f"m{number}") for number in range(30)]
    columns = [(row, series(row, *(f"{index:0100}" for index in range(50))), list(range(50))) for row in rows]
    made = encoder(max_request_bytes=65_536)
    requests = made.encode(batch(*columns))
    assert made._block._host
    assert len(made._block._host) == len(requests) == 4
    assert all(len(request.payload) < 65_536 for request in requests)
    assert content(requests) == wanted([(row, [(TIME, bound, values)]) for row, bound, values in columns])


@pytest.mark.parametrize("owner", [None, PODS[0]])
def test_the_host_or_a_workload_beyond_a_request_is_split(owner: Any) -> None:
    row = ROWS[0]
    bound = series(row, *(f"{index:0100}" for index in range(1000)), resource=owner)
    requests = encoder(max_request_bytes=65_536).encode(batch((row, bound, list(range(1000)))))
    assert all(len(request.payload) < 65_536 for request in requests)
    assert sum(request.points for request in requests) == 1000


_steps = st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(1, 12)).map(
    lambda it: range(it[0], it[0] + it[1] * it[2] + 1, it[1] or 1)
)


@given(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=3) | _steps, min_size=1, max_size=6))
def test_what_is_picked_is_what_stands_there(parts: list[list[int]]) -> None:
    positions = [position for part in parts for position in part]
    assert list(picker(positions)(range(1000))) == positions


@pytest.mark.parametrize("values", [[1], [1, 2, 3]])
def test_a_column_of_another_size_is_refused(values: list[int]) -> None:
    row, other = ROWS[0], ROWS[2]
    bound = (row, series(row, "a", "b", resource=PODS[0]), values)
    with pytest.raises(ValueError, match="size"):
        encoder().encode(batch(bound, (other, series(other, "c", resource=PODS[1]), [1])))
