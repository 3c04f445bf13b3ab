"""How long each engine of an Intel GPU worked, counted by its perf PMU: CAP_PERFMON.

i915 (drivers/gpu/drm/i915/i915_pmu.c, Linux 4.16) names an event for each engine and counts ns. xe (drivers/gpu/drm/xe/xe_pmu.c,
6.15, with firmware GuC 1.14.1) counts the ticks of an engine that is named by bits of the event's number, and those it had.
Both modules stay loaded while an event is open. i915's events let the GPU sleep; xe's hold a force wake of it until they are
closed, so that it neither sleeps nor enters C6.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cpu import cpu_list
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.perf_event import DEVICES, EventCounter

CLASSES: Final = ("rcs", "bcs", "vcs", "vecs", "ccs")  # render, copy, video, video enhancement, compute: order of both drivers' UAPI
_MOST: Final = 16  # engines of a class on a GT; Ponte Vecchio has 9

_BUSY: Final = re.compile(r"((?:rcs|bcs|vcs|vecs|ccs)\d{1,2})-busy")
_NUMBER: Final = re.compile(r"(?:config|event)=(0x[0-9a-fA-F]{1,16})")
_FIRST_BIT: Final = re.compile(r"config:(\d{1,2})(?:-\d{1,2})?")
_PROCESSORS_OWN: Final = "0000:00:02.0"  # the address of every GPU that is part of a processor


class Engine(NamedTuple):
    """An engine and the numbers of its events."""

    name: str  # "rcs0": class and number; "gt1.vcs0" of any GT but the first
    busy: int
    total: int | None  # ticks it had; None: busy counts ns


class Pmu(NamedTuple):
    """A PMU, a cpu on which it counts, and the engines that there may be."""

    name: str
    type: int
    cpu: int
    engines: list[Engine]


def i915(fs: HostFS, address: str) -> Pmu:
    """Of the GPU at a PCI address. Raises Unavailable: ABSENT, MALFORMED."""
    name = _name("i915", address)
    if address == _PROCESSORS_OWN and name not in fs.names(fs.sys(DEVICES)):
        name = "i915"
    directory = fs.sys(DEVICES, name)
    found = (match for each in fs.names(f"{directory}/events") if (match := _BUSY.fullmatch(each)))
    return _pmu(fs, name, [Engine(match[1], _event(fs, f"{directory}/events/{match[0]}"), None) for match in found])


def xe(fs: HostFS, address: str, gts: Iterable[int]) -> Pmu:
    """Of the GPU at a PCI address, whose GTs have these numbers; nothing but opening them tells which engines there are.

    Raises Unavailable: ABSENT, MALFORMED.
    """
    name = _name("xe", address)
    directory = fs.sys(DEVICES, name)
    busy, total = (_event(fs, f"{directory}/events/engine-{each}-ticks") for each in ("active", "total"))
    bits = [_first_bit(fs, f"{directory}/format/{each}") for each in ("gt", "engine_class", "engine_instance")]
    engines: list[Engine] = []
    for gt in gts:
        for kind, prefix in enumerate(CLASSES):
            for number in range(_MOST):
                which = sum(value << bit for value, bit in zip((gt, kind, number), bits, strict=True))
                engines.append(Engine(f"gt{gt}.{prefix}{number}" if gt else f"{prefix}{number}", busy | which, total | which))
    if any(max(engine.busy, engine.total or 0).bit_length() > 64 for engine in engines):
        raise Unavailable(Reason.MALFORMED, f"{directory}/format", "more than the 64 bits of an event's number")
    return _pmu(fs, name, engines)


class Engines:
    """The engines of *pmu* that could be opened. ``names`` are those of the values read() gives, two for each."""

    def __init__(self, pmu: Pmu) -> None:
        self.denied: list[Unavailable] = []
        self._counters: list[tuple[EventCounter, EventCounter | None]] = []
        self.names: tuple[str, ...] = ()
        for engine in pmu.engines:
            try:
                self._counters.append(_open(pmu, engine))
            except Unavailable as error:
                if error.reason is Reason.DENIED:  # so are all others
                    self.denied.append(error)
                    break
            else:
                self.names += (f"engine.{engine.name}.work", f"engine.{engine.name}.clock")

    def read(self) -> list[int | None]:
        """Of each engine, what it worked and the time in which it could have, from some beginning and in one unit."""
        return [value for busy, total in self._counters for value in _read(busy, total)]

    def close(self) -> None:
        """May be called again."""
        for counter in (each for pair in self._counters for each in pair if each):
            counter.close()
        self._counters = []


def _open(pmu: Pmu, engine: Engine) -> tuple[EventCounter, EventCounter | None]:
    what = f"{pmu.name}/{engine.name}/"
    busy = EventCounter(pmu.type, engine.busy, pmu.cpu, what)
    try:
        return busy, EventCounter(pmu.type, engine.total, pmu.cpu, what) if engine.total is not None else None
    except Unavailable:
        busy.close()
        raise


def _read(busy: EventCounter, total: EventCounter | None) -> Iterator[int | None]:
    try:
        pair = busy.read(), total.read() if total else time.monotonic_ns()
    except Unavailable:
        pair = None
    yield from pair or (None, None)


def _name(driver: str, address: str) -> str:
    return f"{driver}_{address.replace(':', '_')}"


def _pmu(fs: HostFS, name: str, engines: list[Engine]) -> Pmu:
    directory = fs.sys(DEVICES, name)
    cpus = cpu_list(fs, f"{directory}/cpumask")
    if not cpus:
        raise Unavailable(Reason.ABSENT, f"{directory}/cpumask", "no cpu")
    return Pmu(name, fs.integer(f"{directory}/type"), cpus[0], engines)


def _event(fs: HostFS, path: str) -> int:
    return int(_matched(fs, path, _NUMBER), 16)


def _first_bit(fs: HostFS, path: str) -> int:
    return int(_matched(fs, path, _FIRST_BIT))


def _matched(fs: HostFS, path: str, form: re.Pattern[str]) -> str:
    match = form.fullmatch(fs.text(path))
    if match is None:
        raise Unavailable(Reason.MALFORMED, path, "not in the form of perf")
    return match[1]
