"""The bodies of RDMA netlink messages, and the records in them: no socket here.

Any bytes give records or Unavailable(MALFORMED). Attributes that are not known here are passed over: kernels keep adding
some.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import nldev_const as c
from otel_hostmetrics.kernel.netlink import attribute, attributes
from otel_hostmetrics.kernel.nldev_records import (
    CompletionQueue,
    Connection,
    Context,
    CounterMode,
    CounterSet,
    CounterStatus,
    Device,
    MemoryRegion,
    Port,
    ProtectionDomain,
    QueuePair,
    SharedReceiveQueue,
    System,
)  # fmt: skip

_R = TypeVar("_R")
_Read = Callable[[bytes, int, int], object]


def numbers(**values: int) -> bytes:
    """The body of a request: attributes named as in nldev_const, all of 32 bits."""
    return b"".join(attribute(getattr(c, name), struct.pack("=I", value)) for name, value in values.items())


def integer(data: bytes, at: int, end: int) -> int:
    if end - at not in (1, 2, 4, 8):
        raise ValueError(f"integer of {end - at} bytes")
    return int.from_bytes(data[at:end], sys.byteorder)


def text(data: bytes, at: int, end: int) -> str:
    return data[at:end].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def guid(data: bytes, at: int, end: int) -> str:
    digits = f"{integer(data, at, end):016x}"
    return ":".join(digits[i : i + 4] for i in range(0, 16, 4))


def endpoint(data: bytes, at: int, end: int) -> str | None:
    """A sockaddr_storage: of AF_INET, AF_INET6, or AF_IB (include/rdma/ib.h); None for others."""
    address = data[at:end]
    if len(address) < 28:
        raise ValueError(f"socket address of {len(address)} bytes")
    family, port = struct.unpack("=H", address[:2])[0], int.from_bytes(address[2:4], "big")
    if family == 2:
        return f"{ipaddress.IPv4Address(address[4:8])}:{port}"
    if family == 10:
        return f"[{ipaddress.IPv6Address(address[8:24])}]:{port}"
    return str(ipaddress.IPv6Address(address[8:24])) if family == 27 else None


class Layout(Generic[_R]):
    """How attributes become the fields of a record, in their order. The first field is the record's number or name."""

    def __init__(self, make: Callable[[Iterable[object]], _R], fields: Sequence[tuple[int, _Read]], required: bool = True) -> None:
        self._make = make
        self._fields = {kind: (place, read) for place, (kind, read) in enumerate(fields)}
        self._count = len(fields)
        self._required = required

    def record(self, data: bytes, at: int, end: int) -> _R:
        """Raises ValueError."""
        values: list[object] = [None] * self._count
        known = self._fields
        for kind, begin, stop in attributes(data, at, end):
            field = known.get(kind)
            if field:
                values[field[0]] = field[1](data, begin, stop)
        if self._required and values[0] is None:
            raise ValueError("no number")
        return self._make(values)


def nested(data: bytes, at: int, end: int, *path: int) -> Iterator[tuple[int, int]]:
    """Where the contents lie of all attributes with these types, one within the other."""
    for kind, begin, stop in attributes(data, at, end):
        if kind == path[0]:
            if len(path) == 1:
                yield begin, stop
            else:
                yield from nested(data, begin, stop, *path[1:])


def decode(bodies: Iterable[bytes], layout: Layout[_R], what: str, *path: int) -> list[_R]:
    """A record from each body, or from each entry that *path* leads to. Raises Unavailable(MALFORMED)."""
    try:
        if not path:
            return [layout.record(body, 0, len(body)) for body in bodies]
        return [layout.record(body, at, end) for body in bodies for at, end in nested(body, 0, len(body), *path)]
    except ValueError as error:
        raise Unavailable(Reason.MALFORMED, what, str(error)) from None


def summary(body: bytes, what: str) -> dict[str, int]:
    """RES_GET: how many objects of each kind. Raises Unavailable(MALFORMED)."""
    records = decode([body], _SUMMARY, what, c.RES_SUMMARY, c.RES_SUMMARY_ENTRY)
    return {name: number for name, number in records if number is not None}


def _hw_counters(data: bytes, at: int, end: int) -> dict[str, int]:
    records = [_COUNTER.record(data, *where) for where in nested(data, at, end, c.STAT_HWCOUNTER_ENTRY)]
    return {name: number for name, number in records if number is not None}


def _queue_pairs(data: bytes, at: int, end: int) -> tuple[int, ...]:
    return tuple(integer(data, *where) for where in nested(data, at, end, c.RES_QP_ENTRY, c.RES_LQPN))


class _Named(NamedTuple):
    name: str
    number: int | None


_SUMMARY: Final = Layout(_Named._make, ((c.RES_SUMMARY_ENTRY_NAME, text), (c.RES_SUMMARY_ENTRY_CURR, integer)))
_COUNTER: Final = Layout(_Named._make, ((c.STAT_HWCOUNTER_ENTRY_NAME, text), (c.STAT_HWCOUNTER_ENTRY_VALUE, integer)))
_PID: Final = ((c.RES_PID, integer), (c.RES_KERN_NAME, text))

DEVICE: Final = Layout(
    Device._make,
    (
        (c.DEV_INDEX, integer), (c.DEV_NAME, text), (c.PORT_INDEX, integer), (c.CAP_FLAGS, integer), (c.FW_VERSION, text),
        (c.NODE_GUID, guid), (c.SYS_IMAGE_GUID, guid), (c.DEV_NODE_TYPE, integer), (c.DEV_PROTOCOL, text), (c.DEV_DIM, integer),
        (c.PARENT_NAME, text),
    ),
)  # fmt: skip
PORT: Final = Layout(
    Port._make,
    (
        (c.PORT_INDEX, integer), (c.PORT_STATE, integer), (c.PORT_PHYS_STATE, integer), (c.LID, integer), (c.SM_LID, integer),
        (c.LMC, integer), (c.CAP_FLAGS, integer), (c.SUBNET_PREFIX, guid), (c.NDEV_INDEX, integer), (c.NDEV_NAME, text),
    ),
)  # fmt: skip
QUEUE_PAIR: Final = Layout(
    QueuePair._make,
    (
        (c.RES_LQPN, integer), (c.PORT_INDEX, integer), (c.RES_RQPN, integer), (c.RES_TYPE, integer), (c.RES_STATE, integer),
        (c.RES_PATH_MIG_STATE, integer), (c.RES_PDN, integer), *_PID, (c.RES_SUBTYPE, text),
    ),
)  # fmt: skip
CONNECTION: Final = Layout(
    Connection._make,
    (
        (c.RES_CM_IDN, integer), (c.PORT_INDEX, integer), (c.RES_LQPN, integer), (c.RES_TYPE, integer), (c.RES_PS, integer),
        (c.RES_STATE, integer), (c.RES_SRC_ADDR, endpoint), (c.RES_DST_ADDR, endpoint), *_PID,
    ),
)  # fmt: skip
COMPLETION_QUEUE: Final = Layout(
    CompletionQueue._make,
    (
        (c.RES_CQN, integer), (c.RES_CQE, integer), (c.RES_USECNT, integer), (c.RES_POLL_CTX, integer), (c.DEV_DIM, integer),
        (c.RES_CTXN, integer), *_PID,
    ),
)  # fmt: skip
MEMORY_REGION: Final = Layout(MemoryRegion._make, ((c.RES_MRN, integer), (c.RES_MRLEN, integer), (c.RES_PDN, integer), *_PID))
PROTECTION_DOMAIN: Final = Layout(ProtectionDomain._make, ((c.RES_PDN, integer), (c.RES_USECNT, integer), (c.RES_CTXN, integer), *_PID))
SHARED_RECEIVE_QUEUE: Final = Layout(
    SharedReceiveQueue._make, ((c.RES_SRQN, integer), (c.RES_TYPE, integer), (c.RES_PDN, integer), (c.RES_CQN, integer), *_PID)
)
CONTEXT: Final = Layout(Context._make, ((c.RES_CTXN, integer), *_PID))
COUNTER_STATUS: Final = Layout(
    CounterStatus._make, ((c.STAT_HWCOUNTER_ENTRY_NAME, text), (c.STAT_HWCOUNTER_INDEX, integer), (c.STAT_HWCOUNTER_DYNAMIC, integer))
)
COUNTER_MODE: Final = Layout(CounterMode._make, ((c.STAT_MODE, integer), (c.STAT_AUTO_MODE_MASK, integer)), required=False)
COUNTER_SET: Final = Layout(
    CounterSet._make,
    (
        (c.STAT_COUNTER_ID, integer), (c.PORT_INDEX, integer), (c.STAT_MODE, integer), (c.RES_TYPE, integer), *_PID,
        (c.RES_QP, _queue_pairs), (c.STAT_HWCOUNTERS, _hw_counters),
    ),
)  # fmt: skip
SYSTEM: Final = Layout(
    System._make,
    (
        (c.SYS_NETNS_MODE, integer), (c.SYS_COPY_ON_FORK, integer), (c.SYS_PRIVILEGED_QKEY_MODE, integer), (c.SYS_MONITOR_MODE, integer),
    ),
    required=False,
)  # fmt: skip
