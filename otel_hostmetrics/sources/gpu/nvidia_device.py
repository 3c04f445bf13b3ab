"""One NVIDIA GPU or MIG instance: its values in every cycle, in the order in which they were bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from otel_hostmetrics.catalogue.model import AttributeValue
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import nvml_gpm, nvml_values
from otel_hostmetrics.kernel.gpu_pci import RuntimePower
from otel_hostmetrics.kernel.nvml import LOST, UNKNOWN, Device, Failure, Nvml
from otel_hostmetrics.kernel.nvml_batch import Batch, Call, Field
from otel_hostmetrics.kernel.nvml_gpm import Profile
from otel_hostmetrics.settings import Gpu
from otel_hostmetrics.sources.gpu import nvidia_derived as derived
from otel_hostmetrics.sources.gpu.health import FAILED, STATES
from otel_hostmetrics.sources.gpu.identity import Identity
from otel_hostmetrics.sources.gpu.nvidia_health import Health
from otel_hostmetrics.sources.gpu.nvidia_rows import MEANINGS
from otel_hostmetrics.sources.gpu.points import Bound, Names, Value

_SILENT = 3  # cycles in which every call failed for no known reason, before the driver is believed to be in trouble
_WIDE = 1 << 32
_WHOLE_TIME = 100  # %; a sample in some hundred thousand of an H100 is hundreds of percent of nothing
_WHOLE = ("energy_mj", "power.")  # of a GPU as a whole; an instance that repeated them would be counted twice


class Batches(NamedTuple):
    """What a device answers: in every cycle, and once per ``gpu.slow_interval``."""

    fast: Batch
    slow: Batch


def identity(device: Device) -> Identity:
    """A MIG instance has its own UUID and its GPU's address."""
    return Identity(device.uuid, device.name, "NVIDIA", device.bus_id, device.uuid, device.parent)


class NvidiaDevice:
    """Reads one device. ``lost`` once the driver says so; only a new initialisation of NVML brings it back."""

    def __init__(self, nvml: Nvml, device: Device, parent: Device, power: RuntimePower | None, settings: Gpu) -> None:
        """*parent* is the GPU itself, or the GPU a MIG instance is of. Raises Failure where the device is gone."""
        self.device = device
        self.power = power  # None: not known to sysfs, never asleep
        self.lost = False
        self.instances: list[str] = []  # UUIDs of a GPU's MIG devices
        self.quiet = False  # was not asked in the last cycle: lost or asleep
        self.busy = False  # did something in the last cycle
        self._nvml, self._settings = nvml, settings
        self._profile = self._open_profile(parent)
        self.changed = True  # names() are others than those bound
        self._slow_values: Sequence[Value] | None = None
        self._silent = 0
        self._probe()

    @property
    def is_instance(self) -> bool:
        return bool(self.device.parent)

    @property
    def asleep(self) -> bool:
        return self.power is not None and self.power.asleep()

    @property
    def denied(self) -> list[str]:
        return [*self._batches.fast.denied, *self._batches.slow.denied]

    def _probe(self) -> None:
        nvml, device, values = self._nvml, self.device, nvml_values
        calls = (*values.FAST_CALLS, *(values.PCIE_THROUGHPUT if self._settings.pcie_throughput and not self._profile else ()))
        fast = _complete(nvml, device, calls, values.FAST_FIELDS)
        slow = Batch(nvml, device, values.SLOW_CALLS, values.SLOW_FIELDS)
        if "nvlink.links" in slow.names and "nvlink.transmit_kib" not in fast.names:
            links = int(slow.read()[slow.names.index("nvlink.links")] or 0)
            fast = _complete(nvml, device, calls, (*values.FAST_FIELDS, *values.nvlink5(links)))
            slow = Batch(nvml, device, values.SLOW_CALLS, (*values.SLOW_FIELDS, *values.nvlink5_errors(links)))
        self._batches = Batches(fast, slow)
        self._at = {name: place for place, name in enumerate(fast.names)}
        self._shares = [place for name, place in self._at.items() if name.startswith("utilization.")]
        self._health = Health(fast.names, slow.names)
        self._derived, self._derived_slow = dict(derived.of_fast(fast.names)), dict(derived.of_slow(slow.names))
        self._narrow = {way: self._at[f"pcie.{way}"] for way in ("transmit", "receive") if f"pcie.{way}" in self._at}
        self._slow_values = None
        self.changed = True

    def _open_profile(self, parent: Device) -> Profile | None:
        if not self._settings.profiling or not nvml_gpm.supported(self._nvml, parent):
            return None
        try:
            return Profile(self._nvml, self.device, parent)
        except Unavailable:
            return None

    def names(self) -> tuple[str, ...]:
        """Of the values that read() gives, in order."""
        gpm = nvml_gpm.NAMES if self._profile else ()
        own = () if self.is_instance else (*(f"state.{state}" for state in STATES), "instances")
        return (*self._batches.fast.names, *self._slow_names, *self._derived, *gpm, *own)

    @property
    def _slow_names(self) -> tuple[str, ...]:
        return (*self._batches.slow.names, *self._derived_slow)

    def bound(self, names: Names, offset: int) -> Iterator[Bound]:
        """The series of every value that means something, its place counted from *offset*."""
        self.changed = False
        who, slow = identity(self.device), frozenset((*self._slow_names, "instances"))
        for place, name in enumerate(self.names(), offset):
            if self.is_instance and name.startswith(_WHOLE):
                continue
            for metric, more, scale in MEANINGS.get(name, ()):
                yield Bound(names.series(metric, who.attributes(metric, more)), place, scale, name in slow)

    def read(self, slow: bool) -> list[Value]:
        """*slow* asks for what rarely changes, too. Nothing is asked of a device that is lost or asleep.

        Raises Failure where the whole driver is in trouble.
        """
        self.quiet = self.lost or self.asleep
        if self.quiet:
            return self._nothing()
        try:
            values = self._read(slow)
        except Failure as failure:
            if failure.code not in LOST:
                raise
            self.lost = self.quiet = True
            return self._nothing()
        return values

    def _read(self, slow: bool) -> list[Value]:
        if self._batches.fast.stale or self._batches.slow.stale:
            self._probe()
        values = self._batches.fast.read()
        self._watch(values)
        for place in self._shares:
            if (share := values[place]) is not None and share > _WHOLE_TIME:
                values[place] = None
        self.busy = bool(_at(values, self._at.get("utilization.gpu")))
        if slow or self._slow_values is None:
            self._slow_values = self._read_slow()
        gpm = self._profile.read() if self._profile else ()
        own = () if self.is_instance else (*self._health.states(values, self._silent > 0), len(self.instances))
        return [*values, *self._slow_values, *[derive(values) for derive in self._derived.values()], *gpm, *own]

    def _read_slow(self) -> Sequence[Value]:
        values = self._batches.slow.read()
        self._health.look(values)
        return [*values, *(derive(values) for derive in self._derived_slow.values())]

    def _watch(self, values: list[Value]) -> None:
        """Raises Failure where nothing at all was answered several times."""
        silent = bool(values) and values.count(None) == len(values)
        self._silent = self._silent + 1 if silent else 0
        if self._silent >= _SILENT:
            raise Failure("every call", UNKNOWN)
        for way, place in tuple(self._narrow.items()):
            value = values[place]
            if value is not None and value >= _WIDE:
                # Drivers whose counter has 32 bits wrap it several times a second under load: that is no counter.
                del self._narrow[way]
                self._derived[f"io.{way}"] = partial(derived.copy, place)
                self.changed = True

    def _nothing(self) -> list[Value]:
        """No value but the state, and not even that of a GPU that sleeps."""
        names = self.names()
        state = dict(zip((f"state.{each}" for each in STATES), FAILED, strict=True)) if self.lost else {}
        return [state.get(name) for name in names]

    def info(self, driver: str) -> dict[str, AttributeValue]:
        """The attributes of hw.gpu.info."""
        device = self.device
        known: dict[str, AttributeValue] = {
            "hw.model": device.name, "hw.serial_number": device.serial, "hw.driver_version": driver, "hw.firmware_version": device.firmware,
            "hw.gpu.pci.address": device.pci_address,
        }  # fmt: skip
        numbers = {
            "hw.gpu.index": device.number,
            "hw.gpu.mig.gpu_instance": device.gpu_instance,
            "hw.gpu.mig.compute_instance": device.compute_instance,
        }
        return {**{key: value for key, value in known.items() if value}, **{key: value for key, value in numbers.items() if value >= 0}}

    def close(self) -> None:
        """Before the library: samples belong to it. May be called again."""
        if self._profile:
            self._profile.close()
            self._profile = None


def _complete(nvml: Nvml, device: Device, calls: Sequence[Call], fields: Sequence[Field]) -> Batch:
    """With the older calls for those fields that this driver or GPU does not have."""
    batch = Batch(nvml, device, calls, fields)
    older = [call for call in nvml_values.FALLBACK_CALLS if call.names[0] not in batch.names]
    return Batch(nvml, device, (*calls, *older), fields) if older else batch


def _at(values: Sequence[Value], place: int | None) -> Value:
    return values[place] if place is not None else None
