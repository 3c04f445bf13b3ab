"""PCI functions: where the ``device`` link of a device leads, as in /sys/bus/pci/devices.

Documentation/ABI/testing/sysfs-bus-pci.
"""

import os
import re
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_T = TypeVar("_T")
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_SPEED: Final = re.compile(r"(\d{1,3}(?:\.\d)?) GT/s.*")


class Link(NamedTuple):
    """The PCI Express link of a function. None: it has none, or the kernel says it does not know."""

    speed: float | None  # GT/s per lane, as negotiated
    width: int | None  # lanes, as negotiated
    max_speed: float | None
    max_width: int | None


class Function(NamedTuple):
    """One PCI function. None: no such file, or the kernel says it does not know."""

    address: str  # 0000:3b:00.0
    vendor: int | None
    device: int | None
    driver: str | None  # name of the bound driver
    numa_node: int | None
    link_speed: float | None  # GT/s per lane, as negotiated
    link_width: int | None  # lanes, as negotiated
    max_link_speed: float | None
    max_link_width: int | None
    virtual_functions: int | None  # sriov_numvfs: enabled ones; None on a virtual function
    physical_function: str | None  # address that physfn leads to: this function is a virtual one


def function(fs: HostFS, path: str) -> Function | None:
    """The function a sysfs link or directory stands for; None where there is none, or where it is no PCI function."""
    where = os.path.realpath(path)
    address = os.path.basename(where)
    if not _ADDRESS.fullmatch(address):
        return None
    node = _known(fs.integer, f"{where}/numa_node")
    return Function(
        address,
        _hexadecimal(fs, f"{where}/vendor"),
        _hexadecimal(fs, f"{where}/device"),
        driver(where),
        node if node is not None and node >= 0 else None,  # -1: the firmware does not say
        *link(fs, where),
        _known(fs.integer, f"{where}/sriov_numvfs"),
        _target(f"{where}/physfn"),
    )


def link(fs: HostFS, path: str) -> Link:
    """Of the function with the directory *path*. Wakes one that sleeps: Linux 6.18, and stable kernels since."""
    return Link(
        _speed(fs, f"{path}/current_link_speed"),
        _width(fs, f"{path}/current_link_width"),
        _speed(fs, f"{path}/max_link_speed"),
        _width(fs, f"{path}/max_link_width"),
    )


def slot_link(fs: HostFS, path: str) -> Link:
    """Of a graphics card with its slot. *path* is the real directory of its GPU.

    Many a card has a switch (Vega 20, Navi and Arc on), of whose links inside the card the GPU tells the fastest there can be, or
    2.5 GT/s and one lane: the slot's is that of the upstream port, which like the downstream port is of the GPU's maker. It is no
    root port, which has no other above it.
    """
    downstream = os.path.dirname(path)
    upstream = os.path.dirname(downstream)
    ports = (downstream, upstream, os.path.dirname(upstream))
    if not all(_ADDRESS.fullmatch(os.path.basename(port)) for port in ports):
        return link(fs, path)
    gpu, *makers = (_hexadecimal(fs, f"{each}/vendor") for each in (path, downstream, upstream))
    return link(fs, upstream if makers == [gpu, gpu] else path)


def driver(path: str) -> str | None:
    """Name of the driver that is bound to the function with the directory *path*."""
    return _target(f"{path}/driver")


def parse_link_speed(text: str) -> float | None:
    """``16.0 GT/s PCIe``, before 5.6 ``16 GT/s``, in GT/s; None for ``Unknown`` and what is no speed."""
    match = _SPEED.fullmatch(text)
    return float(match[1]) if match else None


def _known(read: Callable[[str], _T], path: str) -> _T | None:
    try:
        return read(path)
    except Unavailable:  # not a PCI Express device, no SR-IOV, an older kernel
        return None


def _hexadecimal(fs: HostFS, path: str) -> int | None:
    text = _known(fs.text, path)
    return int(text, 16) if text and re.fullmatch(r"0x[0-9a-f]{1,8}", text) else None


def _speed(fs: HostFS, path: str) -> float | None:
    return parse_link_speed(_known(fs.text, path) or "")


def _width(fs: HostFS, path: str) -> int | None:
    """Lanes; 0 and 255 mean that the link is down or its state unknown."""
    lanes = _known(fs.integer, path)
    return lanes if lanes and lanes < 255 else None


def _target(link: str) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:  # no driver bound, not a virtual function
        return None
