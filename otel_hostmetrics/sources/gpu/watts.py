"""Power of cards that only count energy, as Intel's do: the mean between two readings at least a second apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from otel_hostmetrics.sources.gpu.points import Value

NAME = "power.mean"
_MOST = 10_000.0  # W
SHORTEST = 1.0  # s: as for watts of processors; two who ask soon after one another do not make means of a few milliseconds
_ENERGY = re.compile(r"energy\.(?:1|card|pkg)\.input")
_POWER = re.compile(r"(?:socket_)?power\.\w+\.(?:input|average)")


class Watts:
    """Of the values *names* of a card, in microjoules; none where it has a sensor of power, or nothing of either."""

    def __init__(self, names: Sequence[str]) -> None:
        counted = [place for place, name in enumerate(names) if _ENERGY.fullmatch(name)]
        self._place = counted[0] if counted and not any(_POWER.fullmatch(name) for name in names) else None
        self.names = () if self._place is None else (NAME,)
        self._since = float("-inf")
        self._before: Value = None
        self._watts: Value = None

    @property
    def waits(self) -> bool:
        """Whether no window has ended yet."""
        return self._place is not None and self._watts is None

    def read(self, values: Sequence[Value], now: float) -> list[Value]:
        """Watts of the last window, which ends now (monotonic s) if it is long enough; None where one of its ends is not known."""
        if self._place is None:
            return []
        elapsed, count = now - self._since, values[self._place]
        if elapsed >= SHORTEST:
            watts = (count - self._before) / elapsed / 1_000_000 if count is not None and self._before is not None else -1.0
            self._watts = watts if 0 <= watts <= _MOST else None  # else it was reset
            self._since, self._before = now, count
        return [self._watts]
