"""One GPU of AMD's or Intel's: its values in every cycle, in the order in which they were bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from otel_hostmetrics.catalogue.model import Series
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.gpu_pci import Bus, Gpu, RuntimePower
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.sources.gpu.engines import Engines
from otel_hostmetrics.sources.gpu.health import FAILED
from otel_hostmetrics.sources.gpu.identity import Identity
from otel_hostmetrics.sources.gpu.points import Bound, Names, Value
from otel_hostmetrics.sources.gpu.residency import Residency
from otel_hostmetrics.sources.gpu.sysfs_health import Health
from otel_hostmetrics.sources.gpu.sysfs_rows import meanings
from otel_hostmetrics.sources.gpu.watts import SHORTEST, Watts

_UTILIZATION = ("vram.used", "vram.total")  # of which hw.gpu.memory.utilization is made


class Card(Protocol):
    """What kernel/amdgpu.py and kernel/intel_gpu.py have in common."""

    names: tuple[str, ...]
    fast_names: tuple[str, ...]

    @property
    def denied(self) -> Sequence[Unavailable]: ...
    @property
    def gone(self) -> bool: ...
    def read(self, slow: bool, /) -> list[int | None]: ...
    def identity(self) -> dict[str, str]: ...
    def close(self) -> None: ...


class _Silent:
    """In the place of a card that does not answer: its driver would wait for it in vain, as would who reads its files."""

    names: tuple[str, ...] = ()
    fast_names: tuple[str, ...] = ()
    denied: tuple[Unavailable, ...] = ()
    gone = False

    def read(self, _slow: bool, /) -> list[int | None]:
        return []

    def identity(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


class Device:
    """One GPU: its files are opened when it is awake for the first time, because that would wake it."""

    def __init__(self, fs: HostFS, gpu: Gpu, make: Callable[[HostFS, Gpu], Card]) -> None:
        self._fs, self.gpu, self._make = fs, gpu, make
        self._power, self._bus = RuntimePower(gpu.path), Bus(gpu.path)
        self.card: Card | None = None
        self.described: dict[str, str] = {}
        self._stale = False  # the card's files are of a driver or a device that is gone
        self.lost = False  # did not answer on its bus in the last cycle
        self._derive(())

    def wake(self, looked: bool) -> bool:
        """Open the files if that was not done, or was with a driver that is gone, and the GPU does not sleep; whether it was done now.

        Where there was nothing to open, a driver may have come since: that is tried again whenever GPUs are *looked* for.
        """
        if self.card is not None:
            self._stale |= self.card.gone or self._bus.gone
            if not self._stale and (self.card.fast_names or not looked):
                return False
            self._renew()
        if self._power.asleep():
            return False
        if self.card is not None:
            self.card.close()
        card = self.card = _Silent() if self._bus.answers() is False else self._make(self._fs, self.gpu)
        self._stale = False
        self.described = card.identity() or self.described  # while its driver is away it is the same GPU
        self._derive(card.names)
        return True

    def _renew(self) -> None:
        """Open anew what is gone, too, if the device is. Another may be in its place."""
        self.described = {} if self._bus.gone else self.described
        self._power.close()
        self._bus.close()
        self._power, self._bus = RuntimePower(self.gpu.path), Bus(self.gpu.path)

    def _derive(self, names: Sequence[str]) -> None:
        """Find what follows from the card's values."""
        self._ratio: tuple[int, int] | None = (
            (names.index("vram.used"), names.index("vram.total")) if set(_UTILIZATION) <= set(names) else None
        )
        self._engines, self._residency, self._watts, self._health = Engines(names), Residency(names), Watts(names), Health(names)
        ratio = ("vram.utilization",) if self._ratio else ()
        self._derived = (*ratio, *self._engines.names, *self._residency.names, *self._watts.names, *self._health.names)

    @property
    def again(self) -> float:
        """s after which another reading tells what takes two of them."""
        return SHORTEST if self._engines.waits or self._watts.waits else 0.0

    @property
    def unplugged(self) -> bool:
        """Whether the kernel, too, has noticed."""
        return self.lost and not os.path.exists(self.gpu.path)

    @property
    def problems(self) -> list[Unavailable]:
        lost = [Unavailable(Reason.GONE, f"GPU {self.gpu.address}", "does not answer on its bus")] if self.lost else []
        return [*lost, *(self.card.denied if self.card else ())]

    @property
    def identity(self) -> Identity:
        address = self.gpu.address
        uuid = self.described.get("unique_id", "")
        name = self.described.get("product_name") or f"{self.gpu.vendor} {self.gpu.device:04x}"
        return Identity(uuid or address, name, self.gpu.vendor, address, uuid or address)

    def names(self) -> tuple[str, ...]:
        return (*self.card.names, *self._derived) if self.card else ()

    def bound(self, names: Names, offset: int) -> list[Bound]:
        if self.card is None:
            return []
        who, fast = self.identity, frozenset((*self.card.fast_names, *self._derived))
        found: dict[Series, Bound] = {}
        for place, name in enumerate(self.names(), offset):
            for metric, more, scale in meanings(name):
                series = names.series(metric, who.attributes(metric, more))
                found.setdefault(series, Bound(series, place, scale, name not in fast))  # the first of two files that mean the same
        return list(found.values())

    def read(self, slow: bool) -> list[Value]:
        """Of one that does not answer, its state: its driver would wait for it in vain."""
        self.lost = False
        if self.card is None:
            return []
        if self._power.asleep():
            return [None] * len(self.names())
        answers = self._bus.answers()
        self.lost = answers is False
        if self.lost:
            return [*[None] * (len(self.names()) - len(FAILED)), *FAILED]
        values: list[Value] = [*self.card.read(slow)]
        own = tuple(values)
        if self._ratio:
            used, total = (own[place] for place in self._ratio)
            values.append(used / total if used is not None and total else None)
        states = self._health.read(own, answers, stuck=self._power.stuck())
        now = time.monotonic()
        return [*values, *self._engines.read(own, now), *self._residency.read(own), *self._watts.read(own, now), *states]

    def close(self) -> None:
        if self.card:
            self.card.close()
        self._power.close()
        self._bus.close()
