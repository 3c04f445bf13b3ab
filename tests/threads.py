"""Threads of the test's own, for what tells threads from processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def threads(count: int) -> Iterator[list[int]]:
    """The kernel's numbers of as many threads, which run until the end."""
    end = threading.Event()
    running = [threading.Thread(target=end.wait) for _ in range(count)]
    try:
        for each in running:
            each.start()
        yield [each.native_id for each in running if each.native_id]  # start() returns when it has one
    finally:
        end.set()
        for each in running:
            each.join()
