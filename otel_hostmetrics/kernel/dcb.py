"""Data Center Bridging by netlink: include/uapi/linux/dcbnl.h, what ``dcb pfc show`` and ``dcb ets show`` tell. No privilege."""

from __future__ import annotations

import os
import struct
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.netlink import Asks, Socket, attribute, attributes

_NETLINK_ROUTE: Final = 0
_RTM_GETDCB: Final = 78
_IEEE_GET: Final = struct.pack("=BBH", 0, 21, 0)  # struct dcbmsg: AF_UNSPEC, DCB_CMD_IEEE_GET
_IFNAME: Final = 1  # DCB_ATTR_IFNAME
_IEEE: Final = 13  # DCB_ATTR_IEEE, with in it:
_ETS: Final = 1  # DCB_ATTR_IEEE_ETS
_PFC: Final = 2  # DCB_ATTR_IEEE_PFC
_IEEE_PFC: Final = struct.Struct("=BBBxH2x8Q8Q")  # struct ieee_pfc: cap, en, mbc, delay, requests, indications
_IEEE_ETS: Final = struct.Struct("=BBB8s8s8s8s")  # head of struct ieee_ets: willing, cap, cbs, tx_bw, rx_bw, tsa, prio_tc


class Pfc(NamedTuple):
    """Priority flow control, IEEE 802.1Qbb."""

    enabled: tuple[bool, ...]  # by priority 0..7
    delay: int  # allowance of the link, bits
    requests: tuple[int, ...]  # pause frames sent, by priority
    indications: tuple[int, ...]  # pause frames received, by priority


class Ets(NamedTuple):
    """Enhanced transmission selection, IEEE 802.1Qaz."""

    traffic_class: tuple[int, ...]  # of each priority 0..7
    bandwidth: tuple[int, ...]  # percent of each traffic class that has a share
    algorithm: tuple[int, ...]  # of each traffic class: 0 strict, 1 credit-based shaper, 2 share, 255 vendor's


class Bridging(NamedTuple):
    """What the driver knows of an interface."""

    pfc: Pfc | None
    ets: Ets | None


def connect() -> Socket:
    """A socket for :func:`bridging`. Raises Unavailable."""
    return Socket(_NETLINK_ROUTE, "DCB netlink")


def bridging(asks: Asks, name: str) -> Bridging:
    """Flow control and traffic classes of an interface of our network namespace.

    Raises Unavailable: GONE without such an interface, UNSUPPORTED where its driver or the kernel does not do DCB.
    """
    what = f"DCB of {name}"
    bodies = asks.ask(_RTM_GETDCB, 0, _IEEE_GET + attribute(_IFNAME, os.fsencode(name) + b"\0"), what)
    return parse(bodies[0] if bodies else b"", what)


def parse(body: bytes, what: str = "DCB") -> Bridging:
    """The body of the answer. Any bytes give a record or Unavailable(MALFORMED)."""
    found: dict[int, bytes] = {}
    try:
        if len(body) < len(_IEEE_GET):
            raise ValueError(f"answer of {len(body)} bytes")
        for kind, at, end in attributes(body, len(_IEEE_GET), len(body)):
            if kind == _IEEE:
                found.update((inner, body[begin:stop]) for inner, begin, stop in attributes(body, at, end))
        return Bridging(_pfc(found[_PFC]) if _PFC in found else None, _ets(found[_ETS]) if _ETS in found else None)
    except (ValueError, struct.error) as error:
        raise Unavailable(Reason.MALFORMED, what, str(error)) from None


def _pfc(content: bytes) -> Pfc:
    _, enabled, _, delay, *counts = _IEEE_PFC.unpack_from(content)
    return Pfc(tuple(bool(enabled >> priority & 1) for priority in range(8)), delay, tuple(counts[:8]), tuple(counts[8:]))


def _ets(content: bytes) -> Ets:
    _, _, _, transmit, _, algorithm, classes = _IEEE_ETS.unpack_from(content)
    return Ets(tuple(classes), tuple(transmit), tuple(algorithm))
