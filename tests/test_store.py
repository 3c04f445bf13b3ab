"""Readers of batches in threads of their own."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from otel_hostmetrics.model import Batch, Snapshot
from otel_hostmetrics.store import Fresh, Store


class Cycle:
    """Makes numbered batches, each as long as it takes, and sees how many are made at the same time."""

    def __init__(self, takes: float = 0.0, fails: bool = False) -> None:
        self.takes = takes
        self.fails = fails
        self.most = self._now = 0
        self._numbers = itertools.count(1)

    def __call__(self) -> Batch:
        self._now += 1
        self.most = max(self.most, self._now)
        began = time.monotonic_ns()
        time.sleep(self.takes)
        self._now -= 1
        if self.fails:
            raise RuntimeError("no batch")
        return Batch(Snapshot(next(self._numbers), time.time_ns(), began, {}, {}), ())


def in_threads(number: int, call) -> list[object]:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return found


def test_concurrent_readers_share_one_collection():
    cycle = Cycle(0.05)
    fresh = Fresh(Store(), cycle, max_age=1)
    batches = in_threads(20, fresh.batch)
    assert len(batches) == 20
    assert {batch.snapshot.number for batch in batches} == {1}
    assert all(batch is batches[0] for batch in batches)


def test_a_reader_who_comes_during_a_collection_takes_it_if_it_is_young_enough():
    """With max_age 0 only what was begun after the question counts."""
    cycle = Cycle(0.05)
    fresh = Fresh(Store(), cycle, max_age=0)
    first = threading.Thread(target=fresh.batch)
    first.start()
    time.sleep(0.02)
    assert fresh.batch().snapshot.number == 2
    first.join()


def test_a_young_batch_is_reused_and_an_old_one_is_not():
    fresh = Fresh(Store(), Cycle(), max_age=0.1)
    first = fresh.batch()
    assert fresh.batch() is first
    time.sleep(0.11)
    assert fresh.batch() is not first


def test_renew_always_collects_and_never_beside_another():
    cycle = Cycle(0.01)
    fresh = Fresh(Store(), cycle, max_age=10)
    batches = in_threads(8, fresh.renew)
    assert sorted(batch.snapshot.number for batch in batches) == list(range(1, 9))
    assert cycle.most == 1
    assert fresh.batch().snapshot.number == 8


def test_a_collection_that_fails_locks_nobody_out():
    cycle = Cycle(fails=True)
    fresh = Fresh(Store(), cycle, max_age=10)
    with pytest.raises(RuntimeError):
        fresh.batch()
    cycle.fails = False
    assert fresh.batch().snapshot.number == 1


def test_newer_than_waits_for_a_later_batch_and_gives_the_newest():
    store, cycle = Store(), Cycle()
    assert store.latest() is None
    assert store.newer_than(0, timeout=0.01) is None
    threading.Timer(0.05, lambda: [store.publish(cycle()) for _ in range(3)]).start()
    batch = store.newer_than(0, timeout=5)
    assert batch is not None
    time.sleep(0.05)
    latest = store.newer_than(batch.snapshot.number - 1, timeout=5)
    assert latest is not None
    assert latest.snapshot.number == 3
    assert store.newer_than(3, timeout=0.01) is None
    assert store.latest() is latest
