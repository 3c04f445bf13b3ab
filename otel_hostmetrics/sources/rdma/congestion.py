"""Flow control and congestion as the network interfaces of RoCE ports know them: ethtool statistics and DCB."""

from __future__ import annotations

import re
import time
from collections.abc import Container, Iterator, Sequence
from fnmatch import translate

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue import rdma_ethtool
from otel_hostmetrics.catalogue.model import AttributeValue, Metric
from otel_hostmetrics.catalogue.rdma_counters import Counter
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import dcb
from otel_hostmetrics.kernel.ethtool import Ethtool, Statistics
from otel_hostmetrics.kernel.netlink import Socket
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.backoff import Backoff
from otel_hostmetrics.sources.rdma.devices import Owner
from otel_hostmetrics.sources.rdma.interfaces import Netdev
from otel_hostmetrics.sources.rdma.table import Point, Tables

_NEVER = (Reason.UNSUPPORTED, Reason.ABSENT)  # virtual interfaces have no statistics, most drivers no DCB: not a problem


class _Statistics:
    """The allowed ethtool statistics of one interface."""

    def __init__(self, netdev: Netdev) -> None:
        self.netdev = netdev
        self._statistics: Statistics | None = None
        self._names: tuple[str, ...] = ()
        self._known: list[tuple[Counter, tuple[tuple[str, AttributeValue], ...]]] = []
        self.backoff = Backoff()

    def points(self, ethtool: Ethtool, allow: re.Pattern[str]) -> Iterator[Point]:
        """Raises Unavailable."""
        if self._statistics is None:
            self._statistics = ethtool.statistics(self.netdev.name, lambda name: allow.fullmatch(name) is not None)
        values = self._statistics.read()
        if self._statistics.names is not self._names:
            self._names = self._statistics.names
            self._known = [(known, _attributes(known, self.netdev.name)) for known in map(rdma_ethtool.lookup, self._names)]
        for (known, attributes), value in zip(self._known, values, strict=True):
            yield Point(known.metric, self.netdev.owner, attributes, value * known.scale if known.scale != 1 else value)

    def forget(self) -> None:
        self._statistics = None


def _attributes(known: Counter, interface: str) -> tuple[tuple[str, AttributeValue], ...]:
    named = {rows.NETDEV: interface} if rows.NETDEV in known.metric.optional else {}
    return tuple({**known.attributes, **named}.items())


class Congestion:
    """ethtool statistics in each cycle (3 us for an interface with 20, milliseconds for mlx5), DCB every slow_interval."""

    def __init__(self, settings: Rdma, found: Sequence[Netdev]) -> None:
        self._settings = settings
        self._ethtool = Ethtool() if settings.ethtool and found else None
        self._statistics = [_Statistics(netdev) for netdev in found]
        self._allow = re.compile("|".join(map(translate, settings.ethtool_stats)) or r"(?!)")
        self._dcb: Socket | None = None
        self._dcb_netdevs = found if settings.dcb else []
        self._next_dcb = float("-inf")
        self._tables = Tables(lasting=True)
        self._dcb_tables = Tables(lasting=True)
        self.problems: list[Unavailable] = []

    def keep(self, before: Congestion, present: Container[Owner]) -> None:
        """Go on with the series of *before* that belong to owners which are *present* still."""
        self._tables.keep(before._tables, present)
        self._dcb_tables.keep(before._dcb_tables, present)

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        """Read what is due."""
        self.problems = []
        if self._ethtool:
            ethtool = self._ethtool
            self._tables.fill([point for each in self._statistics for point in self._read(each, ethtool)])
        if self._dcb_netdevs and time.monotonic() >= self._next_dcb:
            self._next_dcb = time.monotonic() + self._settings.slow_interval
            self._dcb_tables.fill([point for netdev in self._dcb_netdevs for point in self._flow_control(netdev)])
        yield from self._tables.columns()
        yield from self._dcb_tables.columns()

    def _read(self, statistics: _Statistics, ethtool: Ethtool) -> list[Point]:
        if statistics.backoff.waiting and not statistics.backoff.due():
            return []
        try:
            points = list(statistics.points(ethtool, self._allow))
        except Unavailable as error:
            statistics.backoff.failed()
            statistics.forget()
            self._tell(error)
            return []
        statistics.backoff.succeeded()
        return points

    def _flow_control(self, netdev: Netdev) -> Iterator[Point]:
        try:
            self._dcb = self._dcb or dcb.connect()
            pfc = dcb.bridging(self._dcb, netdev.name).pfc
        except Unavailable as error:
            self._tell(error)
            return
        if pfc is None:
            return
        for metric, values in ((rows.PFC_ENABLED, pfc.enabled), (rows.PFC_REQUESTS, pfc.requests), (rows.PFC_INDICATIONS, pfc.indications)):
            for priority, value in enumerate(values):
                yield Point(metric, netdev.owner, ((rows.PRIORITY, str(priority)), (rows.NETDEV, netdev.name)), int(value))

    def _tell(self, error: Unavailable) -> None:
        if error.reason not in _NEVER:
            self.problems.append(error)

    def close(self) -> None:
        if self._ethtool:
            self._ethtool.close()
        if self._dcb:
            self._dcb.close()
