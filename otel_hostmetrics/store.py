"""Where the latest batch is handed from the thread that collects to the threads that export."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from otel_hostmetrics.model import Batch


class Store:
    """The latest batch. One thread at a time publishes, any number read; none waits for another's reading."""

    def __init__(self) -> None:
        self._latest: Batch | None = None
        self._changed = threading.Condition()
        self._waiting = 0

    def publish(self, batch: Batch) -> None:
        """Who waits counts itself before it looks for a batch, so nobody is missed."""
        self._latest = batch
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def latest(self) -> Batch | None:
        """The newest batch, None before the first cycle."""
        return self._latest

    def newer_than(self, number: int, timeout: float | None = None) -> Batch | None:
        """Wait for a later snapshot than *number*; None on timeout. Slow readers skip, they never queue."""
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._latest is not None and self._latest.snapshot.number > number, timeout)
            finally:
                self._waiting -= 1
            latest = self._latest
        return latest if latest is not None and latest.snapshot.number > number else None


class Fresh:
    """Batches young enough for a reader that asks now, such as a scrape.

    Only one collection runs at a time. Concurrent callers share it: the first collects, the others wait and take its batch.
    """

    def __init__(self, store: Store, collect: Callable[[], Batch], max_age: float) -> None:
        self._store = store
        self._collect = collect
        self._max_age_ns = int(max_age * 1e9)
        self._latest: Batch | None = None
        self._lock = threading.Lock()

    def batch(self, renew: bool = False) -> Batch:
        """The latest batch if it was begun at most *max_age* seconds ago, else a new one."""
        since_ns = time.monotonic_ns() - self._max_age_ns
        with self._lock:
            latest = self._latest
            if renew or latest is None or latest.snapshot.monotonic_ns < since_ns:
                latest = self._latest = self._collect()
                self._store.publish(latest)
            return latest

    def renew(self) -> Batch:
        """A new batch, always."""
        return self.batch(renew=True)
