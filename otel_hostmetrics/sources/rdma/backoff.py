"""When to ask again what has refused to answer."""

from __future__ import annotations

_LONGEST = 60  # cycles


class Backoff:
    """Counts cycles: after a failure the next try is 1 cycle later, then 2, 4, ... 60. One per port and group of counters.

    Restricted functions (ConnectX-7 of DGX systems) refuse each counter with EINVAL, and write to the kernel's log each time.
    """

    __slots__ = ("_left", "_wait")

    def __init__(self) -> None:
        self._wait = 0
        self._left = 0

    def due(self) -> bool:
        """Whether to ask in this cycle. Called once per cycle while something is failing."""
        self._left -= 1
        return self._left <= 0

    @property
    def waiting(self) -> bool:
        """Whether the failure has been told already."""
        return self._wait > 0

    def failed(self) -> None:
        """It was asked and something did not answer."""
        self._wait = min(self._wait * 2 or 1, _LONGEST)
        self._left = self._wait

    def succeeded(self) -> None:
        """Everything answered."""
        self._wait = self._left = 0
