"""AMD's and Intel's GPUs, which tell all in sysfs and /proc/PID/fdinfo."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, AttributeValue, Metric, Series
from otel_hostmetrics.catalogue.process import process
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.drm_fdinfo import Clients
from otel_hostmetrics.kernel.gpu_pci import Gpu, RuntimePower, gpus
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.proc_exe import Executables, identity
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Gpu as Settings
from otel_hostmetrics.sources.gpu.engines import Engines
from otel_hostmetrics.sources.gpu.identity import Identity
from otel_hostmetrics.sources.gpu.points import Bound, Keyed, Names, Value
from otel_hostmetrics.sources.gpu.sysfs_rows import meanings
from otel_hostmetrics.sources.gpu.usage import Usage

_UTILIZATION = ("vram.used", "vram.total")  # of which hw.gpu.memory.utilization is made


class Card(Protocol):
    """What kernel/amdgpu.py and kernel/intel_gpu.py have in common."""

    names: tuple[str, ...]
    fast_names: tuple[str, ...]
    denied: list[Unavailable]

    @property
    def gone(self) -> bool: ...
    def read(self, slow: bool) -> list[int | None]: ...
    def identity(self) -> dict[str, str]: ...
    def close(self) -> None: ...


class _Device:
    """One GPU: its files are opened when it is awake for the first time, because that would wake it."""

    def __init__(self, fs: HostFS, gpu: Gpu, make: Callable[[HostFS, Gpu], Card]) -> None:
        self._fs, self.gpu, self._make = fs, gpu, make
        self._power = RuntimePower(gpu.path)
        self.card: Card | None = None
        self.described: dict[str, str] = {}
        self._ratio: tuple[int, int] | None = None
        self._engines = Engines(())

    def wake(self, looked: bool) -> bool:
        """Open the files if that was not done, or was with a driver that is gone, and the GPU does not sleep; whether it was done now.

        Where there was nothing to open, a driver may have come since: that is tried again whenever GPUs are *looked* for.
        """
        if self.card is not None:
            if not self.card.gone and (self.card.fast_names or not looked):
                return False
            self._power.close()
            self._power = RuntimePower(self.gpu.path)  # the old one is gone, too, if the device is
        if self._power.asleep():
            return False
        if self.card is not None:
            self.card.close()
        self.card = self._make(self._fs, self.gpu)
        self.described = self.card.identity() or self.described  # while its driver is away it is the same GPU
        names = self.card.names
        self._ratio = (names.index("vram.used"), names.index("vram.total")) if set(_UTILIZATION) <= set(names) else None
        self._engines = Engines(names)
        return True

    @property
    def identity(self) -> Identity:
        address = self.gpu.address
        uuid = self.described.get("unique_id", "")
        name = self.described.get("product_name") or f"{self.gpu.vendor} {self.gpu.device:04x}"
        return Identity(uuid or address, name, self.gpu.vendor, address, uuid or address)

    def names(self) -> tuple[str, ...]:
        own = self.card.names if self.card else ()
        return (*own, *(("vram.utilization",) if self._ratio else ()), *self._engines.names)

    def bound(self, names: Names, offset: int) -> list[Bound]:
        if self.card is None:
            return []
        who, fast = self.identity, frozenset((*self.card.fast_names, "vram.utilization", *self._engines.names))
        found: dict[Series, Bound] = {}
        for place, name in enumerate(self.names(), offset):
            for metric, more, scale in meanings(name):
                series = names.series(metric, who.attributes(metric, more))
                found.setdefault(series, Bound(series, place, scale, name not in fast))  # the first of two files that mean the same
        return list(found.values())

    def read(self, slow: bool) -> list[Value]:
        if self.card is None:
            return []
        if self._power.asleep():
            return [None] * len(self.names())
        values: list[Value] = [*self.card.read(slow)]
        if self._ratio:
            used, total = (values[place] for place in self._ratio)
            values.append(used / total if used is not None and total else None)
        return [*values, *self._engines.read(values, time.monotonic())]

    def close(self) -> None:
        if self.card:
            self.card.close()
        self._power.close()


class SysfsGpus:
    """A Backend for the GPUs of one vendor that are bound to one of *drivers*; *make* opens a card."""

    def __init__(
        self, fs: HostFS, settings: Settings, names: Names, vendor: str, drivers: Collection[str], make: Callable[[HostFS, Gpu], Card]
    ) -> None:
        self._fs, self._settings, self._names = fs, settings, names
        self._vendor, self._drivers, self._make = vendor, drivers, make
        self._devices: list[_Device] = []
        self._clients = Clients(fs) if settings.processes else None
        self._executables = Executables(fs.proc())
        self._slow_at = float("-inf")
        self._info, self._processes, self._usage = Keyed(), Keyed(), Usage(drivers)
        self.refreshed = True
        self.generation = 0
        self.bound: list[Bound] = []
        self.problems: list[Unavailable] = []

    @property
    def devices(self) -> int:
        return len(self._devices)

    def read(self) -> Sequence[Value]:
        now = time.monotonic()
        self.refreshed = now - self._slow_at >= self._settings.slow_interval
        if self.refreshed:
            self._slow_at = now
            self._look()
        woken = [device.wake(self.refreshed) for device in self._devices]
        if any(woken):
            self._bind()
        return [value for device in self._devices for value in device.read(self.refreshed)]

    def _look(self) -> None:
        """Find GPUs that came and went, and processes that opened one."""
        if self._clients:
            self._clients.scan()
        present = {gpu.address: gpu for gpu in gpus(self._fs) if gpu.vendor == self._vendor and gpu.driver in self._drivers}
        known = {device.gpu.address: device for device in self._devices}
        if known.keys() == present.keys():
            return
        for address in known.keys() - present.keys():
            known[address].close()
        self._devices = [known.get(address) or _Device(self._fs, gpu, self._make) for address, gpu in present.items()]
        self._bind()

    def _bind(self) -> None:
        self.bound, offset = [], 0
        for device in self._devices:
            self.bound += device.bound(self._names, offset)
            offset += len(device.names())
        self.problems = [error for device in self._devices if device.card for error in device.card.denied]
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


def _describe(device: _Device) -> Attributes:
    """The attributes of hw.gpu.info, of a GPU that sleeps as far as known."""
    known: dict[str, AttributeValue] = {
        "hw.model": device.described.get("product_name", ""), "hw.serial_number": device.described.get("serial_number", ""),
        "hw.firmware_version": device.described.get("vbios_version", ""), "hw.gpu.pci.address": device.gpu.address,
    }  # fmt: skip
    return device.identity.attributes(rows.INFO, {key: value for key, value in known.items() if value})
