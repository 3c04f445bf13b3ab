"""Everything about a set of devices but their counters: links, flow control, resources, and what has a slower pace."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Sequence

from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.congestion import Congestion
from otel_hostmetrics.sources.rdma.connections import Connections
from otel_hostmetrics.sources.rdma.devices import Device, Owner, ports
from otel_hostmetrics.sources.rdma.fabric import Fabric
from otel_hostmetrics.sources.rdma.facts import Facts, device_info, optional_counters
from otel_hostmetrics.sources.rdma.interfaces import Netdev
from otel_hostmetrics.sources.rdma.link import Links
from otel_hostmetrics.sources.rdma.modules import Modules
from otel_hostmetrics.sources.rdma.resources import Resources
from otel_hostmetrics.sources.rdma.table import Point, Tables


class Parts:
    """Bound to *devices*, and to those of their interfaces that can be asked; others need other parts."""

    def __init__(
        self, fs: HostFS, settings: Rdma, devices: Sequence[Device], netdevs: Sequence[Netdev], nldev: Nldev | None, budget: Budget
    ) -> None:
        self.devices = devices
        self.netdevs = netdevs
        self._settings = settings
        self._nldev = nldev
        self.links = Links(fs, devices, nldev, settings.slow_interval, budget)
        self._congestion = Congestion(settings, netdevs)
        self._connections = Connections(fs, devices, settings.slow_interval)
        self._modules = Modules(netdevs, settings.modules_interval) if settings.modules else None
        live = nldev is not None and any(device.number is not None for device in devices)
        self._resources = Resources(fs, settings, devices, nldev) if nldev and live and settings.resources else None
        self._facts = Facts(fs, devices, nldev, {netdev.name for netdev in netdevs}) if settings.facts else None
        self._fabric = Fabric(settings, devices) if settings.fabric else None
        self._next_slow = self._next_facts = float("-inf")
        self._information = Tables()
        self._optional: list[Point] | None = None
        self._looked: dict[str, object] = {}
        self.stale = False  # optional counters were turned on or off: where counters are read has to be chosen again

    def take_over(self, before: Parts, anew: Container[str]) -> None:
        """Go on where *before*, which is closed then, has come to. Devices whose names are in *anew* began anew.

        What the parts are bound to decides: one that is bound to the same as before is the same object still. Counters of
        a network interface may outlive the RDMA device; where they do not they fall.
        """
        present = {owner for device in self.devices for owner in _owners(device)}
        self.links.keep(before.links)
        self._congestion.keep(before._congestion, present)
        self._connections.keep(before._connections, {owner for owner in present if owner.device not in anew})
        self._information.keep(before._information, present)
        self._looked = before._looked
        if _fabric(self.devices) == _fabric(before.devices):
            self._fabric, before._fabric = before._fabric, None
        if self.netdevs == before.netdevs:
            self._modules, before._modules = before._modules, None
        if self._nldev is before._nldev and _numbers(self.devices) == _numbers(before.devices):
            self._resources = before._resources
        elif self._resources and before._resources:
            self._resources.keep(before._resources, {owner for owner in present if owner.device not in anew})

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        """Read what is due."""
        self._look_slowly()
        yield from self.links.columns()
        yield from self._congestion.columns()
        yield from self._connections.columns()
        if self._resources:
            yield from self._resources.columns()
        yield from self._information.columns()
        if self._modules:
            self._modules.step()
            yield from self._modules.columns()
        if self._fabric:
            self._fabric.step()
            yield from self._fabric.columns()

    @property
    def facts(self) -> dict[str, object]:
        """As of the last time they were looked up."""
        beside = [part.facts() for part in (self._modules, self._fabric) if part]
        return {key: value for facts in (self._looked, *beside) for key, value in facts.items()} if beside else self._looked

    def _look_slowly(self) -> None:
        now = time.monotonic()
        if now >= self._next_slow:
            self._next_slow = now + self._settings.slow_interval
            optional = list(optional_counters(self.devices, self._nldev)) if self._nldev else []
            self.stale = self._optional is not None and optional != self._optional
            self._optional = optional
            self._information.fill([*device_info(self.devices), *optional])
        if self._facts and now >= self._next_facts:
            self._next_facts = now + self._settings.facts_interval
            self._looked = self._facts.look()

    def problems(self) -> Iterator[Unavailable]:
        """Of the last reading."""
        yield from self.links.problems
        yield from self._congestion.problems
        yield from self._connections.problems
        if self._resources:
            yield from self._resources.problems
        for part in (self._modules, self._fabric):
            if part:
                yield from part.problems()

    def close(self) -> None:
        self.links.close()
        self._congestion.close()
        for part in (self._modules, self._fabric):
            if part:
                part.close()


def _owners(device: Device) -> Iterator[Owner]:
    yield device.owner
    for port in device.ports:
        yield port.owner


def _numbers(devices: Sequence[Device]) -> list[object]:
    """What resources are asked by."""
    return [(device.number, *_owners(device)) for device in devices]


def _fabric(devices: Sequence[Device]) -> list[object]:
    """What the fabric's tools are given."""
    functions = [(device.record.pci and device.record.pci.address, device.record.node_guid) for device in devices]
    return [*functions, *(port.owner for _, port in ports(devices) if port.protocol == "infiniband")]
