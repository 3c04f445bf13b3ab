"""Network interfaces: /sys/class/net (Documentation/ABI/testing/sysfs-class-net).

Of the network namespace in which this sysfs was mounted.
"""

from __future__ import annotations

import os

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_DEPTH = 8  # interfaces above each other; the kernel's limit (MAX_NEST_DEV)


def interfaces(fs: HostFS) -> dict[int, str]:
    """Index -> name. Empty where sysfs has no network; an interface that vanishes meanwhile is left out."""
    found: dict[int, str] = {}
    try:
        names = fs.names(fs.sys("class/net"))
    except Unavailable:
        return found
    for name in names:
        try:
            found[fs.integer(fs.sys("class/net", name, "ifindex"))] = name
        except Unavailable:  # bonding_masters is a file; interfaces come and go
            continue
    return found


def namespace(fs: HostFS) -> int:
    """The inode of the network namespace whose interfaces this sysfs shows; 0 where that cannot be known.

    Our own sysfs is taken to be of our own namespace, the host's of that of its first process (which takes CAP_SYS_PTRACE).
    """
    ours = fs.sys() == "/sys"
    try:
        return os.stat("/proc/self/ns/net" if ours else fs.proc("1", "ns", "net")).st_ino
    except OSError:
        return 0


def exists(fs: HostFS, name: str) -> bool:
    """Whether the namespace of this sysfs has it."""
    return os.path.exists(fs.sys("class/net", name))


def device(fs: HostFS, name: str) -> str | None:
    """Directory of the device it belongs to, without links; None for a virtual interface, and for one that is not there."""
    path = fs.sys("class/net", name, "device")
    return os.path.realpath(path) if os.path.exists(path) else None


def physical(fs: HostFS, name: str, depth: int = _DEPTH) -> list[str]:
    """The interfaces with a device that it is made of: of a bond its slaves, of a VLAN the one below it; else itself."""
    if device(fs, name) or not depth:
        return [name]
    try:
        below = [each.removeprefix("lower_") for each in fs.names(fs.sys("class/net", name)) if each.startswith("lower_")]
    except Unavailable:
        return []
    return [found for each in below for found in physical(fs, each, depth - 1)]


def mtu(fs: HostFS, name: str) -> int:
    """mtu: bytes. Raises Unavailable."""
    return fs.integer(fs.sys("class/net", name, "mtu"))


def operstate(fs: HostFS, name: str) -> str:
    """operstate: up, down, dormant, lowerlayerdown, testing, notpresent or unknown (RFC 2863). Raises Unavailable."""
    return fs.text(fs.sys("class/net", name, "operstate"))


def speed(fs: HostFS, name: str) -> int:
    """speed: bits per second of the link. Raises Unavailable; UNSUPPORTED while the link is down or for a device without a speed."""
    path = fs.sys("class/net", name, "speed")
    megabits = fs.integer(path)
    if megabits <= 0:  # -1: SPEED_UNKNOWN
        raise Unavailable(Reason.UNSUPPORTED, path, "not known to the driver")
    return megabits * 1_000_000


def carrier_changes(fs: HostFS, name: str) -> int:
    """carrier_changes: how often the link went up or down. Raises Unavailable."""
    return fs.integer(fs.sys("class/net", name, "carrier_changes"))


def carrier_up_count(fs: HostFS, name: str) -> int:
    """carrier_up_count. Since 4.16. Raises Unavailable."""
    return fs.integer(fs.sys("class/net", name, "carrier_up_count"))


def carrier_down_count(fs: HostFS, name: str) -> int:
    """carrier_down_count. Since 4.16. Raises Unavailable."""
    return fs.integer(fs.sys("class/net", name, "carrier_down_count"))
