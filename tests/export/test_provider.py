"""Our MeterProvider as third parties see it: an OpenTelemetry provider."""

from __future__ import annotations

import asyncio
import enum
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.export.metering import SCOPE, Observations, Replay
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.model import Column, Distribution, Family, Reading
from tests.export import everything

CREATE = {
    Kind.COUNTER: "create_observable_counter",
    Kind.UPDOWNCOUNTER: "create_observable_up_down_counter",
    Kind.GAUGE: "create_observable_gauge",
}


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def meter(provider: Provider) -> Meter:
    made: MeterProvider = provider
    return made.get_meter("third.party", "1", "https://example.com/schema", {"a": "b"})


def found(provider: Provider) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """Attributes and value of every point by metric."""
    return {
        family.metric.name: [
            (dict(series.attributes), value)
            for _, column in family.columns
            for series, value in zip(column.series, column.values, strict=True)
        ]
        for family in provider.collect()
    }


def always(*observations: Observation) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: observations


def broken(_: CallbackOptions) -> Iterable[Observation]:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("kind", CREATE)
def test_observable_instruments_with_plain_callbacks(provider, meter, kind):
    calls = []

    def callback(options: CallbackOptions) -> Iterable[Observation]:
        calls.append(options)
        yield Observation(7, {"cpu": 0, "mode": "user"})
        yield Observation(8, {"cpu": 1, "mode": "user"})

    getattr(meter, CREATE[kind])("it", [callback], "By", "What it counts")
    before = time.time_ns()
    (family,) = provider.collect()
    assert (family.metric.name, family.metric.kind, family.metric.unit, family.metric.description) == ("it", kind, "By", "What it counts")
    assert family.metric.integer
    ((time_ns, _),) = family.columns
    assert before <= time_ns <= time.time_ns()
    assert found(provider) == {"it": [({"cpu": 0, "mode": "user"}, 7), ({"cpu": 1, "mode": "user"}, 8)]}
    assert all(isinstance(options, CallbackOptions) for options in calls)
    assert len(calls) == 2, "once per collection"


def test_a_generator_as_callback(provider, meter):
    sent = []

    def generator() -> Generator[Iterable[Observation], CallbackOptions, None]:
        sent.append((yield []))
        sent.append((yield [Observation(0)]))
        sent.append((yield [Observation(1)]))

    meter.create_observable_gauge("it", [generator()])
    assert [found(provider) for _ in range(3)] == [{"it": [({}, 0)]}, {"it": [({}, 1)]}, {}]
    assert all(isinstance(options, CallbackOptions) for options in sent)
    assert found(provider) == {}, "an exhausted generator stays silent"


def test_several_callbacks_and_the_last_of_equal_attributes(provider, meter):
    meter.create_observable_gauge(
        "it", [always(Observation(1, {"a": 1}), Observation(2, {"b": 1})), always(Observation(3, {"b": 1}), Observation(4))]
    )
    assert found(provider) == {"it": [({"a": 1}, 1), ({"b": 1}, 3), ({}, 4)]}


def test_no_callback_and_nothing_observed_is_no_family(provider, meter):
    meter.create_observable_gauge("a")
    meter.create_observable_gauge("b", [always()])
    meter.create_counter("c")
    meter.create_histogram("d")
    assert found(provider) == {}


def test_a_callback_that_raises_costs_only_itself_and_is_said_once_until_it_works(provider, meter, caplog):
    health = [False]

    def moody(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(2)] if health[0] else broken(options)

    meter.create_observable_gauge("a", [moody, always(Observation(1, {"b": 1}))])
    meter.create_observable_gauge("other", [always(Observation(1))])
    for well in (False, False, True, False):
        health[0] = well
        points = found(provider)
        assert points["other"] == [({}, 1)]
        assert ({"b": 1}, 1) in points["a"]
    assert [record.getMessage() for record in caplog.records] == ["callback of a failed"] * 2


@pytest.mark.parametrize(
    "observation",
    [
        None,
        1,
        Observation("text"),  # type: ignore[arg-type]
        Observation(None),  # type: ignore[arg-type]
        Observation(10**400),
        Observation(1, {"a": 10**5000}),
        Observation(1, {"a": {}}),
        Observation(1, {"a": None}),
        Observation(1, {"a": b"x"}),
        Observation(1, {"a": [["x"]]}),
        Observation(1, {1: "x"}),  # type: ignore[dict-item]
        Observation(1, "text"),  # type: ignore[arg-type]
    ],
    ids=lambda it: f"{it!r:.40}" if not isinstance(it, Observation) or it.attributes != {"a": 10**5000} else "long",
)
def test_what_is_no_observation_costs_its_callback_only(provider, meter, caplog, observation):
    meter.create_observable_gauge("a", [lambda _: [observation], always(Observation(1))])
    meter.create_observable_gauge("b", [lambda _: None])  # type: ignore[list-item,return-value]
    assert found(provider) == {"a": [({}, 1)]}
    assert not caplog.records, "a traceback would tell nothing of who is wrong"
    assert [(problem.reason, problem.what) for problem in provider.problems()] == [
        (Reason.MALFORMED, "callback of a"),
        (Reason.MALFORMED, "callback of b"),
    ]


def test_why_a_callback_failed_is_told_until_it_works_again(provider, meter):
    errors: list[BaseException] = [PermissionError(13, "Permission denied"), KeyError("x"), SystemExit(3), asyncio.CancelledError()]

    def failing(_: CallbackOptions) -> Iterable[Observation]:
        if errors:
            raise errors.pop(0)
        return []

    meter.create_observable_gauge("a", [failing])
    told = []
    for _ in range(5):
        provider.collect()
        told += [str(problem) for problem in provider.problems()]
    assert told == [
        "callback of a: denied: Permission denied",
        "callback of a: unreadable: KeyError('x')",
        "callback of a: unreadable: SystemExit(3)",
        "callback of a: unreadable: CancelledError()",
    ]


class Whole:
    """As numpy's integers, which are not Python's."""

    def __index__(self) -> int:
        return 7


class Scalar:
    """As an array of numpy or a tensor of torch with one value: it has both methods, and one that suits its value."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __index__(self) -> int:
        if isinstance(self._value, int):
            return self._value
        raise TypeError("only integer scalar arrays can be converted to a scalar index")

    def __int__(self) -> int:
        return int(self._value)

    def __float__(self) -> float:
        return float(self._value)


class Level(float):
    def __repr__(self) -> str:
        return "Level()"


class Color(enum.IntEnum):
    RED = 1


class Word(enum.StrEnum):
    HI = "hi"


def test_numbers_and_text_of_any_class_become_plain_ones(provider, meter):
    observed = Observation(Whole()), Observation(Level(0.5), {"a": Color.RED, "b": Word.HI, "c": Level(1.5), "d": [Word.HI]})
    meter.create_observable_gauge("a", [always(*observed)])
    counter = meter.create_counter("b")
    counter.add(Whole(), {"a": Word.HI})
    counter.add(Level(1.0), {"a": "hi"})
    (plain, dressed), (counted,) = found(provider).values()
    assert repr([plain, dressed]) == "[({}, 7), ({'a': 1, 'b': 'hi', 'c': 1.5, 'd': ('hi',)}, 0.5)]"
    assert repr(counted) == "({'a': 'hi'}, 8.0)"


def test_a_scalar_of_others_keeps_its_fraction(provider, meter):
    meter.create_observable_gauge("a", [always(Observation(Scalar(0.75)), Observation(Scalar(3), {"a": 1}), Observation(True, {"a": 2}))])
    assert repr(found(provider)) == "{'a': [({}, 0.75), ({'a': 1}, 3), ({'a': 2}, 1)]}"


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("on purpose")


@pytest.mark.parametrize(
    ("amount", "attributes"),
    [("text", None), (None, None), (1, {"a": {}}), (1, "text"), (1, {1: 2}), (10**400, None), (10**5000, None), (Unspeakable(), None)],
    ids=itertools.count(),
)
def test_what_cannot_be_recorded_is_said_and_does_not_raise(provider, meter, caplog, amount, attributes):
    """The API's methods do not raise; what is no number would spoil the whole export."""
    meter.create_counter("c").add(amount, attributes)
    meter.create_up_down_counter("u").add(amount, attributes)
    meter.create_gauge("g").set(amount, attributes)
    meter.create_histogram("h").record(amount, attributes)
    assert found(provider) == {}
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["c", "u", "g", "h"]


def test_lists_are_attribute_values(provider, meter):
    meter.create_observable_gauge("a", [always(Observation(1, {"list": ["x", "y"]}), Observation(2, {"list": ("x",)}))])
    assert found(provider) == {"a": [({"list": ("x", "y")}, 1), ({"list": ("x",)}, 2)]}


def test_the_series_tuple_is_the_same_while_the_series_are_and_vanished_ones_are_forgotten(provider, meter):
    present = [[1, 2, 3], [1, 2, 3], [1, 3], [], [1, 3], [3, 1], [3, 1, 2]]
    rounds = iter(present)
    meter.create_observable_counter("it", [lambda _: [Observation(10 * number, {"id": number}) for number in next(rounds)]])
    nothing = Column((), ())
    columns = [family[0].columns[0][1] if (family := provider.collect()) else nothing for _ in present]
    assert columns[0].series is columns[1].series
    assert [series.attributes["id"] for series in columns[2].series] == [1, 3]
    assert columns[2].series[0] is columns[0].series[0]
    assert columns[3] is nothing
    assert list(columns[4].values) == [10, 30]
    assert columns[5].series is columns[4].series, "another order is no other set"
    assert list(columns[5].values) == [10, 30]
    assert list(columns[6].values) == [30, 10, 20]
    assert [series.attributes["id"] for series in columns[6].series] == [3, 1, 2]


def test_twenty_thousand_series_stay_twenty_thousand(provider, meter):
    meter.create_observable_gauge("it", [lambda _: (Observation(number, {"id": number}) for number in range(20_000))])
    assert len(found(provider)["it"]) == 20_000


def test_a_new_set_of_attributes_costs_the_same_however_many_there_are(provider, meter):
    counter = meter.create_counter("c")
    began = time.process_time()
    for number in range(60_000):
        counter.add(1, {"id": number})
    assert time.process_time() - began < 5, "it takes 0.3 s"
    assert found(provider)["c"] == [({"id": number}, 1) for number in range(60_000)]
    counter.add(1, {"id": "new"})
    counter.add(1, {"id": 7})
    after = found(provider)["c"]
    assert (after[7], after[60_000:]) == (({"id": 7}, 2), [({"id": "new"}, 1)])


def test_integers_and_floats(provider, meter):
    meter.create_observable_gauge("int", [always(Observation(1), Observation(2, {"a": 1}))])
    meter.create_observable_gauge("float", [always(Observation(1), Observation(2.5, {"a": 1}))])
    meter.create_counter("counted").add(1)
    meter.create_counter("measured").add(0.5)
    integer = {family.metric.name: family.metric.integer for family in provider.collect()}
    assert integer == {"int": True, "float": False, "counted": True, "measured": False}


def test_a_second_instrument_of_the_same_name_adds_its_callbacks(provider, meter, caplog):
    again = provider.get_meter(meter.name, meter.version, meter.schema_url, {"a": "b"})
    meter.create_observable_gauge("it", [always(Observation(1, {"a": 1}))], "s")
    again.create_observable_gauge("IT", [always(Observation(2, {"a": 2}))], "s")
    counters = [meter.create_counter("c"), again.create_counter("c")]
    for counter in counters:
        counter.add(1)
    assert found(provider) == {"it": [({"a": 1}, 1), ({"a": 2}, 2)], "c": [({}, 2)]}
    assert not caplog.records


def test_a_callback_that_makes_its_own_instrument_again_is_asked_once(provider, meter):
    """As of a plugin that makes the instruments of what it finds in each cycle."""
    asked = []

    def again(_: CallbackOptions) -> Iterable[Observation]:
        asked.append(1)
        assert len(asked) < 100
        meter.create_observable_gauge("it", [again, lambda _: [Observation(2, {"a": len(asked)})]])
        return [Observation(1)]

    meter.create_observable_gauge("it", [again])
    assert found(provider) == {"it": [({}, 1)]}
    assert found(provider) == {"it": [({}, 1), ({"a": 2}, 2)]}
    assert len(asked) == 2


@pytest.mark.parametrize("scope", [("other",), ("third.party",), ("third.party", "1", "https://example.com/schema", {"a": "c"})])
def test_the_same_name_in_another_scope_is_another_metric(provider, meter, caplog, scope):
    meter.create_observable_gauge("it", [always(Observation(1))], "s")
    provider.get_meter(*scope).create_observable_counter("it", [always(Observation(2))], "By")
    assert [(family.metric.unit, family.columns[0][1].values) for family in provider.collect()] == [("s", [1]), ("By", [2])]
    assert len({family.metric.scope for family in provider.collect()}) == 2
    assert not caplog.records


def test_what_the_agent_itself_makes_has_no_scope_of_its_own(provider):
    provider.get_meter(SCOPE, __version__).create_counter("it").add(1)
    assert [family.metric.scope for family in provider.collect()] == [None]


@pytest.mark.parametrize(("name", "unit"), [("", ""), ("1a", ""), ("a b", ""), ("ä", ""), ("a" * 256, ""), ("a", "µs"), ("a", "x" * 64)])
def test_names_and_units_that_opentelemetry_does_not_allow_are_refused(meter, name, unit):
    for create in (meter.create_counter, meter.create_histogram, meter.create_observable_gauge):
        with pytest.raises(ValueError, match="instrument"):
            create(name, unit=unit)


@pytest.mark.parametrize("texts", [(5, "", ""), ("a", 5, ""), ("a", "", 5), ("a", "", b"x")], ids=repr)
def test_what_is_no_text_is_refused_where_it_is_given(meter, texts):
    with pytest.raises(ValueError, match="expected text"):
        meter.create_counter(*texts)


class Old(str, enum.Enum):  # noqa: UP042 - which prints as its member's name
    NAME = "acme.name"


def test_text_of_any_class_becomes_plain_where_it_names_an_instrument(provider, meter):
    meter.create_counter(Old.NAME, Old.NAME, Old.NAME).add(1)
    (family,) = provider.collect()
    assert {type(each) for each in (family.metric.name, family.metric.unit, family.metric.description)} == {str}


def test_callbacks_may_come_from_what_can_be_gone_through_once(provider, meter):
    meter.create_observable_gauge("a", (each for each in [always(Observation(1)), always(Observation(2, {"b": 1}))]))
    assert found(provider) == {"a": [({}, 1), ({"b": 1}, 2)]}


@pytest.mark.parametrize("other", ["create_observable_counter", "create_counter", "create_gauge", "create_histogram"])
def test_a_second_instrument_that_disagrees_is_left_out_and_said(provider, meter, caplog, other):
    meter.create_observable_gauge("it", [always(Observation(1))])
    getattr(meter, other)("it")
    meter.create_observable_gauge("it", [always(Observation(2))], "s")
    assert found(provider) == {"it": [({}, 1)]}
    assert len(caplog.records) == 2
    assert caplog.records[0].getMessage() == "metric it exists as gauge in ''; the second one is not exported"


def test_synchronous_counters(provider, meter, caplog):
    caplog.set_level(logging.WARNING)
    up, both = meter.create_counter("up", "s"), meter.create_up_down_counter("both")
    for amount in (1, 2.5, -1):
        up.add(amount, {"a": 1})
        both.add(amount)
    assert found(provider) == {"up": [({"a": 1}, 3.5)], "both": [({}, 2.5)]}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_a_sum_does_not_become_what_it_could_never_leave_again(provider, meter, caplog, amount):
    for counter in (meter.create_counter("up"), meter.create_up_down_counter("both")):
        counter.add(2)
        counter.add(amount)
        counter.add(1)
    assert found(provider) == {"up": [({}, 3)], "both": [({}, 3)]}
    assert len(caplog.records) == 2


def test_synchronous_gauge(provider, meter):
    gauge = meter.create_gauge("g")
    for value in (1, 5, 3):
        gauge.set(value, {"a": ["x"]})
    assert found(provider) == {"g": [({"a": ("x",)}, 3)]}


@pytest.mark.parametrize(("advice", "boundaries"), [(None, 15), ((), 0), ((1, 2.5), 2)])
def test_histograms_and_their_advice(provider, meter, advice, boundaries, caplog):
    histogram = meter.create_histogram("h", "s", explicit_bucket_boundaries_advisory=advice)
    for amount in (0, 1, 1.5, 2.5, 3, math.nan, math.inf, -1):
        histogram.record(amount, {"a": 1})
    (family,) = provider.collect()
    assert len(family.metric.boundaries) == boundaries
    value = family.columns[0][1].values[0]
    assert isinstance(value, Distribution)
    assert (value.total, value.sum, value.min, value.max) == (5, 8.0, 0, 3)
    assert len(value.counts) == boundaries + 1
    assert boundaries != 2 or value.counts == (2, 2, 1), "a bound belongs to the bucket below it"
    assert len(caplog.records) == 1, "of three, the first"


@pytest.mark.parametrize("advice", [["a"], [None], [5, 1], [1, 1], [1, math.inf], [math.nan], 7, [10**400]], ids=lambda it: f"{it!r:.20}")
def test_boundaries_that_cannot_be_any_are_said_and_not_taken(provider, meter, advice, caplog):
    """Prometheus refuses a whole page for buckets out of order; text would stop the agent."""
    histogram = meter.create_histogram("h", "s", explicit_bucket_boundaries_advisory=advice)
    histogram.record(1)
    (family,) = provider.collect()
    assert len(family.metric.boundaries) == 15
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["boundaries of h are the default's"]


def test_boundaries_of_any_class_become_plain_ones(provider, meter):
    meter.create_histogram("h", explicit_bucket_boundaries_advisory=[Whole(), Scalar(7.5)]).record(1)
    (family,) = provider.collect()
    assert repr(family.metric.boundaries) == "(7, 7.5)"


def test_nothing_is_lost_between_threads_that_count(provider, meter):
    counter, histogram = meter.create_counter("c"), meter.create_histogram("h")

    def count(name: int) -> None:
        for number in range(1000):
            counter.add(1, {"id": number % 7})
            histogram.record(number)
            if number % 100 == 0:
                provider.collect()

    threads = [threading.Thread(target=count, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points = found(provider)
    assert sum(value for _, value in points["c"]) == 4000
    assert points["h"][0][1].total == 4000


def test_columns_go_through_as_they_are(provider):
    """The catalogue's metric, the source's tuple and the reading's time, without a copy."""
    snapshot = everything.snapshot()
    Replay(provider, everything.ROWS, lambda: snapshot)
    families = {family.metric: family for family in provider.collect()}
    for source in ("host", "agent"):
        for metric, column in snapshot.readings[source].columns.items():
            assert isinstance(families[metric], Family)
            assert families[metric].columns[0][0] == everything.TIME
            assert families[metric].columns[0][1] is column


def test_before_the_first_cycle_and_without_a_source_there_is_nothing(provider):
    current: list[Any] = [None]
    Replay(provider, everything.ROWS, lambda: current[0])
    assert provider.collect() == ()
    current[0] = everything.snapshot(other=Reading())
    assert provider.collect() == ()


def test_observations_are_a_sequence_for_any_other_sdk():
    metric = Metric("m", Kind.GAUGE, "", "", "nothing", ("id",))
    values = [1, True, 2**63, -(2**63), -(2**63) - 1, 10**400, math.nan, math.inf, 0.5]
    column = Column(tuple(metric.series({"id": f"{number}\udcff"}) for number in range(len(values))), values)
    sequence = Observations(column)
    assert len(sequence) == len(values)
    carried = list(sequence)
    assert [each.value for each in carried] == [1, 1, float(2**63), -(2**63), float(-(2**63) - 1), 0.5]
    assert [type(each.value) for each in carried] == [int, int, float, int, float, float]
    assert [each.attributes for each in carried[:1]] == [{"id": "0?"}]
    assert sequence[0].value == 1
    assert [each.value for each in sequence[:2]] == [1, 1]
    whole = Metric("f", Kind.GAUGE, "", "", "nothing", ("id",), integer=False)
    assert [type(each.value) for each in Observations(Column((whole.series({"id": 1}),), [1]))] == [float]


def test_a_measurement_is_recorded_once_per_snapshot(provider):
    snapshot = everything.snapshot()
    replay = Replay(provider, everything.ROWS, lambda: snapshot)
    measured = [each for reading in snapshot.readings.values() for each in reading.measurements]
    replay.take(snapshot)
    for _ in range(2):
        totals = [
            value.total
            for family in provider.collect()
            if family.metric.kind is Kind.HISTOGRAM
            for value in itertools.chain.from_iterable(column.values for _, column in family.columns)
        ]
        assert sum(totals) == len(measured)
