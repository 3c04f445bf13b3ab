"""From a counter that wraps, jumps and vanishes to joules that only grow.

A meter adds up steps as integers in the counter's own unit, so nothing is lost to rounding. It outlives the counter it
reads: after a hot-plug or a reload of the driver the same meter goes on, and so does its series.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

_SLACK = 0.1  # s: counters are updated every millisecond or so, and a reading may be late by a scheduler's whim
_NEVER = -1
_UNREAD = 90.0  # s: power is not stretched over a gap longer than this


class Counter(Protocol):
    """A kernel counter or sensor, kept open. Both methods may raise Unavailable."""

    def read(self) -> int: ...
    def close(self) -> None: ...


class Scale(NamedTuple):
    """What a counter's numbers mean."""

    joules: float  # of one count; of a sensor of power: watts of one count
    modulus: int | None = None  # counts of a whole turn; None = 64 bits, never wraps
    watts: float = 1000.0  # the most that the zone can draw
    is_power: bool = False
    since_open: bool = False  # counts from 0 each time it is opened

    @property
    def turn(self) -> float | None:
        """Seconds in which the counter can wrap at full power."""
        return self.modulus * self.joules / self.watts if self.modulus else None


class Meter:
    """Joules since this meter began (*start_ns*, Unix time). Times given to take() are CLOCK_BOOTTIME: suspend counts.

    A step larger than full power explains is a reset, and so is any step after a gap in which the counter may have
    wrapped more than once: what was used is not known, so nothing is added.
    """

    __slots__ = ("_at_ns", "_last", "_longest_ns", "_marked", "_marked_ns", "_modulus", "_per_ns", "_slack", "per_joule", "resets",
                 "start_ns", "total", "watts", "wraps")  # fmt: skip

    def __init__(self, scale: Scale, start_ns: int) -> None:
        self.start_ns = start_ns
        self.per_joule = _inverse(scale.joules)  # counts
        self.total = 0  # counts
        self.wraps = 0
        self.resets = 0
        self.watts: float | None = None  # mean of the last window, see power.py
        self._marked = 0
        self._marked_ns = _NEVER  # when the window began, if all that is used in it is known
        self._last: int | None = None
        self._at_ns = 0
        self._modulus = scale.modulus or 0
        self._per_ns = scale.watts / scale.joules / 1e9  # counts at full power
        self._slack = scale.watts / scale.joules * _SLACK
        self._longest_ns = (scale.turn or float("inf")) * 1e9

    @property
    def joules(self) -> float:
        return self.total / self.per_joule

    def take(self, count: int, now_ns: int) -> None:
        """Account for what the counter shows now."""
        last, gap_ns = self._last, now_ns - self._at_ns
        self._last, self._at_ns = count, now_ns
        if last is None:
            return
        step = count - last
        if step < 0 and self._modulus > 0:
            step += self._modulus
        if 0 <= step <= gap_ns * self._per_ns + self._slack and gap_ns < self._longest_ns:
            self.total += step
            if count < last:
                self.wraps += 1
        else:
            self.resets += 1
            self._marked_ns = _NEVER

    def begin_again(self) -> None:
        """The next count is of a counter that does not continue the last one, and not for a reset of the hardware."""
        self._last = None
        self._marked_ns = _NEVER

    def close_window(self, since_ns: int, now_ns: int) -> None:
        """Set *watts* to the mean of a window, None if this meter was not read at both its ends or saw a reset in it."""
        read = self._at_ns == now_ns
        known = read and self._marked_ns == since_ns
        self.watts = (self.total - self._marked) / self.per_joule / (now_ns - since_ns) * 1e9 if known else None
        self._marked, self._marked_ns = self.total, now_ns if read else _NEVER


class PowerMeter(Meter):
    """Joules from a sensor of power: each value is held since the one before."""

    __slots__ = ("_most",)

    def __init__(self, scale: Scale, start_ns: int) -> None:
        super().__init__(scale._replace(modulus=None), start_ns)
        self._most = scale.watts / scale.joules
        self.per_joule = _inverse(scale.joules / 1e9)  # counts are held for nanoseconds
        self._longest_ns = _UNREAD * 1e9

    def take(self, count: int, now_ns: int) -> None:
        first, gap_ns = self._last is None, now_ns - self._at_ns
        self._last, self._at_ns = count, now_ns
        if first:
            return
        if 0 <= count <= self._most and 0 <= gap_ns < self._longest_ns:
            self.total += count * gap_ns
            return
        self.resets += 1
        self._marked_ns = _NEVER


def _inverse(unit: float) -> float:
    """Exact where it is a whole number: 12345.678 J of 12345678000 uJ, not 12345.678000000002."""
    inverse = 1 / unit
    whole = round(inverse)
    return whole if math.isclose(inverse, whole, rel_tol=1e-12) else inverse


def meter(scale: Scale, start_ns: int) -> Meter:
    """The meter for such a counter."""
    return PowerMeter(scale, start_ns) if scale.is_power else Meter(scale, start_ns)
