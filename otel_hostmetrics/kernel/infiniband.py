"""RDMA devices and their ports: /sys/class/infiniband (Documentation/ABI/stable/sysfs-class-infiniband).

What a read costs: state, phys_state, rate, lid, sm_lid, lid_mask_count and cap_mask each ask the driver (ib_query_port; on
mlx5 several firmware commands), and each file of counters/ is one firmware command. The rest is kept in memory. nldev.py
has all of the first group but the rate in one query.

Counters are in ports/N/counters (what the port's PMA counts, in the units of the InfiniBand specification), in
ports/N/hw_counters (what the driver counts) and in hw_counters of the device (EFA, hfi1, mlx4, mlx5 in switchdev mode); a
port in another network namespace than the first one has none of these (netlink still has the second). Reading one of
hw_counters makes the driver fetch all of them for the next ``lifespan`` ms; on mlx5 with optional counters (since 5.16) only
the driver's first one does, rx_write_requests: read before the others, 28 files cost 1 call instead of 28 (measured).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import pci
from otel_hostmetrics.kernel.hostfs import HostFS

_T = TypeVar("_T")

_STATE: Final = re.compile(r"(\d{1,3}): ?(.{0,64})")
_RATE: Final = re.compile(r"(\d{1,6}(?:\.\d)?) Gb/sec \((\d{1,2})X(?: (\w{1,8}))?\)")
_GUID: Final = re.compile(r"[0-9a-fA-F]{4}(?::[0-9a-fA-F]{4}){3}")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")


class State(NamedTuple):
    """A number of the InfiniBand specification and the kernel's name for it: ``4: ACTIVE``, ``5: LinkUp``, ``1: CA``."""

    number: int
    name: str


class Rate(NamedTuple):
    """``400 Gb/sec (4X NDR)``."""

    bits_per_second: float  # of data, all lanes together
    lanes: int
    speed: str  # of a lane: SDR, DDR, QDR, FDR10, FDR, EDR, HDR, NDR, XDR; empty where an old kernel leaves SDR out


class Device(NamedTuple):
    """One RDMA device. None: this driver or kernel does not have the file."""

    name: str
    firmware: str | None  # fw_ver
    hca_type: str | None
    board_id: str | None
    revision: str | None  # hw_rev
    node_type: State | None
    node_guid: str | None
    system_guid: str | None  # sys_image_guid: the same for all devices of one card
    description: str | None  # node_desc
    pci: pci.Function | None  # device: None for software devices
    problems: tuple[Unavailable, ...]  # files that are there and could not be read or understood


class Port(NamedTuple):
    """One port of a device. None: this driver or kernel does not have the file."""

    device: str
    number: int
    link_layer: str | None  # "InfiniBand", "Ethernet"; iWARP and EFA are told apart by the node type and the driver
    state: State | None
    phys_state: State | None
    rate: Rate | None
    lid: int | None
    sm_lid: int | None
    lmc: int | None
    capabilities: int | None  # cap_mask
    problems: tuple[Unavailable, ...]


def devices(fs: HostFS) -> list[str]:
    """The names in /sys/class/infiniband. Raises Unavailable(ABSENT) where the kernel has no RDMA subsystem loaded."""
    return fs.names(fs.sys("class/infiniband"))


def device(fs: HostFS, name: str) -> Device:
    """All about a device that does not change while it is there; no question to the firmware."""
    problems: list[Unavailable] = []
    return Device(
        name,
        _known(problems, fw_ver, fs, name),
        _known(problems, hca_type, fs, name),
        _known(problems, board_id, fs, name),
        _known(problems, hw_rev, fs, name),
        _known(problems, node_type, fs, name),
        _known(problems, node_guid, fs, name),
        _known(problems, sys_image_guid, fs, name),
        _known(problems, node_desc, fs, name),
        pci.function(fs, fs.sys("class/infiniband", name, "device")),
        tuple(problems),
    )


def ports(fs: HostFS, device: str) -> list[int]:
    """ports/: numbered from 1, on a switch from 0. Raises Unavailable."""
    return sorted(int(name) for name in fs.names(fs.sys("class/infiniband", device, "ports")) if name.isdecimal() and len(name) < 10)


def ports_show_the_function(fs: HostFS, device: Device) -> bool:
    """Whether counters/ of every port of *device* is that of the same physical function.

    So it is with mlx5 in switchdev mode, whose other ports are representors (process_pma_cmd() in
    drivers/infiniband/hw/mlx5/mad.c, since 6.0). In that mode only has the device itself hw_counters (since 5.14).
    """
    driver = device.pci.driver if device.pci else None
    return driver == "mlx5_core" and os.path.exists(fs.sys("class/infiniband", device.name, "hw_counters"))


def port(fs: HostFS, device: str, number: int) -> Port:
    """A port's link and addresses; up to seven questions to the driver."""
    problems: list[Unavailable] = []
    return Port(
        device,
        number,
        _known(problems, link_layer, fs, device, number),
        _known(problems, state, fs, device, number),
        _known(problems, phys_state, fs, device, number),
        _known(problems, rate, fs, device, number),
        _known(problems, lid, fs, device, number),
        _known(problems, sm_lid, fs, device, number),
        _known(problems, lid_mask_count, fs, device, number),
        _known(problems, cap_mask, fs, device, number),
        tuple(problems),
    )


def fw_ver(fs: HostFS, device: str) -> str:
    """fw_ver: version of the firmware. Raises Unavailable."""
    return _text(fs, fs.sys("class/infiniband", device, "fw_ver"))


def hca_type(fs: HostFS, device: str) -> str:
    """hca_type: ``MT4129`` (mlx4, mlx5, hfi1 and others; no rule). Raises Unavailable."""
    return _text(fs, fs.sys("class/infiniband", device, "hca_type"))


def board_id(fs: HostFS, device: str) -> str:
    """board_id: the vendor's identifier of the card, ``MT_0000000838``. Raises Unavailable."""
    return _text(fs, fs.sys("class/infiniband", device, "board_id"))


def hw_rev(fs: HostFS, device: str) -> str:
    """hw_rev: revision of the chip. Raises Unavailable."""
    return _text(fs, fs.sys("class/infiniband", device, "hw_rev"))


def node_type(fs: HostFS, device: str) -> State:
    """node_type: 1 CA, 2 switch, 3 router, 4 RNIC (iWARP), 5 usNIC, 6 usNIC UDP, 7 unspecified (EFA). Raises Unavailable."""
    path = fs.sys("class/infiniband", device, "node_type")
    return parse_state(_text(fs, path), path)


def node_guid(fs: HostFS, device: str) -> str:
    """node_guid: ``0002:c903:00fa:4e00``. Raises Unavailable."""
    return _matching(fs, fs.sys("class/infiniband", device, "node_guid"), _GUID)


def sys_image_guid(fs: HostFS, device: str) -> str:
    """sys_image_guid, of the same form. Raises Unavailable."""
    return _matching(fs, fs.sys("class/infiniband", device, "sys_image_guid"), _GUID)


def node_desc(fs: HostFS, device: str) -> str:
    """node_desc: up to 64 bytes that an administrator may set, usually host and device name. Raises Unavailable."""
    return _text(fs, fs.sys("class/infiniband", device, "node_desc"))


def port_path(fs: HostFS, device: str, port: int, *parts: str) -> str:
    """A file or directory of a port."""
    return fs.sys("class/infiniband", device, "ports", str(port), *parts)


def link_layer(fs: HostFS, device: str, port: int) -> str:
    """ports/N/link_layer: InfiniBand, Ethernet or Unknown. Raises Unavailable."""
    return _text(fs, port_path(fs, device, port, "link_layer"))


def state(fs: HostFS, device: str, port: int) -> State:
    """ports/N/state: 0 NOP, 1 DOWN, 2 INIT, 3 ARMED, 4 ACTIVE, 5 ACTIVE_DEFER. Raises Unavailable."""
    path = port_path(fs, device, port, "state")
    return parse_state(_text(fs, path), path)


def phys_state(fs: HostFS, device: str, port: int) -> State:
    """ports/N/phys_state: 1 Sleep, 2 Polling, 3 Disabled, 4 training, 5 LinkUp, 6 error recovery, 7 Phy Test. Raises Unavailable."""
    path = port_path(fs, device, port, "phys_state")
    return parse_state(_text(fs, path), path)


def rate(fs: HostFS, device: str, port: int) -> Rate:
    """ports/N/rate. Raises Unavailable."""
    path = port_path(fs, device, port, "rate")
    return parse_rate(_text(fs, path), path)


def lid(fs: HostFS, device: str, port: int) -> int:
    """ports/N/lid: the port's address in its subnet; 0 on Ethernet. Raises Unavailable."""
    return int(_matching(fs, port_path(fs, device, port, "lid"), _HEX), 16)


def sm_lid(fs: HostFS, device: str, port: int) -> int:
    """ports/N/sm_lid: the address of the subnet manager; 0 when there is none. Raises Unavailable."""
    return int(_matching(fs, port_path(fs, device, port, "sm_lid"), _HEX), 16)


def lid_mask_count(fs: HostFS, device: str, port: int) -> int:
    """ports/N/lid_mask_count (LMC): the port answers to 2**LMC LIDs. Raises Unavailable."""
    return fs.integer(port_path(fs, device, port, "lid_mask_count"))


def cap_mask(fs: HostFS, device: str, port: int) -> int:
    """ports/N/cap_mask: PortInfo:CapabilityMask of the InfiniBand specification, a bit mask. Raises Unavailable."""
    return int(_matching(fs, port_path(fs, device, port, "cap_mask"), _HEX), 16)


def listed(fs: HostFS, directory: str) -> list[str]:
    """The names in a directory that a driver may lack, such as those of counters; empty without it. Raises Unavailable."""
    try:
        return fs.names(directory)
    except Unavailable as error:
        if error.reason is Reason.ABSENT:
            return []
        raise


def parse_state(text: str, what: str = "state") -> State:
    """``4: ACTIVE``. Raises Unavailable(MALFORMED)."""
    match = _STATE.fullmatch(text)
    if not match:
        raise Unavailable(Reason.MALFORMED, what, repr(text[:80]))
    return State(int(match[1]), match[2])


def parse_rate(text: str, what: str = "rate") -> Rate:
    """``400 Gb/sec (4X NDR)``, ``2.5 Gb/sec (1X SDR)``, ``10 Gb/sec (4X)``. Raises Unavailable(MALFORMED)."""
    match = _RATE.fullmatch(text)
    if not match:
        raise Unavailable(Reason.MALFORMED, what, repr(text[:80]))
    return Rate(float(match[1]) * 1e9, int(match[2]), match[3] or "")


def _known(problems: list[Unavailable], read: Callable[..., _T], *where: object) -> _T | None:
    """What *read* gives. A file that this driver lacks is None; one that could not be read is None and a problem."""
    try:
        return read(*where)
    except Unavailable as error:
        if error.reason not in (Reason.ABSENT, Reason.UNSUPPORTED):
            problems.append(error)
        return None


def _text(fs: HostFS, path: str) -> str:
    """A file with something in it. Raises Unavailable; ABSENT if it is empty, as drivers leave what they do not know."""
    text = fs.text(path)
    if not text:
        raise Unavailable(Reason.ABSENT, path, "empty")
    return text


def _matching(fs: HostFS, path: str, form: re.Pattern[str]) -> str:
    text = _text(fs, path)
    if not form.fullmatch(text):
        raise Unavailable(Reason.MALFORMED, path, repr(text[:80]))
    return text
