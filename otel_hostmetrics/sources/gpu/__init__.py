"""GPUs of all vendors: NVIDIA through NVML or nvidia-smi, AMD and Intel through sysfs, processes of the latter two through fdinfo.

Each vendor's part (backend.py) yields a flat list of values; they are bound to series once (points.py). A host without a GPU
has one point, ``gpu_count`` 0, which is a true number, and one problem that says why there is no more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column, Reading
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.gpu.backend import Backend
from otel_hostmetrics.sources.gpu.discovery import discover
from otel_hostmetrics.sources.gpu.points import Bound, Merge, Names, Table, Value

_LOOK_AGAIN = 60.0  # s: how often GPUs are looked for


class Gpu:
    name: ClassVar[str] = "gpu"
    metrics: ClassVar[tuple[Metric, ...]] = rows.ALL
    blocking: ClassVar[bool] = True  # a driver in trouble does not come back from a call

    def __init__(self, fs: HostFS, settings: Settings) -> None:
        self._fs, self._settings = fs, settings.gpu
        self._names = Names()
        self._table, self._merge = Table(self._names), Merge()
        self._parts: dict[str, Backend] = {}
        self._bound: tuple[tuple[int, int], ...] = ()  # generation and number of values of each part, as last bound
        self._own = (rows.COUNT.series({}),), (rows.EXPORTER_INFO.series({"version": __version__, "language": "python"}),)
        self._missing: list[Unavailable] = []
        self._off: Unavailable | None = None
        self._look_at = 0.0

    def open(self) -> None:
        """Never fails: that there is no GPU is worth a point."""
        self._look_at = 0.0

    def read(self) -> Reading:
        self._look()
        parts = list(self._parts.values())
        values: list[Value] = []
        bound = []
        for part in parts:
            some = part.read()
            values += some
            bound.append((part.generation, len(some)))
        if tuple(bound) != self._bound:
            self._bind(parts, [length for _, length in bound])
            self._bound = tuple(bound)
        reading = Reading(problems=[*self._missing, *(problem for part in parts for problem in part.problems)])
        reading.off = self._off
        reading.again = max((part.again for part in parts), default=0.0)
        reading.columns = self._merge.columns(
            [self._table.columns(values, any(part.refreshed for part in parts)), *(part.columns() for part in parts)]
        )
        count, info = self._own
        reading.columns[rows.COUNT] = Column(count, [sum(part.devices for part in parts)])
        reading.columns[rows.EXPORTER_INFO] = Column(info, [1])
        reading.facts = {name: part.facts() for name, part in self._parts.items()}
        return reading

    def _bind(self, parts: Sequence[Backend], lengths: Sequence[int]) -> None:
        offset = 0
        everything: list[Bound] = []
        for part, length in zip(parts, lengths, strict=True):
            # A part that could not read at all has no values, and then no series either.
            everything += [bound._replace(place=bound.place + offset) for bound in part.bound] if length else []
            offset += length
        self._table.bind(everything)

    def _look(self) -> None:
        """Find out which parts this host has use for, now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_AGAIN
        found = discover(self._fs, self._settings)
        for name in self._parts.keys() - found.makers.keys():
            self._parts.pop(name).close()
        self._parts = {name: self._parts.get(name) or make(self._fs, self._settings, self._names) for name, make in found.makers.items()}
        self._missing, self._off = found.problems, found.off

    def close(self) -> None:
        for part in self._parts.values():
            part.close()
        self._parts = {}
        self._bound = ()
