"""The thread that asks for names: at once for what is new, again for what stays unknown, never in the way."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import Series
from otel_hostmetrics.enrich.names import Names
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.telemetry import Telemetry
from tests.process import eventually

NONE: frozenset[str] = frozenset()
_Find = Callable[[frozenset[str], frozenset[str]], Names]


class Fake:
    """A lookup that does as told."""

    def __init__(self, find: _Find, name: str = "fake") -> None:
        self.name = name
        self._find = find
        self.asked: list[tuple[frozenset[str], frozenset[str]]] = []

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:
        self.asked.append((containers, pods))
        return self._find(containers, pods)


def knows(**attributes: str) -> _Find:
    return lambda containers, pods: Names({each: dict(attributes) for each in containers}, {each: dict(attributes) for each in pods})


def refuses(*_: object) -> Names:
    raise Unavailable(Reason.DENIED, "/socket", needs="/socket")


@pytest.fixture
def refresh() -> Iterator[Callable[..., Refresh]]:
    made: list[Refresh] = []

    def make(*lookups: Fake, interval: float = 60, telemetry: Telemetry | None = None) -> Refresh:
        made.append(Refresh(lookups, interval, telemetry or Telemetry(), pace=0.01))
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "workloads"]


def test_no_thread_before_something_is_wanted(refresh) -> None:
    fake = Fake(knows())
    each = refresh(fake)
    each.wait(5)
    assert threading.active_count() == 1 or "workloads" not in {thread.name for thread in threading.enumerate()}
    assert fake.asked == []


def test_what_is_wanted_is_there_after_waiting_and_the_later_lookup_wins(refresh) -> None:
    each = refresh(Fake(knows(a="1", b="1")), Fake(knows(b="2")))
    each.want(frozenset({"c"}), frozenset({"p"}))
    each.wait(5)
    assert each.names == Names({"c": {"a": "1", "b": "2"}}, {"p": {"a": "1", "b": "2"}})


def test_one_that_fails_is_said_once_and_takes_nothing_away(refresh, caplog: pytest.LogCaptureFixture) -> None:
    answers: list[_Find] = [knows(a="1"), refuses, refuses, knows(a="2")]

    def find(containers: frozenset[str], pods: frozenset[str]) -> Names:
        return answers.pop(0)(containers, pods)

    fake = Fake(find)
    each = refresh(fake, Fake(knows(b="1"), "other"))
    with caplog.at_level(logging.INFO, "otel_hostmetrics.enrich"):
        for number in range(1, 5):
            each.want(frozenset({"c", str(number)}), NONE)
            eventually(lambda number=number: len(fake.asked) >= number)
            each.wait(5)
            assert each.names.containers["c"] == ({"a": "1", "b": "1"} if number < 4 else {"a": "2", "b": "1"})
    assert [record.getMessage() for record in caplog.records] == [
        "names of workloads from fake: /socket: denied, needs /socket",
        "names of workloads from fake: all is well again",
    ]


def test_a_bug_in_one_does_not_stop_the_others(refresh, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Names:
        raise KeyError("bug")

    each = refresh(Fake(broken), Fake(knows(a="1")))
    each.want(frozenset({"c"}), NONE)
    each.wait(5)
    assert each.names.containers == {"c": {"a": "1"}}
    assert "KeyError('bug')" in caplog.text


def test_what_stays_unknown_is_asked_for_again(refresh) -> None:
    fake = Fake(lambda *_: Names())
    each = refresh(fake, interval=0.05)
    each.want(frozenset({"c"}), NONE)
    eventually(lambda: len(fake.asked) >= 2)
    assert set(fake.asked) == {(frozenset({"c"}), NONE)}


def test_the_same_answer_is_the_same_object(refresh) -> None:
    """So that nothing downstream is worked out again."""
    fake = Fake(knows(a="1"))
    each = refresh(fake, interval=0.05)
    each.want(frozenset({"c"}), NONE)
    each.wait(5)
    first = each.names
    eventually(lambda: len(fake.asked) >= 2)
    time.sleep(0.05)
    assert each.names is first


def test_one_that_hangs_holds_nobody(refresh) -> None:
    entered, free = threading.Event(), threading.Event()

    def hang(*_: object) -> Names:
        entered.set()
        free.wait(5)
        return Names()

    each = refresh(Fake(hang))
    began = time.monotonic()
    each.want(frozenset({"c"}), NONE)
    assert entered.wait(5)
    each.wait(0.05)
    each.want(frozenset({"d"}), NONE)
    each.close()
    assert time.monotonic() - began < 1
    free.set()


def test_questions_are_counted_and_timed_by_lookup_and_outcome(refresh) -> None:
    def partial(*_: object) -> Names:
        return Names(problem=Unavailable(Reason.MALFORMED, "/file"))

    def broken(*_: object) -> Names:
        raise KeyError("bug")

    def slow(*_: object) -> Names:
        time.sleep(0.05)
        return Names()

    telemetry = Telemetry()
    each = refresh(Fake(slow, "slow"), Fake(refuses, "docker"), Fake(partial, "bundles"), Fake(broken, "cri"), telemetry=telemetry)
    each.want(frozenset({"c"}), NONE)
    each.wait(5)
    each.close()
    columns, measured = telemetry.read()
    expected = [("slow", None), ("docker", "denied"), ("bundles", "malformed"), ("cri", "KeyError")]
    counted = {_outcome(series): value for series, value in zip(*columns[rows.LOOKUPS], strict=True)}
    assert counted == dict.fromkeys(expected, counted["slow", None])
    seconds = {_outcome(measurement.series): measurement.value for measurement in measured}
    assert list(seconds) == expected
    assert 0.05 <= seconds["slow", None] < 5
    assert all(0 <= seconds[outcome] < 0.05 for outcome in expected[1:])


def _outcome(series: Series) -> tuple[object, object]:
    return series.attributes[rows.LOOKUP], series.attributes.get(rows.ERROR_TYPE)
