"""AMD's and Intel's GPUs, which tell all in sysfs and /proc/PID/fdinfo."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, AttributeValue, Metric
from otel_hostmetrics.catalogue.process import process
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.drm_fdinfo import Clients
from otel_hostmetrics.kernel.gpu_pci import Gpu, gpus
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.proc_exe import Executables, identity
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Gpu as Settings
from otel_hostmetrics.sources.gpu.points import Bound, Keyed, Names, Value
from otel_hostmetrics.sources.gpu.sysfs_device import Card, Device
from otel_hostmetrics.sources.gpu.usage import Usage


class SysfsGpus:
    """A Backend for the GPUs of one vendor that are bound to one of *drivers*; *make* opens a card."""

    def __init__(
        self, fs: HostFS, settings: Settings, names: Names, vendor: str, drivers: Collection[str], make: Callable[[HostFS, Gpu], Card]
    ) -> None:
        self._fs, self._settings, self._names = fs, settings, names
        self._vendor, self._drivers, self._make = vendor, drivers, make
        self._devices: list[Device] = []
        self._clients = Clients(fs) if settings.processes else None
        self._executables = Executables(fs.proc())
        self._slow_at = float("-inf")
        self._info, self._processes, self._usage = Keyed(), Keyed(), Usage(drivers)
        self.refreshed = True
        self.again = 0.0
        self.generation = 0
        self.bound: list[Bound] = []
        self.problems: list[Unavailable] = []

    @property
    def devices(self) -> int:
        return len(self._devices)

    def read(self) -> Sequence[Value]:
        now = time.monotonic()
        self.refreshed = now - self._slow_at >= self._settings.slow_interval or any(device.unplugged for device in self._devices)
        unplugged: list[Unavailable] = []
        if self.refreshed:
            self._slow_at = now
            unplugged = self._look()
        woken = [device.wake(self.refreshed) for device in self._devices]
        if any(woken):
            self._bind()
        values = [value for device in self._devices for value in device.read(self.refreshed)]
        self.again = max((device.again for device in self._devices), default=0.0)
        self.problems = [*unplugged, *(error for device in self._devices for error in device.problems)]
        return values

    def _look(self) -> list[Unavailable]:
        """Find GPUs that came and went, and processes that opened one. Gives those that were unplugged."""
        if self._clients:
            self._clients.scan()
        present = {gpu.address: gpu for gpu in gpus(self._fs) if gpu.vendor == self._vendor and gpu.driver in self._drivers}
        known = {device.gpu.address: device for device in self._devices}
        if known.keys() == present.keys():
            return []
        away = known.keys() - present.keys()
        for address in away:
            known[address].close()
        self._devices = [known.get(address) or Device(self._fs, gpu, self._make) for address, gpu in present.items()]
        self._bind()
        unplugged = [address for address in sorted(away) if not os.path.exists(self._fs.sys("bus/pci/devices", address))]
        return [Unavailable(Reason.GONE, f"GPU {address}", "unplugged") for address in unplugged]

    def _bind(self) -> None:
        self.bound, offset = [], 0
        for device in self._devices:
            self.bound += device.bound(self._names, offset)
            offset += len(device.names())
        self.generation += 1

    def columns(self) -> Mapping[Metric, Column]:
        columns = self._info.columns({rows.INFO: [(_describe(device), 1) for device in self._devices]})
        if self._clients:
            ids = {device.gpu.address: device.identity.id for device in self._devices}
            self._executables.begin()
            columns.update(self._processes.columns(self._usage.points(self._clients.read(), ids, self._process)))
        return columns

    def _process(self, pid: int) -> Attributes:
        return process(pid, self._executables.name(pid, identity(self._fs.proc(), pid)))

    def facts(self) -> Mapping[str, object]:
        return {device.gpu.address: list(device.names()) for device in self._devices}

    def close(self) -> None:
        for device in self._devices:
            device.close()


def _describe(device: Device) -> Attributes:
    """The attributes of hw.gpu.info, of a GPU that sleeps as far as known."""
    known: dict[str, AttributeValue] = {
        "hw.model": device.described.get("product_name", ""), "hw.serial_number": device.described.get("serial_number", ""),
        "hw.firmware_version": device.described.get("vbios_version", ""), "hw.gpu.pci.address": device.gpu.address,
    }  # fmt: skip
    return device.identity.attributes(rows.INFO, {key: value for key, value in known.items() if value})
