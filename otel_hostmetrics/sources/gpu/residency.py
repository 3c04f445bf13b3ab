"""How long clocks were held down, from what AMD's firmware counts: cycles, those of them with clocks held down, and its own clock."""

from __future__ import annotations

from collections.abc import Sequence

from otel_hostmetrics.kernel.amdgpu_metrics import CLOCK, CYCLES
from otel_hostmetrics.sources.gpu.points import Value

_PREFIX = "residency."
_CLOCK_HZ = 100_000_000
_WRAP = 1 << 32  # of the cycles


class Residency:
    """Seconds since the first reading, by reason: AMD documents shares of cycles, so each window's is taken of its length.

    Of the values *names* of a card, what read() gives under ``names``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        at = {name: place for place, name in enumerate(names) if name.startswith(_PREFIX)}
        self._clocks = (at.pop(CLOCK, None), at.pop(CYCLES, None))
        reasons = at if None not in self._clocks else {}
        self._places = tuple(reasons.values())
        self.names = tuple(f"throttled.{name.removeprefix(_PREFIX)}_s" for name in reasons)
        self._seconds = [0.0] * len(reasons)
        self._before: list[int] = []

    def read(self, values: Sequence[Value]) -> list[Value]:
        """None where the card gave no value this time: the time until the next one counts all the same."""
        if not self.names:
            return []
        now = [values[place] for place in (*self._clocks, *self._places)]  # type: ignore[index]
        if None in now:
            return [None] * len(self.names)
        self._add(now)  # type: ignore[arg-type]
        return list(self._seconds)

    def _add(self, now: list[int]) -> None:
        before, self._before = self._before or now, now
        elapsed = (now[0] - before[0]) / _CLOCK_HZ
        cycles, *held = ((new - old) % _WRAP for old, new in zip(before[1:], now[1:], strict=True))
        if elapsed > 0 and cycles and all(each <= cycles for each in held):  # else nothing new, or the GPU was reset
            self._seconds = [total + elapsed * each / cycles for total, each in zip(self._seconds, held, strict=True)]
