"""Watts: energy over the time between two readings at least a second apart, computed once for all who ask."""

from __future__ import annotations

from collections.abc import Iterable

from otel_hostmetrics.sources.rapl.meters import Meter

SHORTEST = 1.0  # s: RAPL is updated every millisecond, so a second is right to a tenth of a percent
_SHORTEST_NS = int(SHORTEST * 1e9)


class Window:
    """The time over which all zones' power is averaged. A reading that comes sooner leaves window and watts as they are."""

    def __init__(self) -> None:
        self._since_ns = 0
        self.number = 0  # changes when watts do

    def update(self, meters: Iterable[Meter], now_ns: int) -> None:
        """Close the window if it is long enough, and begin the next one."""
        since_ns = self._since_ns
        if now_ns - since_ns < _SHORTEST_NS:
            return
        self._since_ns = now_ns
        self.number += 1
        for meter in meters:
            meter.close_window(since_ns, now_ns)
