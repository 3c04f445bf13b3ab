"""Messages of the connection manager: ports/N/cm_{tx,rx}_msgs, cm_tx_retries and cm_rx_duplicates, of 11 files each.

The kernel counts them in memory (drivers/infiniband/core/cm.c), so they cost no question to the device; but they are 44
files a port that change when connections come and go, so they have the pace of slow counters. Much older
kernels have them elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Sequence
from typing import Final, NamedTuple

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.hardware import DIRECTION
from otel_hostmetrics.catalogue.model import AttributeValue, Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import infiniband
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.rdma.devices import Device, Owner, ports
from otel_hostmetrics.sources.rdma.table import Point, Tables

_TRANSMIT, _RECEIVE = ((DIRECTION, "transmit"),), ((DIRECTION, "receive"),)
_DIRECTORIES: Final[tuple[tuple[str, Metric, tuple[tuple[str, AttributeValue], ...]], ...]] = (
    ("cm_tx_msgs", rows.CM_MESSAGES, _TRANSMIT),
    ("cm_rx_msgs", rows.CM_MESSAGES, _RECEIVE),
    ("cm_tx_retries", rows.CM_RETRIES, ()),
    ("cm_rx_duplicates", rows.CM_DUPLICATES, ()),
)
_MOST: Final = 64  # files of one directory; there are 11


class _File(NamedTuple):
    """One counter."""

    path: str
    metric: Metric
    owner: Owner
    attributes: tuple[tuple[str, AttributeValue], ...]


class Connections:
    """Reads the ports of *devices* every *pace* seconds."""

    def __init__(self, fs: HostFS, devices: Sequence[Device], pace: float) -> None:
        self._fs = fs
        self._pace = pace
        self._next = float("-inf")
        self._tables = Tables(lasting=True)
        self.problems: list[Unavailable] = []
        self._files = [file for _, port in ports(devices) for file in self._found(port.owner)]

    def _found(self, owner: Owner) -> Iterator[_File]:
        for directory, metric, attributes in _DIRECTORIES:
            path = infiniband.port_path(self._fs, *owner, directory)
            try:
                names = infiniband.listed(self._fs, path)
            except Unavailable:  # told by whoever lists counters/
                continue
            for name in names[:_MOST]:
                yield _File(f"{path}/{name}", metric, owner, (*attributes, (rows.CM_MESSAGE, name)))

    def keep(self, before: Connections, present: Container[Owner]) -> None:
        """Go on with the series of *before* that belong to owners which are *present* still."""
        self._tables.keep(before._tables, present)

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        """Read if it is due; else as of the last time, which is what the counters were then."""
        now = time.monotonic()
        if self._files and now >= self._next:
            self._next = now + self._pace
            self.problems = []
            self._tables.fill(list(self._points()))
        return self._tables.columns()

    def _points(self) -> Iterator[Point]:
        failures: dict[Reason, Unavailable] = {}
        for file in self._files:
            try:
                value = self._fs.integer(file.path)
            except Unavailable as error:  # one of each kind is told: they fail together
                failures.setdefault(error.reason, error)
                continue
            yield Point(file.metric, file.owner, file.attributes, value)
        self.problems.extend(failures.values())
