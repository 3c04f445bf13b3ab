"""The network interfaces of ports that we can ask by ioctl and netlink: those that are proved to be in our network namespace.

A name proves nothing: the eth0 of a pod is not that of its host. The kernel tells a port's interface by netlink only if it
is in the namespace of who asks (fill_port_info() in drivers/infiniband/core/nldev.c). And ethtool tells the place on the bus
of an interface of ours, which has to be that of the device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import infiniband_tables, netdev
from otel_hostmetrics.kernel.ethtool import Ethtool
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.sources.rdma.devices import Device, Owner, Port

_CURE = "run in the host's network namespace (hostNetwork: true, --network=host)"


class Netdev(NamedTuple):
    """An interface of a port, in our network namespace. The port of a RoCE LAG has those of both physical ports."""

    owner: Owner
    name: str


class Interfaces(NamedTuple):
    """What can be asked, and what cannot."""

    netdevs: tuple[Netdev, ...] = ()
    problems: tuple[Unavailable, ...] = ()


def place(name: str) -> str:
    """Where on its bus the device of our interface *name* is: ``0000:3b:00.0``; empty if there is none, or it does not say."""
    try:
        with Ethtool() as ethtool:
            return ethtool.driver(name).bus
    except Unavailable:
        return ""


def interfaces(fs: HostFS, devices: Sequence[Device], nldev: Nldev | None, at: Callable[[str], str] = place) -> Interfaces:
    """Of every port of the running kernel. *at* tells where an interface of our namespace is, see :func:`place`."""
    found: list[Netdev] = []
    named: list[Owner] = []
    lost: list[Owner] = []
    for device in devices:
        told = _told(nldev, device)
        for port in device.ports if device.number is not None else ():
            ours = told.get(port.owner.number)
            name = ours or next(iter(port.netdevs), None)
            if name is None:
                continue
            reached = _reached(fs, port, name, ours, at)
            found += [Netdev(port.owner, each) for each in reached]
            named.append(port.owner)
            if not reached and netdev.exists(fs, name):
                lost.append(port.owner)
    return Interfaces(tuple(found), _problems(lost if found else named))


def _told(nldev: Nldev | None, device: Device) -> dict[int, str]:
    """By port: the name of its interface, if that is in our namespace."""
    if nldev is None or device.number is None:
        return {}
    try:
        return {port.number: port.netdev for port in nldev.ports(device.number) if port.netdev}
    except Unavailable:  # told by who reads the state
        return {}


def _reached(fs: HostFS, port: Port, name: str, ours: str | None, at: Callable[[str], str]) -> list[str]:
    members = infiniband_tables.members(fs, *port.owner, name) or [name]
    return [each for each in members if each == ours or _here(fs, each, at)]


def _here(fs: HostFS, name: str, at: Callable[[str], str]) -> bool:
    device = netdev.device(fs, name)
    return device is not None and at(name) == os.path.basename(device)


def _problems(lost: Sequence[Owner]) -> tuple[Unavailable, ...]:
    """One for all: they are in the same place."""
    if not lost:
        return ()
    names = ", ".join(owner.path for owner in lost)
    return (Unavailable(Reason.UNREADABLE, f"network interfaces of {names}", f"in another network namespace: {_CURE}"),)
