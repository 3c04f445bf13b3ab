"""Virtual network interfaces of the running kernel, made by netlink; needs CAP_NET_ADMIN."""

from __future__ import annotations

import contextlib
import struct
import types
from typing import Self

import pytest

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.netlink import Socket, attribute

NETLINK_ROUTE, NEWLINK, DELLINK = 0, 16, 17
ACK, EXCL, CREATE = 0x4, 0x200, 0x400
IFINFO = bytes(16)  # struct ifinfomsg
IFNAME, LINKINFO, KIND, DATA, PEER = 3, 18, 1, 2, 1


def name(text: str) -> bytes:
    return attribute(IFNAME, text.encode() + b"\0")


class Links:
    """Makes interfaces, and removes those that are left at the end. Skips the test where that is not allowed."""

    def __init__(self) -> None:
        self._socket = Socket(NETLINK_ROUTE, "rtnetlink")
        self._made: list[str] = []

    def veth(self, one: str, other: str, queues: int = 1) -> None:
        """A pair of virtual Ethernet interfaces."""
        more = attribute(31, struct.pack("=I", queues)) + attribute(32, struct.pack("=I", queues))  # IFLA_NUM_TX_QUEUES, _RX_
        peer = attribute(PEER, IFINFO + name(other) + more)
        info = attribute(LINKINFO, attribute(KIND, b"veth\0") + attribute(DATA, peer))
        try:
            self._socket.ask(NEWLINK, ACK | EXCL | CREATE, IFINFO + name(one) + more + info, f"veth {one}")
        except Unavailable as reason:
            pytest.skip(f"cannot make a pair of veth: {reason}")
        self._made.append(one)

    def delete(self, one: str) -> None:
        self._socket.ask(DELLINK, ACK, IFINFO + name(one), f"delete {one}")
        self._made.remove(one)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        for one in self._made.copy():
            with contextlib.suppress(Unavailable):
                self.delete(one)
        self._socket.close()
