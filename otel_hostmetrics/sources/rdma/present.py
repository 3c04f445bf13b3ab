"""The source, once the host has a device."""

from __future__ import annotations

import time
from collections.abc import Collection

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column, Reading
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.rdma.counters import Counters
from otel_hostmetrics.sources.rdma.devices import added_again, discover
from otel_hostmetrics.sources.rdma.groups import groups
from otel_hostmetrics.sources.rdma.interfaces import interfaces
from otel_hostmetrics.sources.rdma.parts import Parts
from otel_hostmetrics.sources.rdma.rescan import Rescan
from otel_hostmetrics.sources.rdma.table import Merge


class Present:
    """See the package for what it does in a cycle, and in which order."""

    def __init__(self, fs: HostFS, settings: Settings) -> None:
        self._fs = fs
        self._settings = settings.rdma
        self._asks_interfaces = settings.rdma.ethtool or settings.rdma.dcb or settings.rdma.modules
        self._rescan = Rescan(fs, settings.rdma)
        self._counters = Counters()
        self._parts: Parts | None = None
        self._merge = Merge()
        self._problems: list[Unavailable] = []  # of the last search
        self._up = (rows.UP.series({}),)
        self._duration = (rows.SCRAPE_DURATION.series({}),)

    def open(self) -> None:
        """Raises Unavailable(ABSENT) without a device, or when none is selected."""
        self._bind()

    def read(self) -> Reading:
        """Once devices have been there, all of them gone is a problem and not the end: they may be back in the next cycle."""
        began = time.monotonic()
        counted: dict[Metric, Column] = {}
        reading = Reading()
        try:
            counted = self._count()
            assert self._parts is not None  # _count() binds
            reading.columns = self._merge.apply(counted, self._parts.columns())
            reading.facts = self._parts.facts
            reading.problems += (*self._problems, *self._counters.problems(), *self._parts.problems())
        except Unavailable as error:
            self._unbind()
            if error.reason is Reason.ABSENT:
                self._counters.forget_all()
            reading.problems.append(Unavailable(Reason.GONE, error.what, error.detail))
        reading.columns[rows.UP] = Column(self._up, (int(bool(counted)),))
        reading.columns[rows.SCRAPE_DURATION] = Column(self._duration, (time.monotonic() - began,))
        return reading

    def _count(self) -> dict[Metric, Column]:
        """All counters, of the devices that are there now."""
        if self._parts is None or self._parts.stale or self._rescan.wanted():
            self._bind()
        counted = self._counters.columns()
        if gone := self._counters.gone():  # ENODEV: devices were removed, and maybe added again
            self._bind(gone)
            counted = self._counters.columns()
        return counted

    def _bind(self, gone: Collection[str] = ()) -> None:
        """Look for devices; where they are not those we know, or some are *gone*, bind everything. Raises Unavailable(ABSENT)."""
        nldev, known = self._rescan.netlink()
        found = discover(self._fs, self._settings, known)
        self._rescan.done()
        beside = interfaces(self._fs, found.devices, nldev)
        self._problems = [*found.problems, *(beside.problems if self._asks_interfaces else ())]
        before = self._parts
        same = before and (before.devices, before.netdevs) == (found.devices, beside.netdevs)
        if before and same and not before.stale and not gone:
            return
        anew = {*gone, *added_again(before.devices, found.devices)} if before else set()
        self._counters.forget(anew)
        self._counters.close()
        budget = Budget(self._settings.descriptors)
        tell = self._problems.append
        self._counters.bind([group for device in found.devices for group in groups(self._fs, self._settings, device, nldev, budget, tell)])
        self._parts = Parts(self._fs, self._settings, found.devices, beside.netdevs, nldev, budget)
        if before:
            self._parts.take_over(before, anew)
            before.close()

    def _unbind(self) -> None:
        self._counters.close()
        if self._parts:
            self._parts.close()
            self._parts = None

    def close(self) -> None:
        self._unbind()
        self._rescan.close()
