"""The stage over a made host, fed with energy as a source would."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Self

from otel_hostmetrics.attribution import Attribution
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Metric, Number
from otel_hostmetrics.model import Column, Reading
from otel_hostmetrics.settings import Attribution as Settings
from tests.attribution.machine import Machine

PACKAGE = ("package-0", "cpu")
DRAM = ("package-0/dram", "memory")
GPU = ("GPU-1", "gpu")
_SERIES = {(part, kind): hardware.ENERGY.series({"hw.id": part, "hw.type": kind}) for part, kind in (PACKAGE, DRAM, GPU)}

Parts = Mapping[tuple[str, str], float]


class Cycles:
    """*joules* are the counters of all parts; what is not in them cannot be read."""

    def __init__(self, machine: Machine, joules: Parts, **settings: Any) -> None:
        self._descriptors = len(os.listdir("/proc/self/fd"))
        self.now_ns = 0  # moved by tests
        self.stage = Attribution(machine.fs, Settings(**settings), clock=lambda: self.now_ns)
        self.stage.take({"x": energy(joules)})
        self.stage.open()
        self.cycle(joules)

    def cycle(self, joules: Parts, more: Mapping[Metric, Column] | None = None, seconds: float = 0) -> Reading:
        """After *seconds*."""
        self.now_ns += round(seconds * 1e9)
        self.stage.take({"x": energy(joules), "gpu": more or {}})
        self.reading = self.stage.read()
        return self.reading

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stage.close()
        self.stage.close()
        assert len(os.listdir("/proc/self/fd")) == self._descriptors


def energy(joules: Parts) -> dict[Metric, Column]:
    return {hardware.ENERGY: Column(tuple(_SERIES[part] for part in joules), list(joules.values()))} if joules else {}


def points(metric: Metric, *some: tuple[Mapping[str, Any], Number]) -> dict[Metric, Column]:
    return {metric: Column(tuple(metric.series(attributes) for attributes, _ in some), [value for _, value in some])}


def workloads(reading: Reading, component: str = "cpu") -> dict[str, float]:
    """Joules by name."""
    column = reading.columns[rows.WORKLOAD]
    pairs = zip(column.series, column.values, strict=True)
    return {str(each.attributes[rows.NAME]): value for each, value in pairs if each.attributes[rows.COMPONENT] == component}  # type: ignore[misc]


def part(reading: Reading, metric: Metric, component: str = "cpu") -> float:
    column = reading.columns[metric]
    return dict(zip((each.attributes[rows.COMPONENT] for each in column.series), column.values, strict=True)).get(component, 0.0)  # type: ignore[return-value]


def microjoules(reading: Reading) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every counter of the reading, exactly."""
    for metric, column in reading.columns.items():
        for each, value in zip(column.series, column.values, strict=True):
            yield (metric.name, *map(str, each.attributes.values()), str(id(each))), round(value * 1e6)  # type: ignore[operator]
