"""What the port at the other end of one of our cables counts."""

from __future__ import annotations

from collections.abc import Mapping

from otel_hostmetrics.kernel.fabric_tools import parse_perfquery


class FarPort:
    """Puts two answers together: PortCounters, of 4 to 32 bits that stop at their end, and PortCountersExtended, of 64.

    What a port has in both it has under the same name. It is told in 64 bits or, in a round in which these could not be
    read, not at all: a series that went back to 32 bits would look like a counter that began anew. Which names those are is
    known from the first answer on; before it, nothing of a port is told that says it has them.
    """

    def __init__(self) -> None:
        self._extended: set[str] = set()  # that were ever read in 64 bits
        self._waiting = False
        self._counters: dict[str, int] = {}

    def begin(self) -> None:
        """Begin a round."""
        self._counters = {}

    def plain(self, text: str, extended: bool) -> None:
        """The answer of perfquery; *extended*: that of perfquery -x is to come."""
        self._waiting = extended and not self._extended
        self._counters = {name: value for name, value in parse_perfquery(text).items() if name not in self._extended}

    def extended(self, text: str) -> None:
        """The answer of perfquery -x, after the other."""
        counters = parse_perfquery(text)
        self._extended |= counters.keys()
        self._counters |= counters
        self._waiting = False

    def counters(self) -> Mapping[str, int]:
        """Of this round, by the specification's names."""
        return {} if self._waiting else self._counters
