"""Which devices and ports there are, which of them are wanted, and what names them in metrics.

What the user excludes is not opened: neither its counters nor anything else below its directory but a port's link_layer
where a mode is chosen, which the kernel answers from memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from otel_hostmetrics.catalogue import hardware as hw
from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric, Series
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import infiniband, infiniband_tables, nldev_records
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.listing import listing

_RNIC = 4  # node type of iWARP
_HARDWARE = frozenset(hw.ADAPTER)


class Owner(NamedTuple):
    """A port, or with number 0 the device as a whole: whose a point is."""

    device: str
    number: int

    @property
    def path(self) -> str:
        """``mlx5_0/1``, ``mlx5_0``: what patterns match and hw.id is."""
        return f"{self.device}/{self.number}" if self.number else self.device

    def series(self, metric: Metric, attributes: Mapping[str, AttributeValue], start_ns: int = 0) -> Series:
        """A Series of this port with *attributes* beside those that name it."""
        named: dict[str, AttributeValue] = {rows.DEVICE: self.device, **({rows.PORT: self.number} if self.number else {})}
        if metric in _HARDWARE:
            named |= {hw.ID: self.path, hw.TYPE: hw.NETWORK}
        return metric.series({**named, **attributes}, start_ns)


class Port(NamedTuple):
    """One wanted port."""

    owner: Owner
    link_layer: str  # as the kernel writes it; empty if unknown
    protocol: str  # infiniband, roce, iwarp, efa; empty if unknown
    netdevs: tuple[str, ...]  # of the network namespace in which this sysfs was mounted


class Device(NamedTuple):
    """One device with its wanted ports."""

    name: str
    record: infiniband.Device
    ports: tuple[Port, ...]
    number: int | None  # in netlink, another one each time it is added; None where only sysfs can be asked

    @property
    def owner(self) -> Owner:
        return Owner(self.name, 0)


class Found(NamedTuple):
    """What a search found, and what it could not read."""

    devices: tuple[Device, ...]
    problems: tuple[Unavailable, ...]


def discover(fs: HostFS, settings: Rdma, known: Mapping[str, nldev_records.Device]) -> Found:
    """The wanted devices, sorted by name. *known* is what netlink lists. Raises Unavailable(ABSENT) if there is none."""
    names = listing(fs)
    problems: list[Unavailable] = []
    devices = []
    for name in names:
        try:
            device = _device(fs, settings, name, known.get(name), problems)
        except Unavailable as error:  # removed meanwhile, or in a state in which nothing can be said of it
            problems.append(error)
            continue
        if device:
            devices.append(device)
    if not devices and not problems:
        raise Unavailable(
            Reason.ABSENT, "RDMA", f"none of {', '.join(names)} is selected by rdma.devices, rdma.exclude_devices and rdma.mode"
        )
    return Found(tuple(devices), tuple(problems))


def added_again(before: Iterable[Device], now: Iterable[Device]) -> set[str]:
    """Names of devices that netlink knows by another number than before: removed, and added again since."""
    numbers = {device.name: device.number for device in before if device.number is not None}
    return {device.name for device in now if device.number is not None and numbers.get(device.name, device.number) != device.number}


def _device(fs: HostFS, settings: Rdma, name: str, known: nldev_records.Device | None, problems: list[Unavailable]) -> Device | None:
    if not _may_have_ports(settings, name):
        return None
    owners = [owner for number in infiniband.ports(fs, name) if _selected(settings, owner := Owner(name, number))]
    if not owners:
        return None
    record = infiniband.device(fs, name)
    ports = tuple(port for port in (_port(fs, record, owner) for owner in owners) if _of_mode(settings.mode, port))
    problems += record.problems
    record = record._replace(problems=())  # the device is the same, however often a file of it is found unreadable
    same = known is not None and record.node_guid in (None, known.node_guid)  # else *fs* is not of the running kernel
    return Device(name, record, ports, known.number if known and same else None) if ports else None


def _port(fs: HostFS, device: infiniband.Device, owner: Owner) -> Port:
    try:
        link_layer = infiniband.link_layer(fs, *owner)
    except Unavailable:
        link_layer = ""
    return Port(owner, link_layer, _protocol(device, link_layer), tuple(infiniband_tables.netdevs(fs, *owner)))


def _protocol(device: infiniband.Device, link_layer: str) -> str:
    driver = device.pci.driver if device.pci else None
    if driver == "efa" or (device.node_type and device.node_type.name == "unspecified"):
        return "efa"
    if device.node_type and device.node_type.number == _RNIC:
        return "iwarp"
    return {"InfiniBand": "infiniband", "Ethernet": "roce"}.get(link_layer, "")


def _of_mode(mode: str, port: Port) -> bool:
    return mode == "auto" or port.protocol == {"ib": "infiniband", "roce": "roce"}[mode]


def _selected(settings: Rdma, owner: Owner) -> bool:
    return (not settings.devices or _matches(settings.devices, owner)) and not _matches(settings.exclude_devices, owner)


def _matches(patterns: Iterable[str], owner: Owner) -> bool:
    return any(fnmatchcase(owner.path if "/" in pattern else owner.device, pattern) for pattern in patterns)


def _may_have_ports(settings: Rdma, name: str) -> bool:
    """Whether any port of a device can be selected: of others not even the number of ports is read."""
    if any("/" not in pattern and fnmatchcase(name, pattern) for pattern in settings.exclude_devices):
        return False
    return not settings.devices or any(fnmatchcase(name, pattern.partition("/")[0]) for pattern in settings.devices)


def ports(devices: Iterable[Device]) -> Iterator[tuple[Device, Port]]:
    """Every port with its device."""
    return ((device, port) for device in devices for port in device.ports)
