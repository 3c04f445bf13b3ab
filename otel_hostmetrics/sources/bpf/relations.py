"""Which program uses which map."""

from __future__ import annotations

from collections.abc import Iterable

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric, Owner, Series
from otel_hostmetrics.kernel.bpf_objects import Map, Program
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.bpf.objects import Objects

_Key = tuple[int, int, str | None, Owner | None]


class Relations:
    """Made anew only when a program or a map has changed."""

    def __init__(self) -> None:
        self._changes = (-1, -1)
        self._series: dict[_Key, Series] = {}
        self._column = Column((), ())

    def columns(self, programs: Objects[Program], maps: Objects[Map]) -> Iterable[tuple[Metric, Column]]:
        changes = (programs.changes, maps.changes)
        if changes != self._changes:
            self._changes = changes
            pairs = [(program, each) for program in programs.records.values() for each in program.map_ids or ()]
            used = {(program.id, each, _name(each, maps), programs.owners.get(program.id)): program for program, each in pairs}
            if used.keys() != self._series.keys():
                self._series = {key: self._series.get(key) or _bound(used[key], *key[1:]) for key in used}
                self._column = Column(tuple(self._series.values()), (1,) * len(self._series))
        yield rows.PROGRAM_MAP, self._column


def _name(map_id: int, maps: Objects[Map]) -> str | None:
    record = maps.records.get(map_id)
    return record.name if record else None


def _bound(program: Program, map_id: int, name: str | None, owner: Owner | None) -> Series:
    series = rows.PROGRAM_MAP.series(_labels(program, map_id, name))
    series.owner = owner
    return series


def _labels(program: Program, map_id: int, name: str | None) -> dict[str, AttributeValue]:
    labels: dict[str, AttributeValue] = {
        "bpf.program.id": program.id,
        "bpf.map.id": map_id,
        "bpf.program.name": program.full_name or program.name,
    }
    if name is not None:
        labels["bpf.map.name"] = name
    return labels
