"""What sysfs says of the health of AMD's and Intel's GPUs.

Degraded are those whose clocks the board holds down, by PROCHOT or an alert of a voltage regulator, as with NVIDIA: not those which
their firmware keeps within its limits of power and heat. Where the firmware counts cycles, it is whether they rose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from otel_hostmetrics.sources.gpu.health import STATES, states, told
from otel_hostmetrics.sources.gpu.points import Value

_HELD = re.compile(r"throttle\.(?:prochot|vr_thermal)|gt\.[^.]+\.throttle\.(?:prochot|vr_thermalert)")
_CYCLES = re.compile(r"residency\.(?:prochot|vr_thermal)")
_WORN = ("pages.unusable",)
_BROKEN = ("firmware.broken",)


class Health:
    """Of one GPU, of the values *names* of its card."""

    names = tuple(f"state.{state}" for state in STATES)

    def __init__(self, names: Sequence[str]) -> None:
        at = {name: place for place, name in enumerate(names)}
        self._held = [at[name] for name in names if _HELD.fullmatch(name)]
        self._cycles = [at[name] for name in names if _CYCLES.fullmatch(name)]
        self._worn = [at[name] for name in _WORN if name in at]
        self._broken = [at[name] for name in _BROKEN if name in at]
        self._before: list[Value] = [None] * len(self._cycles)

    def read(self, values: Sequence[Value], answers: bool | None, *, stuck: bool) -> tuple[Value, ...]:
        """*answers*: whether it does on its bus, if that is known; *stuck*: the kernel cannot put it to sleep, or wake it, any more."""
        cycles = [values[place] for place in self._cycles]
        rose = [None if None in pair else pair[0] != pair[1] for pair in zip(self._before, cycles, strict=True)]
        self._before = cycles
        degraded = told([*(values[place] for place in self._held), *rose])
        worn, broken = (told([values[place] for place in places]) for places in (self._worn, self._broken))
        lost = True if broken else None if answers is None else not answers
        return states(True if stuck else degraded, worn, lost, wears=bool(self._worn))
