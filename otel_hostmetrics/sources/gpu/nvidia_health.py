"""What NVML's values say of a GPU's health: the states of hw.status."""

from __future__ import annotations

from collections.abc import Sequence

from otel_hostmetrics.sources.gpu.health import states, told
from otel_hostmetrics.sources.gpu.points import Value

_HELD_DOWN = 0x08 | 0x40 | 0x80  # nvmlClocksEventReason: HW slowdown, HW thermal slowdown, HW power brake
_HELD = {"clocks.reasons": _HELD_DOWN, "recovery_action": -1}  # which bits of them say that a GPU is degraded
_WEAR = ("retired.pending", "remapped.pending", "remapped.failed")


class Health:
    """Of one GPU, whose values have the names *fast* (those of every cycle) and *slow*."""

    def __init__(self, fast: Sequence[str], slow: Sequence[str]) -> None:
        self._held = [(fast.index(name), mask) for name, mask in _HELD.items() if name in fast]
        self._wear = [slow.index(name) for name in _WEAR if name in slow]
        self._worn: bool | None = None  # as of the last look at what rarely changes
        self._signs: tuple[Value, ...] = ()  # what the states were made of, and the states
        self._states: tuple[Value, ...] = ()

    def look(self, slow: Sequence[Value]) -> None:
        """At what rarely changes."""
        self._worn = told([slow[place] for place in self._wear])

    def states(self, fast: Sequence[Value], silent: bool) -> tuple[Value, ...]:
        """In the order of STATES; judged again only when one of the signs is another. *silent*: nothing was answered."""
        signs = (self._worn, silent, *[fast[place] for place, _ in self._held])
        if signs != self._signs:
            self._signs, self._states = signs, self._judged(fast, silent)
        return self._states

    def _judged(self, fast: Sequence[Value], silent: bool) -> tuple[Value, ...]:
        """Old drivers and vGPUs tell no clock reasons, GPUs without ECC no wear: degraded and predicted_failure rest on what there is.

        That a GPU is not lost is known from any answer.
        """
        return states(self._degraded(fast), self._worn, None if silent else False, wears=bool(self._wear))

    def _degraded(self, fast: Sequence[Value]) -> bool | None:
        return told([None if (value := fast[place]) is None else int(value) & mask for place, mask in self._held])
