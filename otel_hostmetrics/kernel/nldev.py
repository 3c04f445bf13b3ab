"""RDMA devices, their resources and who holds them, by netlink: drivers/infiniband/core/nldev.c.

Opening the socket makes the kernel load ib_core: do so only where /sys/class/infiniband has entries. All requests but
set_counter_mode() and enable_counters() work without privilege, and in network namespaces in which sysfs shows no counters.

A device that is gone is refused as one that never was (EINVAL, UNSUPPORTED): list the devices again after a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import nldev_const as c
from otel_hostmetrics.kernel import nldev_messages as m
from otel_hostmetrics.kernel import nldev_records as r
from otel_hostmetrics.kernel.netlink import ACKNOWLEDGE, DUMP, NESTED, Asks, Notifications, Socket, attribute
from otel_hostmetrics.kernel.nldev_counters import CounterLayout

_R = TypeVar("_R")


class Counters(NamedTuple):
    """Hardware counters of a port. *names* is the same object while the driver's set is."""

    names: tuple[str, ...]
    values: list[int]


def connect(timeout: float = 1.0) -> Nldev:
    """Open NETLINK_RDMA. Raises Unavailable(ABSENT) where the kernel has no RDMA subsystem."""
    return Nldev(Socket(c.NETLINK_RDMA, "RDMA netlink", timeout))


def notifications() -> Notifications:
    """Devices and their network interfaces coming and going. Raises Unavailable; silent before 6.12."""
    return Notifications(c.NETLINK_RDMA, c.GROUP_NOTIFY, "RDMA notifications")


class Nldev:
    """Requests to the RDMA subsystem. *device* is the number in :class:`nldev_records.Device`. Not thread-safe.

    Each method raises Unavailable; UNSUPPORTED also for an answer that does not fit into one page.
    """

    def __init__(self, asks: Asks) -> None:
        self._asks = asks
        self._layouts: dict[tuple[int, int], CounterLayout] = {}

    def close(self) -> None:
        """May be called again."""
        self._asks.close()

    def devices(self) -> list[r.Device]:
        """All devices this network namespace can see."""
        return self._dump(c.GET, "RDMA devices", m.DEVICE)

    def system(self) -> r.System:
        """Settings of the subsystem."""
        return self._one(c.SYS_GET, "RDMA settings", b"", m.SYSTEM)

    def ports(self, device: int) -> list[r.Port]:
        """One question to the driver per port, instead of one for each file in sysfs. Ends before the first that it does not answer."""
        return self._dump(c.PORT_GET, "RDMA ports", m.PORT, (), DEV_INDEX=device)

    def port(self, device: int, port: int) -> r.Port:
        return self._one(c.PORT_GET, f"RDMA port {port}", m.numbers(DEV_INDEX=device, PORT_INDEX=port), m.PORT)

    def summary(self, device: int) -> dict[str, int]:
        """How many objects of each kind exist: pd, cq, qp, cm_id, mr, ctx, srq."""
        body = self._body(c.RES_GET, "RDMA resources", m.numbers(DEV_INDEX=device))
        return m.summary(body, "RDMA resources")

    def queue_pairs(self, device: int) -> list[r.QueuePair]:
        """Costs a query of the driver for each of them: 402 took twelve times as long as all other resources (measured, soft-RoCE)."""
        return self._dump(c.RES_QP_GET, "RDMA queue pairs", m.QUEUE_PAIR, (c.RES_QP, c.RES_QP_ENTRY), DEV_INDEX=device)

    def connections(self, device: int) -> list[r.Connection]:
        return self._dump(c.RES_CM_ID_GET, "RDMA connections", m.CONNECTION, (c.RES_CM_ID, c.RES_CM_ID_ENTRY), DEV_INDEX=device)

    def completion_queues(self, device: int) -> list[r.CompletionQueue]:
        return self._dump(c.RES_CQ_GET, "RDMA completion queues", m.COMPLETION_QUEUE, (c.RES_CQ, c.RES_CQ_ENTRY), DEV_INDEX=device)

    def memory_regions(self, device: int) -> list[r.MemoryRegion]:
        return self._dump(c.RES_MR_GET, "RDMA memory regions", m.MEMORY_REGION, (c.RES_MR, c.RES_MR_ENTRY), DEV_INDEX=device)

    def protection_domains(self, device: int) -> list[r.ProtectionDomain]:
        return self._dump(c.RES_PD_GET, "RDMA protection domains", m.PROTECTION_DOMAIN, (c.RES_PD, c.RES_PD_ENTRY), DEV_INDEX=device)

    def shared_receive_queues(self, device: int) -> list[r.SharedReceiveQueue]:
        path = (c.RES_SRQ, c.RES_SRQ_ENTRY)
        return self._dump(c.RES_SRQ_GET, "RDMA shared receive queues", m.SHARED_RECEIVE_QUEUE, path, DEV_INDEX=device)

    def contexts(self, device: int) -> list[r.Context]:
        return self._dump(c.RES_CTX_GET, "RDMA contexts", m.CONTEXT, (c.RES_CTX, c.RES_CTX_ENTRY), DEV_INDEX=device)

    def counters(self, device: int, port: int) -> Counters:
        """hw_counters of a port, with enabled optional ones, by one call of the driver; at most some 90 fit into the answer."""
        layout = self._layouts.pop((device, port), None)  # put back below: one of a device that is gone is not kept
        request = layout.request if layout else m.numbers(DEV_INDEX=device, PORT_INDEX=port)
        body = self._body(c.STAT_GET, "RDMA counters", request)
        values = layout.values(body) if layout else None
        if layout is None or values is None:
            layout = CounterLayout(request, body)
            values = layout.values(body)
            assert values is not None  # it was made from this body
        self._layouts[device, port] = layout
        return Counters(layout.names, values)

    def counter_status(self, device: int, port: int) -> list[r.CounterStatus]:
        """The counters of a port, in the driver's order, and which of the optional ones are enabled. Since 5.16."""
        body = self._body(c.STAT_GET_STATUS, "RDMA counter status", m.numbers(DEV_INDEX=device, PORT_INDEX=port))
        return m.decode([body], m.COUNTER_STATUS, "RDMA counter status", c.STAT_HWCOUNTERS, c.STAT_HWCOUNTER_ENTRY)

    def counter_mode(self, device: int, port: int) -> r.CounterMode:
        """How queue pairs of a port are bound to counter sets; what `rdma statistic qp mode` shows. Since 5.3."""
        request = m.numbers(DEV_INDEX=device, PORT_INDEX=port, STAT_RES=c.RES_QP, STAT_MODE=0)
        return self._one(c.STAT_GET, "RDMA counter mode", request, m.COUNTER_MODE)

    def counter_sets(self, device: int, port: int) -> list[r.CounterSet]:
        """Counters of queue pairs; none unless a mode is set. Since 5.3."""
        path = (c.STAT_COUNTER, c.STAT_COUNTER_ENTRY)
        return self._dump(c.STAT_GET, "RDMA counter sets", m.COUNTER_SET, path, DEV_INDEX=device, PORT_INDEX=port, STAT_RES=c.RES_QP)

    def set_counter_mode(self, device: int, port: int, mask: int) -> None:
        """From now on, new queue pairs of equal MASK_QP_TYPE, MASK_PID share a counter set; 0: no sets for new ones.

        Needs CAP_NET_ADMIN. The kernel refuses 0 where no such mode is set (UNSUPPORTED), and a change while there are sets
        (UNREADABLE, EBUSY).
        """
        where = m.numbers(DEV_INDEX=device, PORT_INDEX=port, STAT_RES=c.RES_QP, STAT_MODE=c.MODE_AUTO, STAT_AUTO_MODE_MASK=mask)
        self._set(c.STAT_SET, "RDMA counter mode", where)

    def enable_counters(self, device: int, port: int, numbers: Iterable[int]) -> None:
        """Turn these optional counters of a port on, by their number in counter_status(), and the others off. Since 5.16.

        Needs CAP_NET_ADMIN. UNSUPPORTED for a counter that is not optional.
        """
        wanted = b"".join(m.numbers(STAT_HWCOUNTER_INDEX=number) for number in numbers)
        where = m.numbers(DEV_INDEX=device, PORT_INDEX=port)
        self._set(c.STAT_SET, "RDMA optional counters", where + attribute(c.STAT_HWCOUNTERS | NESTED, wanted))

    def _set(self, command: int, what: str, request: bytes) -> None:
        try:
            self._asks.ask(c.CLIENT << 10 | command, ACKNOWLEDGE, request, what)
        except Unavailable as error:
            if error.reason is not Reason.DENIED:
                raise
            raise Unavailable(Reason.DENIED, what, error.detail, needs="CAP_NET_ADMIN") from None

    def _dump(self, command: int, what: str, layout: m.Layout[_R], path: tuple[int, ...] = (), **where: int) -> list[_R]:
        return m.decode(self._asks.ask(c.CLIENT << 10 | command, DUMP, m.numbers(**where), what), layout, what, *path)

    def _one(self, command: int, what: str, request: bytes, layout: m.Layout[_R]) -> _R:
        return m.decode([self._body(command, what, request)], layout, what)[0]

    def _body(self, command: int, what: str, request: bytes) -> bytes:
        bodies = self._asks.ask(c.CLIENT << 10 | command, 0, request, what)
        if not bodies:
            raise Unavailable(Reason.MALFORMED, what, "no answer but an acknowledgement")
        return bodies[0]
