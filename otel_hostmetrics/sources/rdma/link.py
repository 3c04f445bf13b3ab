"""State and speed of every port, how often the link changed, and the addresses it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from otel_hostmetrics.catalogue import hardware as hw
from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import infiniband, nldev_records
from otel_hostmetrics.kernel.counterfiles import Budget, CounterFiles
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.infiniband import Rate, State
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.kernel.portstate import PortState, PortStates
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.rdma.devices import Device, Owner, Port, ports
from otel_hostmetrics.sources.rdma.table import Point, Tables

_T = TypeVar("_T")
_ACTIVE = (4, 5)  # ACTIVE, ACTIVE_DEFER
_ERROR_RECOVERY = 6  # physical state


class _Link(NamedTuple):
    """What was seen of a port in one cycle."""

    state: int | None
    physical: int | None
    lid: int | None = None
    sm_lid: int | None = None


_FAILED = _Link(None, None)


class _Slow(NamedTuple):
    """What changes with the link only, and costs a query of the driver for each."""

    rate: Rate | None
    lid: int | None
    sm_lid: int | None


class Links:
    """Reads the ports of *devices*. The state in each cycle; the rest every *pace* seconds, and when a state has changed."""

    def __init__(self, fs: HostFS, devices: Sequence[Device], nldev: Nldev | None, pace: float, budget: Budget) -> None:
        self._fs = fs
        self._nldev = nldev
        self._asked = [device for device in devices if nldev and device.number is not None]
        self._by_file = [port.owner for device in devices if device not in self._asked for port in device.ports]
        self._states = PortStates(PortState(fs, *owner) for owner in self._by_file)
        self._ports = [port for _, port in ports(devices)]
        self._pace = pace
        self._next_slow = float("-inf")
        self._last_states: object = None
        self._links: dict[Owner, _Link] = {}  # what was made of them
        self._seen: dict[Owner, _Link] = {}
        self._slow: dict[Owner, _Slow] = {}
        self._changes: dict[Owner, list[int]] = {port.owner: [0, 0] for port in self._ports}  # to up, to down
        self._tables = Tables()
        self._lasting = Tables(lasting=True)
        self._information = Tables()
        self._carriers = [(port.owner, name) for port in self._ports for name in port.netdevs[:1]]
        self._carrier_files = CounterFiles(
            [fs.sys("class/net", name, f"carrier_{way}_count") for _, name in self._carriers for way in ("up", "down")], budget
        )
        self._carrier_values: Sequence[int | None] = ()
        self.problems: list[Unavailable] = []

    def keep(self, before: Links) -> None:
        """Go on counting the changes that *before* has counted, in the same series."""
        self._tables.keep(before._tables, self._changes)
        self._lasting.keep(before._lasting, self._changes)
        self._information.keep(before._information, self._changes)
        for owner, counts in before._changes.items():
            if owner in self._changes:
                self._changes[owner] = counts
                if owner in before._seen:
                    self._seen[owner] = before._seen[owner]

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        """Read; where nothing has changed the columns of the last cycle are handed out again."""
        self.problems = []
        seen = {**self._look_at_files(), **{owner: link for device in self._asked for owner, link in self._ask(device)}}
        carriers = self._carrier_files.read()
        changed = seen != self._seen
        if changed or time.monotonic() >= self._next_slow:
            self._count(seen)
            self._look_slowly(seen)
            changed = True
        if changed or carriers != self._carrier_values:
            self._seen, self._carrier_values = seen, carriers
            self._tables.fill(self._points())
            self._lasting.fill(self._carrier_points())
        yield from self._tables.columns()
        yield from self._lasting.columns()
        yield from self._information.columns()

    def _look_at_files(self) -> dict[Owner, _Link]:
        states = self._states.read()
        if states is not self._last_states:
            self._last_states, self._links = states, dict(zip(self._by_file, map(self._from_files, states), strict=True))
        return self._links

    def _from_files(self, states: tuple[State, State] | Unavailable) -> _Link:
        if isinstance(states, Unavailable):
            self.problems.append(states)
            return _FAILED
        return _Link(states[0].number, states[1].number)

    def _ask(self, device: Device) -> list[tuple[Owner, _Link]]:
        assert self._nldev is not None
        assert device.number is not None
        try:
            known = {port.number: port for port in self._nldev.ports(device.number)}
        except Unavailable as error:
            self.problems.append(error)
            return [(port.owner, _FAILED) for port in device.ports]
        return [(port.owner, _link(known.get(port.owner.number) or self._ask_singly(device.number, port))) for port in device.ports]

    def _ask_singly(self, device: int, port: Port) -> nldev_records.Port | None:
        """The kernel's list ends at a port that the driver cannot query; those after it may be well."""
        assert self._nldev is not None
        try:
            return self._nldev.port(device, port.owner.number)
        except Unavailable as error:
            self.problems.append(error)
            return None

    def _count(self, seen: Mapping[Owner, _Link]) -> None:
        for owner, link in seen.items():
            before = self._seen.get(owner, _FAILED).state
            if before is not None and link.state is not None and (before in _ACTIVE) != (link.state in _ACTIVE):
                self._changes[owner][link.state not in _ACTIVE] += 1

    def _look_slowly(self, seen: Mapping[Owner, _Link]) -> None:
        self._next_slow = time.monotonic() + self._pace
        if self._carrier_files.failures:
            self._carrier_files.retry()
        self._slow = {port.owner: self._look_slowly_at(port, seen.get(port.owner, _FAILED)) for port in self._ports}
        self._information.fill(point for port in self._ports for point in _information(port, self._slow[port.owner].rate))

    def _look_slowly_at(self, port: Port, link: _Link) -> _Slow:
        if link is _FAILED:
            return _Slow(None, None, None)
        rate = self._known(infiniband.rate, port.owner)
        if port.protocol != "infiniband":
            return _Slow(rate, None, None)
        if link.lid is not None:
            return _Slow(rate, link.lid, link.sm_lid)
        return _Slow(rate, self._known(infiniband.lid, port.owner), self._known(infiniband.sm_lid, port.owner))

    def _known(self, read: Callable[[HostFS, str, int], _T], owner: Owner) -> _T | None:
        try:
            return read(self._fs, *owner)
        except Unavailable as error:
            if error.reason not in (Reason.ABSENT, Reason.UNSUPPORTED):
                self.problems.append(error)
            return None

    def _points(self) -> Iterator[Point]:
        for port in self._ports:
            owner = port.owner
            yield from _state_points(owner, self._seen.get(owner, _FAILED))
            yield from _slow_points(owner, self._slow.get(owner, _Slow(None, None, None)))
            for event, count in zip(("port_up", "port_down"), self._changes[owner], strict=True):
                yield Point(rows.LINK_EVENTS, owner, (("rdma.link.event", event),), count)

    def _carrier_points(self) -> Iterator[Point]:
        for place, value in enumerate(self._carrier_values):
            if value is not None:
                owner, _ = self._carriers[place // 2]
                yield Point(rows.LINK_EVENTS, owner, (("rdma.link.event", ("carrier_up", "carrier_down")[place % 2]),), value)

    def close(self) -> None:
        self._states.close()
        self._carrier_files.close()


def _link(port: nldev_records.Port | None) -> _Link:
    return _Link(port.state, port.phys_state, port.lid, port.sm_lid) if port else _FAILED


def _state_points(owner: Owner, link: _Link) -> Iterator[Point]:
    state = "failed" if link.state is None else "degraded" if link.physical == _ERROR_RECOVERY else "ok"
    for each in hw.STATES:
        yield Point(hw.STATUS, owner, ((hw.STATE, each),), int(each == state))
    if link.state is not None:
        yield Point(hw.NETWORK_UP, owner, (), int(link.state in _ACTIVE))
        yield Point(rows.STATE, owner, (), link.state)
    if link.physical is not None:
        yield Point(rows.PHYSICAL_STATE, owner, (), link.physical)


def _slow_points(owner: Owner, slow: _Slow) -> Iterator[Point]:
    if slow.rate:
        yield Point(hw.NETWORK_BANDWIDTH_LIMIT, owner, (), int(slow.rate.bits_per_second / 8))
        yield Point(rows.LANES, owner, (), slow.rate.lanes)
    if slow.lid is not None:
        yield Point(rows.LID, owner, (), slow.lid)
    if slow.sm_lid is not None:
        yield Point(rows.SM_LID, owner, (), slow.sm_lid)


def _information(port: Port, rate: Rate | None) -> Iterator[Point]:
    known: dict[str, AttributeValue] = {
        "rdma.link.layer": port.link_layer,
        "rdma.protocol": port.protocol,
        "rdma.link.speed": rate.speed if rate else "",
        rows.NETDEV: port.netdevs[0] if port.netdevs else "",
    }
    yield Point(rows.PORT_INFO, port.owner, tuple((key, value) for key, value in known.items() if value), 1)
