"""A source in the collector: opened when possible, read once per cycle, in a thread of its own where it may hang."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Reading, Source, State, Status

_log = logging.getLogger(__name__)

_AT_ONCE = (Reason.GONE, Reason.UNREADABLE, Reason.LATE)  # what may be over by the next cycle
_STALE = 3  # a late reading that waited this many deadlines to be taken is thrown away


class Slot:
    """One source, opened when possible, read once per call."""

    def __init__(self, source: Source, reopen: float) -> None:
        self.source = source
        self._reopen_ns = int(reopen * 1e9)
        self._open = False
        self._try_at_ns = 0
        self._off = Status(State.OFF)
        self._said = ""  # the bug that was logged last

    def read(self) -> tuple[Reading, Status]:
        began = time.monotonic_ns()
        if not self._open and began < self._try_at_ns:
            return Reading(), self._off
        try:
            if not self._open:
                self.source.open()
                self._open = True
            reading = self.source.read()
        except Unavailable as error:
            return Reading(), self._close(error, began)
        except Exception as error:  # a bug in one source must not stop the others
            return Reading(), self._bug(error, began)
        self._said = ""
        reading.time_ns = reading.time_ns or time.time_ns()
        first = reading.off or (reading.problems[0] if reading.problems else None)
        took_ns = time.monotonic_ns() - began
        if first is None:
            return reading, Status(State.OK, took_ns=took_ns)
        return reading, Status(State.OFF if reading.off else State.PARTIAL, first.reason, str(first), first.needs, took_ns)

    def _close(self, error: Unavailable, began: int) -> Status:
        self.close()
        state = State.OFF if error.reason in (Reason.ABSENT, Reason.UNSUPPORTED) else State.FAILED
        self._try_at_ns = 0 if error.reason in _AT_ONCE else began + self._reopen_ns
        self._off = Status(state, error.reason, str(error), error.needs)
        return Status(state, error.reason, str(error), error.needs, time.monotonic_ns() - began)

    def _bug(self, error: Exception, began: int) -> Status:
        """The traceback once, not in every cycle. What open() had opened before it failed is given back."""
        said = repr(error)
        if said != self._said:
            _log.error("source %s failed", self.source.name, exc_info=error)
        self._said = said
        if not self._open:
            self.close()
            self._try_at_ns = began + self._reopen_ns
            self._off = Status(State.FAILED, None, said)
        return Status(State.FAILED, None, said, took_ns=time.monotonic_ns() - began)

    def close(self) -> None:
        self._open = False
        try:
            self.source.close()
        except Exception:
            _log.exception("source %s cannot be closed", self.source.name)


class Worker:
    """Reads a slot in a thread of its own. A driver that hangs holds one cycle for *deadline* seconds, and those after it not at all."""

    def __init__(self, slot: Slot, deadline: float) -> None:
        self.slot = slot
        self._deadline = deadline
        self._asked_at = self._done_at = 0.0
        # Queues in C, which no more than one item is ever in: an Event's wait is a new lock and Python code each time.
        self._wanted: SimpleQueue[bool] = SimpleQueue()
        self._done: SimpleQueue[tuple[Reading, Status]] = SimpleQueue()
        self._busy = False
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"source-{slot.source.name}", daemon=True)

    def request(self) -> None:
        """Begin a reading, unless one is still under way or waits to be taken; one that waited too long is no news any more."""
        if not self._thread.is_alive():
            self._thread.start()
        if not self._done.empty() and time.monotonic() - self._done_at > _STALE * self._deadline:
            self.take()
        if not self._busy:
            self._busy = True
            self._asked_at = time.monotonic()
            self._wanted.put(True)

    def take(self) -> tuple[Reading, Status] | None:
        """The reading under way once it is done; None if it is not done in time."""
        try:
            result = self._done.get(timeout=max(self._asked_at + self._deadline - time.monotonic(), 0))
        except Empty:
            return None
        self._busy = False
        return result

    def _run(self) -> None:
        while self._wanted.get() and not self._stop:
            result = self.slot.read()
            self._done_at = time.monotonic()
            self._done.put(result)
        self.slot.close()

    def close(self) -> None:
        """Let the thread end once its call returns; a call that never does dies with the process."""
        self._stop = True
        self._wanted.put(False)
        if self._thread.is_alive():
            self._thread.join(0.1)


def late(deadline: float) -> tuple[Reading, Status]:
    return Reading(), Status(State.LATE, Reason.LATE, f"no answer within {deadline:g} s", took_ns=int(deadline * 1e9))
