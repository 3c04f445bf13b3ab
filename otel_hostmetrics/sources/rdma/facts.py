"""Topology and configuration of the devices: facts for snapshots, and rdma.device.info."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import AttributeValue
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import dcb, dcqcn, infiniband, infiniband_tables, netdev
from otel_hostmetrics.kernel.ethtool import Ethtool
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.netlink import Socket
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.kernel.nldev_const import MASK_PID, MASK_QP_TYPE, MODE_AUTO, MODE_MANUAL
from otel_hostmetrics.sources.rdma.devices import Device, Port
from otel_hostmetrics.sources.rdma.table import Point

_T = TypeVar("_T")
_MODULES = ("ib_core", "rdma_rxe", "siw")  # beside the driver of the device
_PARAMETERS = 64  # of one module


def device_info(devices: Sequence[Device]) -> Iterator[Point]:
    """One point per device, with what is known."""
    for device in devices:
        record, pci = device.record, device.record.pci
        known: dict[str, AttributeValue | None] = {
            "rdma.device.firmware": record.firmware,
            "rdma.device.type": record.hca_type,
            "rdma.device.board_id": record.board_id,
            "rdma.device.node_type": record.node_type.name if record.node_type else None,
            "rdma.device.node_guid": record.node_guid,
            "rdma.device.system_guid": record.system_guid,
            "rdma.device.driver": pci.driver if pci else None,
            "pci.address": pci.address if pci else None,
            "pci.physical_function": pci.physical_function if pci else None,
            "numa.node": pci.numa_node if pci else None,
        }
        yield Point(rows.DEVICE_INFO, device.owner, tuple((key, value) for key, value in known.items() if value is not None), 1)


def optional_counters(devices: Sequence[Device], nldev: Nldev) -> Iterator[Point]:
    """Which of the counters that are off by default are on."""
    for device in devices:
        for port in device.ports if device.number is not None else ():
            for counter in _known(nldev.counter_status, device.number, port.owner.number) or ():
                if counter.enabled is not None:
                    yield Point(rows.OPTIONAL_ENABLED, port.owner, ((rows.STAT, counter.name),), counter.enabled)


class Facts:
    """JSON-able, without what is not known. Costs hundreds of small files and some queries of each port: not for every cycle."""

    def __init__(self, fs: HostFS, devices: Sequence[Device], nldev: Nldev | None, reached: Collection[str]) -> None:
        """*reached* are the names of interfaces in our network namespace: only those are asked."""
        self._fs = fs
        self._devices = devices
        self._nldev = nldev
        self._reached = reached
        self._dcqcn: dict[str, dict[str, int] | None] = {}  # asked for once: older firmware has errors logged for each reading

    def look(self) -> dict[str, object]:
        """All devices, the parameters of their modules, and settings of the RDMA subsystem."""
        drivers = {device.record.pci.driver for device in self._devices if device.record.pci and device.record.pci.driver}
        with _Interfaces() as interfaces:
            return {
                "devices": {device.name: self._device(device, interfaces) for device in self._devices},
                "modules": {name: found for name in sorted({*_MODULES, *drivers}) if (found := _parameters(self._fs, name))},
                "system": _fields(_known(self._nldev.system)) if self._nldev else {},
            }

    def _device(self, device: Device, interfaces: _Interfaces) -> dict[str, object]:
        record = device.record
        return _without_none({
            "firmware": record.firmware,
            "type": record.hca_type,
            "board_id": record.board_id,
            "revision": record.revision,
            "node_type": record.node_type.name if record.node_type else None,
            "node_guid": record.node_guid,
            "system_guid": record.system_guid,
            "description": record.description,
            "pci": _fields(record.pci),
            "dcqcn": self._congestion_control(record.pci.address) if record.pci else None,
            "ports": {str(port.owner.number): self._port(device, port, interfaces) for port in device.ports},
        })  # fmt: skip

    def _congestion_control(self, address: str) -> dict[str, int] | None:
        if address not in self._dcqcn:
            self._dcqcn[address] = _known(dcqcn.cc_params, self._fs, address)
        return self._dcqcn[address]

    def _port(self, device: Device, port: Port, interfaces: _Interfaces) -> dict[str, object]:
        record, asked = infiniband.port(self._fs, *port.owner), self._nldev and device.number is not None
        mode = _known(self._nldev.counter_mode, device.number, port.owner.number) if self._nldev and asked else None
        return _without_none({
            "link_layer": port.link_layer or None,
            "protocol": port.protocol or None,
            "state": record.state.name if record.state else None,
            "physical_state": record.phys_state.name if record.phys_state else None,
            "rate": _fields(record.rate),
            "lid": record.lid,
            "sm_lid": record.sm_lid,
            "lmc": record.lmc,
            "capabilities": f"{record.capabilities:#010x}" if record.capabilities is not None else None,
            "gids": [_fields(gid) for gid in infiniband_tables.gids(self._fs, *port.owner)],
            "pkeys": [f"{pkey:#06x}" for pkey in infiniband_tables.pkeys(self._fs, *port.owner)],
            "interfaces": {name: _interface(self._fs, name, name in self._reached, interfaces) for name in port.netdevs},
            "queue_pair_counters": _mode(mode.mode, mode.mask or 0) if mode else None,
        })  # fmt: skip


def _mode(mode: int | None, mask: int) -> str:
    """As ``rdma statistic qp mode`` says it."""
    if mode == MODE_AUTO:
        chosen = [name for bit, name in ((MASK_QP_TYPE, "type"), (MASK_PID, "pid")) if mask & bit]
        return f"auto {','.join(chosen)}".strip()
    return "manual" if mode == MODE_MANUAL else "none"


def _interface(fs: HostFS, name: str, live: bool, interfaces: _Interfaces) -> dict[str, object]:
    return _without_none({
        "mtu": _known(netdev.mtu, fs, name),
        "state": _known(netdev.operstate, fs, name),
        "speed": _known(netdev.speed, fs, name),
        "ecn": _known(dcqcn.ecn, fs, name),
        **(interfaces.ask(name) if live else {}),
    })  # fmt: skip


class _Interfaces:
    """What only ioctl and netlink tell of an interface of the running kernel."""

    def __enter__(self) -> Self:
        self._ethtool: Ethtool | None = None
        self._dcb: Socket | None = None
        return self

    def ask(self, name: str) -> dict[str, object]:
        self._ethtool = self._ethtool or Ethtool()
        self._dcb = self._dcb or _known(dcb.connect)
        bridging = _known(dcb.bridging, self._dcb, name) if self._dcb else None
        return {
            "driver": _fields(_known(self._ethtool.driver, name)),
            "pause": _fields(_known(self._ethtool.pause, name)),
            "offloads": _known(self._ethtool.features, name),
            "pfc": _fields(bridging.pfc) if bridging else None,
            "ets": _fields(bridging.ets) if bridging else None,
        }

    def __exit__(self, *_: object) -> None:
        for each in (self._ethtool, self._dcb):
            if each:
                each.close()


def _parameters(fs: HostFS, module: str) -> dict[str, str]:
    """/sys/module/X/parameters: those that can be read."""
    directory = fs.sys("module", module, "parameters")
    names = _known(fs.names, directory) or []
    found = {name: _known(fs.text, os.path.join(directory, name)) for name in names[:_PARAMETERS]}
    return {name: text for name, text in found.items() if text is not None}


def _known(read: Callable[..., _T], *where: object) -> _T | None:
    """A fact that cannot be had is left out: which ones there are differs by driver, kernel and rights."""
    try:
        return read(*where)
    except Unavailable:
        return None


def _fields(record: Any) -> dict[str, object] | None:
    """A record as a mapping, without what is not known."""
    return _without_none(record._asdict()) if record is not None else None


def _without_none(known: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in known.items() if value is not None}
