"""Readings between cycles, where cycles are too far apart for counters that wrap."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from otel_hostmetrics.sources.rapl.meters import Scale

_LONGEST, _SHORTEST = 30.0, 1.0  # s: AMD's 65.5 kJ are used up in 164 s at 400 W
_SHARE = 3  # of the time of one wrap


def pace(scales: Iterable[Scale]) -> float:
    """Seconds that may pass between two readings: half a minute, and less than a third of the quickest wrap."""
    thirds = [turn / _SHARE for scale in scales if (turn := scale.turn) is not None]
    return max(min([_LONGEST, *thirds]), _SHORTEST)


class Sampler:
    """Calls *sample* every *period* seconds in a thread of its own until closed."""

    def __init__(self, period: float, sample: Callable[[], object]) -> None:
        self._period = period
        self._sample = sample
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rapl-sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._sample()

    def close(self) -> None:
        """Returns once no call is under way, or after a second."""
        self._stop.set()
        self._thread.join(1)
