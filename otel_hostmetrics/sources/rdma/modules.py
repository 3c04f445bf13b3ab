"""Modules and cables: what they are, how warm, how much light. By I2C, which takes up to seconds: never in a cycle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.hardware import DIRECTION
from otel_hostmetrics.catalogue.model import AttributeValue, Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.module_access import Cages
from otel_hostmetrics.kernel.module_eeprom import Module, module
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.rdma.interfaces import Netdev
from otel_hostmetrics.sources.rdma.table import Point, Tables

_NEVER = (Reason.UNSUPPORTED, Reason.ABSENT)  # virtual interfaces, ports without a cage, empty cages: not a problem
_PATIENCE = 0.5  # s: how long close() waits for a read that is under way; the thread ends after it in any case


class _Round(NamedTuple):
    """What one look at all modules gave."""

    modules: tuple[tuple[Netdev, Module], ...]
    problems: tuple[Unavailable, ...]


class Modules:
    """step() in each cycle: it starts a thread when a round is due, and takes what that has read once it is through."""

    def __init__(self, netdevs: Sequence[Netdev], interval: float, cages: Callable[[], Cages] = Cages) -> None:
        """*interval* in seconds; *cages* opens the way to the modules, in the thread that uses it."""
        self._netdevs = netdevs
        self._interval = interval
        self._cages = cages
        self._next = float("-inf")
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._read: _Round | None = None  # handed over by the thread; assigned whole
        self._known = _Round((), ())
        self._tables = Tables()

    def step(self) -> None:
        """Never waits."""
        if self._read is not None:
            self._known, self._read = self._read, None
            self._tables.fill(point for netdev, found in self._known.modules for point in _points(netdev, found))
        now = time.monotonic()
        if self._netdevs and now >= self._next and not (self._thread and self._thread.is_alive()):
            self._next = now + self._interval
            self._thread = threading.Thread(target=self._look, name="rdma-modules", daemon=True)  # a driver may hold it for ever
            self._thread.start()

    def _look(self) -> None:
        """In the thread."""
        modules: list[tuple[Netdev, Module]] = []
        problems: list[Unavailable] = []
        cages = self._cages()
        try:
            for netdev in self._netdevs:
                if self._closing.is_set():
                    return
                try:
                    modules.append((netdev, module(cages.open(netdev.name), f"module of {netdev.name}")))
                except Unavailable as error:
                    if error.reason not in _NEVER:
                        problems.append(error)
        finally:
            cages.close()
        self._read = _Round(tuple(modules), tuple(problems))

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        """As of the last round."""
        return self._tables.columns()

    def problems(self) -> Sequence[Unavailable]:
        return self._known.problems

    def facts(self) -> dict[str, object]:
        """JSON-able, by port; empty before the first round."""
        found = {netdev.owner.path: _readable(module) for netdev, module in self._known.modules}
        return {"transceivers": found} if found else {}

    def close(self) -> None:
        """May be called again."""
        self._closing.set()
        if self._thread:
            self._thread.join(_PATIENCE)


def _points(netdev: Netdev, found: Module) -> Iterator[Point]:
    where = ((rows.NETDEV, netdev.name),)
    known: dict[str, AttributeValue | None] = {
        "rdma.module.form": found.form,
        "rdma.module.medium": found.medium,
        "rdma.module.connector": found.connector,
        "rdma.module.vendor": found.vendor,
        "rdma.module.part": found.part,
        "rdma.module.revision": found.revision,
        "rdma.module.serial": found.serial,
    }
    yield Point(rows.MODULE_INFO, netdev.owner, (*where, *((key, value) for key, value in known.items() if value)), 1)
    single = ((rows.CABLE_LENGTH, found.length), (rows.MODULE_TEMPERATURE, found.temperature), (rows.MODULE_VOLTAGE, found.voltage))
    for metric, value in single:
        if value is not None:
            yield Point(metric, netdev.owner, where, value)
    for number, lane in enumerate(found.lanes, 1):
        of_lane = (*where, (rows.LANE, number))
        for way, power in (("receive", lane.rx_power), ("transmit", lane.tx_power)):
            if power is not None:
                yield Point(rows.MODULE_POWER, netdev.owner, (*of_lane, (DIRECTION, way)), power)
        if lane.bias is not None:
            yield Point(rows.MODULE_BIAS, netdev.owner, of_lane, lane.bias)


def _readable(found: Module) -> dict[str, object]:
    known = {**found._asdict(), "lanes": [lane._asdict() for lane in found.lanes]}
    return {key: value for key, value in known.items() if value not in (None, "", [])}
