"""When cycles begin: on a fixed grid of monotonic time that never drifts, and never bunches after a late one."""

from __future__ import annotations

import time
import zlib


def phase(identity: str, interval: float) -> float:
    """Seconds in [0, interval) by which this host is shifted, the same at every start: a fleet does not push in step.

    CRC-32 spreads machine ids well enough, and hashlib would bring libcrypto, 3.6 MB resident.
    """
    return zlib.crc32(identity.encode()) / 2**32 * interval


class Ticks:
    """The grid ``phase + k * interval`` of Unix time as it is at the start, kept in monotonic time from then on.

    *now* and *wall* are the clocks' readings in seconds; given by tests.
    """

    def __init__(self, interval: float, shift: float, now: float | None = None, wall: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        wall = time.time() if wall is None else wall
        self._interval = interval
        self.due = now + (shift - wall) % interval

    def remaining(self, now: float) -> float:
        """Seconds until the next cycle is due; zero or less when it is."""
        return self.due - now

    def advance(self, now: float) -> int:
        """Move to the first point of the grid after *now*. Returns how many points were missed beside the one due."""
        steps = max(1, int((now - self.due) // self._interval) + 1)
        if self.due + steps * self._interval <= now:
            steps += 1  # the division was rounded down: that point has passed
        self.due += steps * self._interval
        return steps - 1
