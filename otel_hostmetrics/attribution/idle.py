"""What a GPU draws while it does nothing: learned, or told by the configuration.

The share of time in which a GPU was busy says little of its energy: a kernel on one of its many units makes it busy all the
time, and at half the time it draws far more than half of its power. What it draws at rest is the same all the time.
"""

from __future__ import annotations

_SHORTEST = 1.0  # s: energy counters are updated every 20 to 100 ms


class Idle:
    """*watts* of each GPU; 0: the least seen in an interval at whose both ends it was not busy."""

    def __init__(self, watts: float) -> None:
        self._told = watts
        self._least: dict[str, float] = {}  # microjoules per second, by hw.id
        self._resting: set[str] = set()  # at the end of the last interval

    def microjoules(self, part: str, measured: int, seconds: float, *, busy: bool) -> int | None:
        """Of what was *measured* in an interval, what the GPU would have taken at rest; None if that is not known."""
        rested = part in self._resting
        (self._resting.discard if busy else self._resting.add)(part)
        if rested and not busy:
            if seconds >= _SHORTEST and measured:
                self._least[part] = min(self._least.get(part, measured / seconds), measured / seconds)
            return measured
        watts = self._told or self._least.get(part, 0.0) / 1e6
        return min(round(watts * 1e6 * seconds), measured) if watts else None  # it worked, though perhaps not to the end
