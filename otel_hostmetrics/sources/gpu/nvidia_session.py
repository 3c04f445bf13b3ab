"""NVML from one initialisation to its shutdown: the devices it has then, and what they say."""

from __future__ import annotations

import atexit
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.model import Attributes, Metric, Number
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.gpu_pci import RuntimePower
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nvml import Device, Failure, Nvml, pci_address
from otel_hostmetrics.kernel.nvml_events import XidEvents
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Gpu
from otel_hostmetrics.sources.gpu.health import FAILED, STATES
from otel_hostmetrics.sources.gpu.identity import Identity
from otel_hostmetrics.sources.gpu.nvidia_device import NvidiaDevice, identity
from otel_hostmetrics.sources.gpu.nvidia_processes import NvidiaProcesses
from otel_hostmetrics.sources.gpu.points import Bound, Keyed, Names, Value

_AT_EXIT = 1.0  # s: how long the end of the process waits for a shutdown that is under way in another thread


class Memory:
    """What outlives a session: series, GPUs that were seen, XIDs that were counted."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.seen: dict[str, Identity] = {}
        self.xids: Counter[tuple[str, int]] = Counter()
        self.processes = Keyed()
        self.counted = Keyed(time.time_ns())
        self.plugged: set[str] = set()  # PCI addresses at which sysfs has shown a GPU
        self._unplugged: list[Unavailable] = []

    def look(self, present: Collection[str]) -> None:
        """Forget GPUs that are no longer at any of the PCI addresses that sysfs shows: they are not lost but gone."""
        away = self.plugged - set(present)
        self.plugged = set(present)
        gone = {uuid: pci_address(who.bus_id) for uuid, who in self.seen.items() if pci_address(who.bus_id) in away}
        self.seen = {uuid: who for uuid, who in self.seen.items() if uuid not in gone}
        self._unplugged += [Unavailable(Reason.GONE, f"GPU {address}", "unplugged") for address in gone.values()]

    def unplugged(self) -> list[Unavailable]:
        """Those not yet told."""
        told, self._unplugged = self._unplugged, []
        return told


class Session:
    """Open NVML. Raises Unavailable from the constructor, with nothing left open.

    *powers* are the NVIDIA GPUs of sysfs by PCI address. While one sleeps, the others are opened by their address: NVML's
    handles by index would wake it. Those *given_away* to another driver, as to a guest, are not missed.
    """

    def __init__(
        self, fs: HostFS, settings: Gpu, memory: Memory, powers: Mapping[str, RuntimePower], given_away: Collection[str] = ()
    ) -> None:
        self.nvml = Nvml(settings.nvml_library)
        self._settings, self._memory, self._powers = settings, memory, powers
        # The thread that reads also shuts down; the end of the process must not overtake it, nor wait for a driver that hangs.
        self._closed = threading.Event()
        atexit.register(self._closed.wait, _AT_EXIT)
        self._refusals: list[Unavailable] = []
        self._devices: list[NvidiaDevice] = []
        self._events: XidEvents | None = None
        self.count = 0
        self.generation = 0
        self.columns: dict[Metric, Column] = {}
        try:
            self._start(fs, given_away)
        except BaseException:
            self.close()
            raise

    def _start(self, fs: HostFS, given_away: Collection[str]) -> None:
        self._left_out = [address for address, power in self._powers.items() if power.asleep()]
        for ask in self._choose():
            self._open(ask)
        self._driver = self.nvml.driver_version()
        memory, present = self._memory, {each.device.uuid for each in self._devices}
        memory.seen = {uuid: who for uuid, who in memory.seen.items() if pci_address(who.bus_id) not in given_away}
        gone = (who for uuid, who in memory.seen.items() if uuid not in present)
        self._missing = [who for who in gone if pci_address(who.bus_id) not in self._left_out]
        if self._refusals and not self._devices and not self._missing:
            raise self._refusals[0]
        memory.seen.update({each.device.uuid: identity(each.device) for each in self._devices if not each.is_instance})
        self._processes = NvidiaProcesses(fs, self.nvml, [each.device for each in self._devices]) if self._settings.processes else None
        self._listen()
        self._rebind()

    def _choose(self) -> list[Callable[[], Device]]:
        """How to get at each GPU to be opened. Raises Unavailable if not even their number is known."""
        if self._left_out:
            self.count = len(self._powers)
            return [partial(self.nvml.by_address, address) for address in self._powers if address not in self._left_out]
        self.count = self.nvml.count()
        return [partial(self.nvml.device, index) for index in range(self.count)]

    def _open(self, ask: Callable[[], Device]) -> None:
        """One GPU and its MIG instances, probed."""
        try:
            device = ask()
            instances = self.nvml.instances(device)
            power = self._powers.get(device.pci_address)
            opened = [NvidiaDevice(self.nvml, each, device, power, self._settings) for each in (device, *instances)]
        except Unavailable as error:
            self._refusals.append(error)
        except Failure as failure:
            self._refusals.append(self.nvml.unavailable(failure.call, failure.code))
        else:
            opened[0].instances = [each.uuid for each in instances]
            self._devices += opened
            self._refusals += [self.nvml.unavailable(f"{call} of {device.pci_address}", 4) for each in opened for call in each.denied]

    def _listen(self) -> None:
        gpus = [each.device for each in self._devices if not each.is_instance]
        if not self._settings.xid or not gpus:
            return
        try:
            self._events = XidEvents(self.nvml, gpus)
        except Unavailable as error:
            if error.reason is not Reason.UNSUPPORTED:  # vGPU guests and WSL have no events, and never will
                self._refusals.append(error)

    def _rebind(self) -> None:
        names, offset = self._memory.names, 0
        bound: list[Bound] = []
        for each in self._devices:
            bound += each.bound(names, offset)
            offset += len(each.names())
        for who in self._missing:
            for place, state in enumerate(STATES, offset):
                attributes = who.attributes(hardware.STATUS, {hardware.STATE: state})
                bound.append(Bound(names.series(hardware.STATUS, attributes), place))
            offset += len(STATES)
        self.bound = bound
        self.facts = {"driver": self._driver, "values": {each.device.uuid: list(each.names()) for each in self._devices}}
        described = ((identity(each.device), each.info(self._driver)) for each in self._devices)  # also while one sleeps
        infos = tuple(names.series(rows.INFO, who.attributes(rows.INFO, info)) for who, info in described)
        self._info = Column(infos, (1,) * len(infos))
        self.generation += 1

    @property
    def lost(self) -> bool:
        """Whether a GPU is lost, which only another initialisation can bring back."""
        return bool(self._missing) or any(each.lost for each in self._devices)

    @property
    def lost_at(self) -> set[str]:
        """PCI addresses of those that are lost."""
        return {each.device.pci_address for each in self._devices if each.lost} | {pci_address(who.bus_id) for who in self._missing}

    @property
    def busy(self) -> bool:
        """Whether anybody uses a GPU."""
        return bool(self._processes and self._processes.any) or any(each.busy for each in self._devices)

    @property
    def problems(self) -> list[Unavailable]:
        gone = [
            Unavailable(Reason.GONE, f"GPU {each.device.pci_address}", "lost: see the XID in the kernel log")
            for each in self._devices
            if each.lost
        ]
        gone += [Unavailable(Reason.GONE, f"GPU {who.bus_id}", "lost, and not back yet") for who in self._missing]
        return [*self._refusals, *gone, *(self._processes.problems if self._processes else ())]

    def outdated(self, slow: bool) -> bool:
        """Whether other devices are there than at the start: one woke up; with *slow*, also MIG and hotplug."""
        if any(not self._powers[address].asleep() for address in self._left_out):
            return True
        if not slow or self.lost:
            return False
        gpus = [each for each in self._devices if not each.is_instance and not each.asleep]
        if any([found.uuid for found in self.nvml.instances(each.device)] != each.instances for each in gpus):
            return True
        return not self._left_out and self.nvml.count() != self.count

    def read(self, slow: bool) -> list[Value]:
        """Every value of every device; *slow* includes what rarely changes. Raises Failure if the driver is in trouble."""
        values = [value for each in self._devices for value in each.read(slow)]
        if any(each.changed for each in self._devices):
            self._rebind()
        values += [state for _ in self._missing for state in FAILED]
        self.columns = {rows.INFO: self._info}
        if self._processes:
            awake = frozenset(each.device.uuid for each in self._devices if not each.quiet)
            self.columns.update(self._memory.processes.columns(self._processes.read(awake)))
        self.columns.update(self._memory.counted.columns({rows.XID_ERRORS: self._xids()}))
        return values

    def _xids(self) -> list[tuple[Attributes, Number]]:
        seen, totals = self._memory.seen, sorted(self._totals().items())
        return [(seen[uuid].attributes(rows.XID_ERRORS, {rows.XID: xid}), count) for (uuid, xid), count in totals if uuid in seen]

    def _totals(self) -> Counter[tuple[str, int]]:
        return self._memory.xids + (self._events.counts() if self._events else Counter())

    def close(self) -> None:
        """Events first, then samples, then the library: what belongs to it must not outlive it. May be called again."""
        if self._events:
            self._events.close(_AT_EXIT)
            self._memory.xids = self._totals()  # with what came until the thread ended
            self._events = None
        for each in self._devices:
            each.close()
        self._devices = []
        self.nvml.close()
        self._closed.set()
        atexit.unregister(self._closed.wait)
