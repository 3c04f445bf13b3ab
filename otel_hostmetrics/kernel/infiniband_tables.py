"""Tables of a port in /sys/class/infiniband: GIDs, P_Keys, and the network interfaces found through them.

Documentation/ABI/stable/sysfs-class-infiniband. A table is a directory of numbered files, one for each entry, used or not.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import netdev
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.infiniband import listed, port_path

_UNUSED: Final = 8  # unused entries in a row after which we stop: soft-RoCE has 1024 GIDs, each three files, and uses two
_ENTRIES: Final = 256  # of one table; mlx5 has 255 GIDs and 128 P_Keys
_GID: Final = re.compile(r"[0-9a-fA-F]{4}(?::[0-9a-fA-F]{4}){7}")
_PKEY: Final = re.compile(r"0x[0-9a-fA-F]{1,4}")


class Gid(NamedTuple):
    """One used entry of a port's GID table."""

    number: int  # in the table: what programs take as GID index
    address: str  # eight groups of four hexadecimal digits
    type: str | None  # gid_attrs/types: "IB/RoCE v1", "RoCE v2"
    netdev: str | None  # gid_attrs/ndevs: RoCE and iWARP only


def gids(fs: HostFS, device: str, port: int, limit: int = _ENTRIES) -> list[Gid]:
    """ports/N/gids with gid_attrs: the entries in use among the first *limit*, until eight unused ones in a row."""
    attributes = port_path(fs, device, port, "gid_attrs")
    return [
        Gid(number, address, _attribute(fs, f"{attributes}/types/{number}"), _attribute(fs, f"{attributes}/ndevs/{number}"))
        for number, address in _used(fs, port_path(fs, device, port, "gids"), _GID, limit)
    ]


def pkeys(fs: HostFS, device: str, port: int, limit: int = _ENTRIES) -> list[int]:
    """ports/N/pkeys: the partitions this port belongs to (bit 15: as a full member), until eight unused entries in a row."""
    return [int(text, 16) for _, text in _used(fs, port_path(fs, device, port, "pkeys"), _PKEY, limit)]


def netdevs(fs: HostFS, device: str, port: int) -> list[str]:
    """The network interfaces of a port: those of its GIDs (RoCE), else those of the device at this port (IPoIB).

    A GID tells a name whichever network namespace its interface is in (print_ndev() in drivers/infiniband/core/sysfs.c). One
    that is the interface of another device in the namespace of this sysfs is left out; one that is not there may be elsewhere.
    device/net/X/dev_port counts from 0 (Documentation/ABI/testing/sysfs-class-net).
    """
    of_gids = dict.fromkeys(gid.netdev for gid in gids(fs, device, port, _UNUSED) if gid.netdev)
    if of_gids:
        return [name for name in of_gids if members(fs, device, port, name)]
    directory = fs.sys("class/infiniband", device, "device/net")
    return [name for name in listed(fs, directory) if _attribute(fs, f"{directory}/{name}/dev_port") == str(port - 1)]


def members(fs: HostFS, device: str, port: int, name: str) -> list[str]:
    """The interfaces of a device's own that *name* stands for: itself; of a bond those of the device's functions (RoCE LAG).

    *name* where sysfs cannot tell, empty where it is another device's.
    """
    path = fs.sys("class/infiniband", device, "device")
    if not os.path.exists(path) or not netdev.exists(fs, name):  # soft-RoCE; another namespace
        return [name]
    own = os.path.realpath(path)
    found = {each: behind for each in netdev.physical(fs, name) if (behind := netdev.device(fs, each))}
    if own not in found.values() and port == 1:
        return []
    return [each for each, behind in found.items() if behind == own or _joined(own, behind)]


def _joined(own: str, other: str) -> bool:
    """Whether *other* is another function of the same card, and has no RDMA device of its own: it is a port of *own*."""
    slot, _, number = own.rpartition(".")
    return number.isdecimal() and other.rpartition(".")[0] == slot and not os.path.exists(f"{other}/infiniband")


def _attribute(fs: HostFS, path: str) -> str | None:
    try:
        return fs.text(path) or None
    except Unavailable:  # EINVAL: this entry has no such attribute
        return None


def _used(fs: HostFS, directory: str, form: re.Pattern[str], limit: int) -> list[tuple[int, str]]:
    """The used entries, by number. The directory is never listed, its end is where a file is missing."""
    found: list[tuple[int, str]] = []
    unused = 0
    for number in range(limit):
        try:
            text = fs.text(f"{directory}/{number}")
        except Unavailable as error:
            if error.reason is Reason.ABSENT:
                break
            text = ""  # EINVAL: not in use
        if form.fullmatch(text) and text.strip("0x:"):
            found.append((number, text))
            unused = 0
        else:
            unused += 1
            if unused == _UNUSED:
                break
    return found
