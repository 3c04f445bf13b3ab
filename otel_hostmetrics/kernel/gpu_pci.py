"""GPUs as the PCI bus sees them, with or without a driver, and whether they sleep.

Documentation/ABI/testing/sysfs-bus-pci, sysfs-devices-power. Reading power/runtime_status never wakes a device, nor do files that
tell what the kernel has remembered: vendor, device, class, driver. Almost anything else that is asked of a sleeping GPU does.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.pci import driver

NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086
VENDORS: Final = {NVIDIA: "NVIDIA", AMD: "AMD", INTEL: "Intel"}
_DISPLAY, _ACCELERATOR = 0x03, 0x12  # base classes; AMD's Instinct are accelerators, as are Intel's NPUs, which are no GPUs


class Gpu(NamedTuple):
    """One GPU of a vendor we know."""

    address: str  # 0000:3b:00.0
    path: str  # its directory in sysfs
    vendor: str
    device: int
    driver: str  # empty: none is bound


def gpus(fs: HostFS) -> list[Gpu]:
    """All of them, by address. Empty where sysfs has no PCI bus."""
    try:
        addresses = fs.names(fs.sys("bus/pci/devices"))
    except Unavailable:
        return []
    return [found for address in addresses if (found := _gpu(fs, address))]


def _gpu(fs: HostFS, address: str) -> Gpu | None:
    path = os.path.realpath(fs.sys("bus/pci/devices", address))
    try:
        vendor, device, kind = (int(fs.text(f"{path}/{name}"), 16) for name in ("vendor", "device", "class"))
    except (Unavailable, ValueError):  # unplugged meanwhile
        return None
    if kind >> 16 != _DISPLAY and not (kind >> 16 == _ACCELERATOR and vendor == AMD):
        return None
    return Gpu(address, path, VENDORS[vendor], device, driver(path) or "") if vendor in VENDORS else None


class RuntimePower:
    """Whether a device sleeps (runtime power management), asked again and again through one descriptor."""

    __slots__ = ("_fd", "managed")

    def __init__(self, path: str) -> None:
        """*path* is the device's directory. One without the file never sleeps."""
        try:
            self._fd = os.open(f"{path}/power/runtime_status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self.managed = _text(f"{path}/power/control") == b"auto"  # may sleep as soon as nobody holds it

    def asleep(self) -> bool:
        """Also where it is on its way to sleep."""
        if self._fd < 0:
            return False
        try:
            return os.pread(self._fd, 16, 0).startswith(b"suspend")
        except OSError:  # unplugged
            return False

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _text(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(16).strip()
    except OSError:
        return b""
