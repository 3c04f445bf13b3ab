"""What a GPU takes while nobody uses it: configured, or the least that was seen.

No process on a GPU is a fact only where ``hw.gpu.processes`` says 0. Power is that of whole windows without any: a GPU that was
just left takes a while to slow down, and counters of energy move in steps of up to 100 ms, hence the length and the minimum.
"""

from __future__ import annotations

from collections.abc import Mapping

from otel_hostmetrics.attribution.energy import Columns, Step, points
from otel_hostmetrics.catalogue import gpu

_WINDOW_NS = 5_000_000_000
_SECOND_NS = 1_000_000_000


class Idle:
    """GPUs by hw.id. *watts* is what is configured for each of them; 0 = learn it."""

    def __init__(self, watts: float = 0.0) -> None:
        self._configured = round(watts * 1_000_000)
        self._least: dict[str, int] = {}  # microwatts
        self._free_since: dict[str, int] = {}  # ns: without processes in every cycle from then on
        self._window: dict[str, tuple[int, int]] = {}  # microjoules and ns of the window that is not over

    def look(self, columns: Mapping[str, Columns], now_ns: int) -> None:
        """Which GPUs have no process now (monotonic ns). Those of which nothing is told may have some."""
        free = [str(attributes[gpu.ID]) for attributes, processes in points(columns, gpu.PROCESSES) if processes == 0]
        self._free_since = {part: self._free_since.get(part, now_ns) for part in free}
        self._window = {part: window for part, window in self._window.items() if part in self._free_since}

    def unused(self, step: Step, now_ns: int) -> bool:
        """Whether there was no process at both ends of *step*, which ends now, nor in any cycle between."""
        since_ns = self._free_since.get(step.id)
        return since_ns is not None and since_ns <= now_ns - step.ns

    def learn(self, step: Step) -> None:
        """The energy of a GPU that nobody used."""
        energy, ns = self._window.pop(step.id, (0, 0))
        energy, ns = energy + step.microjoules, ns + step.ns
        if ns < _WINDOW_NS:
            self._window[step.id] = energy, ns
        elif power := energy * _SECOND_NS // ns:  # no power at all is a counter that stands still
            self._least[step.id] = min(power, self._least.get(step.id, power))

    def energy(self, step: Step) -> int | None:
        """The microjoules of *step* that the GPU would have taken anyway; None where that is not known."""
        power = self._configured or self._least.get(step.id)
        return min(step.microjoules, power * step.ns // _SECOND_NS) if power else None

    @property
    def watts(self) -> dict[str, float]:
        """What was learned."""
        return {part: power / 1_000_000 for part, power in self._least.items()}
