"""The energy of a cycle, from the readings of whoever measures it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Attributes, Metric, Number
from otel_hostmetrics.model import Column

Columns: TypeAlias = Mapping[Metric, Column]
_COMPONENTS = (rows.CPU, rows.MEMORY, rows.GPU)


class Step(NamedTuple):
    """What a part of the host took since it was last seen."""

    component: str  # cpu, memory, gpu
    id: str  # hw.id
    microjoules: int
    ns: int  # for how long; 0 where nothing is known


class Meters:
    """Steps of every ``hw.energy``, in whole microjoules: those of all cycles add up to the growth of the rounded counter."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, int]] = {}  # microjoules, and when

    def steps(self, columns: Mapping[str, Columns], now_ns: int) -> list[Step]:
        """One for each part, to *now_ns* (monotonic). A counter that fell began anew: nothing is known of the time between."""
        found = []
        for attributes, joules in points(columns, hardware.ENERGY):
            component, part = str(attributes[hardware.TYPE]), str(attributes[hardware.ID])
            if component in _COMPONENTS:
                now = round(joules * 1_000_000)
                before, since_ns = self._last.get((component, part), (now, now_ns))
                self._last[component, part] = now, now_ns
                found.append(Step(component, part, now - before, now_ns - since_ns) if now >= before else Step(component, part, 0, 0))
        return found


def points(columns: Mapping[str, Columns], metric: Metric) -> Iterator[tuple[Attributes, Number]]:
    """Of *metric*, whichever sources have it."""
    for each in columns.values():
        if metric in each:
            series, values = each[metric]
            for one, value in zip(series, values, strict=True):
                if isinstance(value, int | float):
                    yield one.attributes, value
