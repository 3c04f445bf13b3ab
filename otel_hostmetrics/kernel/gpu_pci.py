"""GPUs as the PCI bus sees them, with or without a driver, and whether they sleep.

Documentation/ABI/testing/sysfs-bus-pci, sysfs-devices-power. Reading power/runtime_status never wakes a device, nor do files that
tell what the kernel has remembered: vendor, device, class, driver. Almost anything else that is asked of a sleeping GPU does.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
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
        return self._status().startswith(b"suspend")

    def stuck(self) -> bool:
        """Whether putting it to sleep, or waking it, went wrong: the kernel then tries neither again."""
        return self._status().startswith(b"error")

    def _status(self) -> bytes:
        try:
            return os.pread(self._fd, 16, 0) if self._fd >= 0 else b""
        except OSError:  # unplugged
            return b""

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Bus:
    """Whether a device answers on its bus. Asking wakes it if it sleeps."""

    __slots__ = ("_fd", "_path", "gone")

    def __init__(self, path: str) -> None:
        """*path* is the device's directory, in which nothing is opened until the first question."""
        self._path, self._fd = f"{path}/config", -1
        self.gone = False  # as of the last question, the kernel has removed the device

    def answers(self) -> bool | None:
        """None where that cannot be known. A device that is off its bus reads as all ones (include/linux/pci.h, PCI_POSSIBLE_ERROR).

        Asked are command and status, of which no device has all bits set; the ID before them is all ones with every virtual function.
        """
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.pread(self._fd, 4, 4)
        except OSError as error:
            self.gone = unavailable(error, self._path).reason is Reason.GONE
            return False if self.gone else None
        return found != b"\xff\xff\xff\xff" if len(found) == 4 else None

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
