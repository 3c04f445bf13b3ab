"""Where the values lie in the answer to STAT_GET: found once, then read with one struct.

1.2 us for 31 counters, where decoding the message takes 52 (measured).
"""

from __future__ import annotations

import struct

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import nldev_const as c
from otel_hostmetrics.kernel.nldev_messages import nested, text


class CounterLayout:
    """One port's counters: the same names in the same places, as long as nobody enables or disables an optional one."""

    __slots__ = ("_between", "_struct", "names", "request")

    def __init__(self, request: bytes, body: bytes) -> None:
        """Learn from an answer to *request*. Raises Unavailable(MALFORMED)."""
        self.request = request
        try:
            names, places = _places(body)
        except ValueError as error:
            raise Unavailable(Reason.MALFORMED, "RDMA counters", str(error)) from None
        self.names = tuple(names)
        ends = [0, *(place + 8 for place in places)]
        gaps = [place - end for end, place in zip(ends, [*places, len(body)], strict=True)]
        self._struct = struct.Struct("=" + "Q".join(f"{gap}s" for gap in gaps))
        self._between = self._struct.unpack(body)[::2]

    def values(self, body: bytes) -> list[int] | None:
        """The values in the order of the names; None if anything but the values is not as it was.

        Names of equal length can take each other's place (cc_rx_cnp_pkts, cc_tx_cnp_pkts), so all is compared.
        """
        if len(body) != self._struct.size:
            return None
        fields = self._struct.unpack(body)
        return list(fields[1::2]) if fields[::2] == self._between else None


def _places(body: bytes) -> tuple[list[str], list[int]]:
    """Names, and where their values of 64 bits begin. Raises ValueError."""
    names: list[str] = []
    places: list[int] = []
    for at, end in nested(body, 0, len(body), c.STAT_HWCOUNTERS, c.STAT_HWCOUNTER_ENTRY):
        name = next(nested(body, at, end, c.STAT_HWCOUNTER_ENTRY_NAME), None)
        value = next(nested(body, at, end, c.STAT_HWCOUNTER_ENTRY_VALUE), None)
        if name is None or value is None or value[1] - value[0] != 8:
            raise ValueError("counter without name or value")
        names.append(text(body, *name))
        places.append(value[0])
    return names, places
