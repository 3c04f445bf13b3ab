"""NVIDIA GPUs through nvidia-smi, where NVML cannot be loaded: a program run every ``gpu.nvidia_smi_interval``.

It takes 20 ms to several seconds, so it runs beside the cycles: started in one, its output taken in a later one. Never two at
a time; one that hangs is killed after _MOST seconds. Values are those of its last run, and gone when that was too long ago.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import gpu_pci, nvidia_smi
from otel_hostmetrics.kernel.child import Child
from otel_hostmetrics.kernel.gpu_pci import RuntimePower
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nvidia_smi import COLUMNS, Report
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Gpu
from otel_hostmetrics.sources.gpu.identity import Identity
from otel_hostmetrics.sources.gpu.nvidia_rows import MEANINGS
from otel_hostmetrics.sources.gpu.points import Bound, Keyed, Names, Value

_PATIENCE = 1.0  # s a cycle waits for the program
_MOST = 30.0  # s it may run
_STALE = 3  # intervals after which values of an old run are no news any more
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class NvidiaSmi:
    """A Backend. *patience* (s) is how long a cycle waits, *most* (s) how long the program may run."""

    def __init__(self, fs: HostFS, settings: Gpu, names: Names, patience: float = _PATIENCE, most: float = _MOST) -> None:
        self._names, self._patience, self._most = names, patience, most
        self._path = nvidia_smi.program()
        self._interval = settings.nvidia_smi_interval
        self._powers = [RuntimePower(each.path) for each in gpu_pci.gpus(fs) if each.vendor == "NVIDIA"]
        self._columns = list(COLUMNS)
        self._xml = False
        self._child: Child | None = None
        self._started = float("-inf")
        self._reports: list[Report] = []
        self._reported_at = 0.0
        self._info = Keyed()
        self._layout: list[tuple[str, tuple[str, ...]]] = []
        self.refreshed = True
        self.again = 0.0
        self.generation = 0
        self.bound: list[Bound] = []
        self.problems: list[Unavailable] = []

    @property
    def devices(self) -> int:
        return len(self._reports)

    def read(self) -> Sequence[Value]:
        now = time.monotonic()
        try:
            self._step(now)
        except Unavailable as error:
            self.problems = [error]
        if self._reports and now - self._reported_at > _STALE * self._interval + self._most:
            self._reports = []
        self._bind()
        return [value for each in self._reports for value in each.values.values()]

    def _step(self, now: float) -> None:
        """Start the program when it is time, take its output when it is there. Raises Unavailable."""
        if self._child is None:
            # Asking would wake a GPU that sleeps.
            if now - self._started < self._interval or any(power.asleep() for power in self._powers):
                return
            self._started = now
            command = nvidia_smi.xml_command(self._path) if self._xml else nvidia_smi.csv_command(self._path, self._columns)
            self._child = Child(command, _ENVIRONMENT, quiet=True)
        try:
            output = self._child.read(self._patience)
        except Unavailable as error:
            self._child = None
            self._drop_column(error)
            return
        if output is not None:
            self._child = None
            self._take(output, now)
        elif now - self._started > self._most:
            self._kill()
            raise Unavailable(Reason.LATE, "nvidia-smi", f"killed after {self._most:g} s")

    def _drop_column(self, error: Unavailable) -> None:
        """An older driver: ask again without the column, or for XML, which has all it knows."""
        column = nvidia_smi.invalid_column(error.detail)
        if self._xml or column not in self._columns:
            raise error
        self._columns.remove(column)
        self._xml = len(self._columns) < len(COLUMNS) - 4  # many unknown: R390 or so
        self._started = float("-inf")

    def _take(self, output: bytes, now: float) -> None:
        self._reports = nvidia_smi.parse_xml(output) if self._xml else nvidia_smi.parse_csv(self._columns, output)
        self._reported_at = now
        self.problems = []

    def _bind(self) -> None:
        """Bind anew where GPUs or the values they have changed."""
        layout = [(each.uuid, tuple(each.values)) for each in self._reports]
        if layout == self._layout:
            return
        self._layout, self.bound, place = layout, [], 0
        for each in self._reports:
            who = _identity(each)
            for name in each.values:
                for metric, more, scale in MEANINGS.get(name, ()):
                    self.bound.append(Bound(self._names.series(metric, who.attributes(metric, more)), place, scale))
                place += 1
        self.generation += 1

    def columns(self) -> Mapping[Metric, Column]:
        return self._info.columns({rows.INFO: [(_describe(each), 1) for each in self._reports]})

    def facts(self) -> Mapping[str, object]:
        return {"program": self._path, "form": "XML" if self._xml else "CSV"}

    def _kill(self) -> None:
        child, self._child = self._child, None
        if child:
            child.close()

    def close(self) -> None:
        self._kill()
        for power in self._powers:
            power.close()


def _identity(report: Report) -> Identity:
    return Identity(report.uuid or report.bus_id, report.name, "NVIDIA", report.bus_id, report.uuid)


def _describe(report: Report) -> Attributes:
    """The attributes of hw.gpu.info."""
    known = {
        "hw.model": report.name, "hw.serial_number": report.serial, "hw.driver_version": report.driver,
        "hw.firmware_version": report.firmware,
        "hw.gpu.pci.address": report.bus_id.lower(),
    }  # fmt: skip
    number = {"hw.gpu.index": report.number} if report.number >= 0 else {}
    return _identity(report).attributes(rows.INFO, {**{key: text for key, text in known.items() if text}, **number})
