"""The BPF subsystem: every program, map and link of the host, and what is around them.

A cycle lists the objects (engines.py), binds those that are new (objects.py with programs.py, maps.py, links.py), and
replays the rest. What costs more - holders, pins, cgroups, memory of maps that grow - has its own, slower pace.
"""

from __future__ import annotations

import time
from typing import ClassVar

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.kernel.bpf_iter_maps import NOT_COUNTED, MapEntries
from otel_hostmetrics.kernel.bpf_iter_programs import ProgramTotals
from otel_hostmetrics.kernel.bpf_names import LINK_TYPES, MAP_TYPES, PROGRAM_TYPES
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.netdev import interfaces, namespace
from otel_hostmetrics.model import Column, Reading
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.bpf import links, maps, programs
from otel_hostmetrics.sources.bpf.aggregate import Aggregate
from otel_hostmetrics.sources.bpf.engines import Inventory
from otel_hostmetrics.sources.bpf.objects import Objects
from otel_hostmetrics.sources.bpf.owners import owners
from otel_hostmetrics.sources.bpf.relations import Relations
from otel_hostmetrics.sources.bpf.statistics import Statistics
from otel_hostmetrics.sources.bpf.surroundings import Surroundings

_HURRY = 6  # new objects are looked around for after a sixth of slow_interval, not at once: churn must not cost more


class Bpf:
    name: ClassVar[str] = "bpf"
    metrics: ClassVar[tuple[Metric, ...]] = rows.ALL
    blocking: ClassVar[bool] = False

    def __init__(self, fs: HostFS, settings: Settings) -> None:
        self._fs = fs
        self._settings = settings.bpf
        self._inventory: Inventory | None = None
        self._aggregate = Aggregate() if settings.bpf.aggregate else None

    def open(self) -> None:
        """Raises Unavailable: DENIED without rights to any engine, UNSUPPORTED or ABSENT on a kernel without bpf(2)."""
        inventory = self._inventory = Inventory(self._settings.engine, self._fs)
        self._link_binder = links.Binder()
        self._map_binder = maps.Binder()
        self._programs = Objects(inventory.describe_programs, programs.bind, (rows.PROGRAM_COUNT, "bpf.program.type", PROGRAM_TYPES))
        self._maps = Objects(inventory.describe_maps, self._map_binder.bind, (rows.MAP_COUNT, "bpf.map.type", MAP_TYPES))
        self._links = Objects(inventory.describe_links, self._link_binder.bind, (rows.LINK_COUNT, "bpf.link.type", LINK_TYPES))
        self._relations = Relations()
        self._statistics = Statistics(self._settings, self._fs)
        self._surroundings = Surroundings(self._fs, self._settings, inventory.holders)
        self._link_programs: list[int] | None = None
        self._looked_at = float("-inf")
        self._looked_changes = -1
        self._settled: set[tuple[str, int]] = set()

    def read(self) -> Reading:
        inventory = self._inventory
        assert inventory is not None  # open() came first
        self._statistics.step()
        enabled = self._statistics.enabled()
        totals = inventory.programs(with_runs=enabled or self._statistics.wanted)
        self._programs.sync(totals.ids)
        entries = inventory.maps()
        self._sync_maps(entries)
        self._sync_links(inventory)
        self._look_around()
        reading = Reading(problems=[*inventory.problems, *self._surroundings.problems], facts=self._facts(inventory))
        if self._statistics.problem:
            reading.problems.append(self._statistics.problem)
        reading.columns = self._columns(totals, entries, enabled)
        if self._aggregate:
            reading.columns = self._aggregate.apply(reading.columns, time.time_ns())
        return reading

    def _sync_maps(self, entries: MapEntries) -> None:
        if not self._maps.knows(entries.ids):
            self._map_binder.counted = frozenset(each for each, count in zip(*entries, strict=True) if count != NOT_COUNTED)
            self._maps.sync(entries.ids)

    def _sync_links(self, inventory: Inventory) -> None:
        """Links by id, and those whose program was replaced (BPF_LINK_UPDATE)."""
        self._link_binder.programs = self._programs.records
        ids, program_ids = inventory.links()
        self._links.sync(ids)
        if program_ids is not None and program_ids != self._link_programs:
            records = self._links.records
            moved = [
                each for each, program in zip(ids, program_ids, strict=True) if each in records and records[each].program_id != program
            ]
            self._links.refresh(moved)
            self._link_programs = program_ids

    def _columns(self, totals: ProgramTotals, entries: MapEntries, enabled: bool) -> dict[Metric, Column]:
        columns = {**self._programs.columns, **self._maps.columns, **self._links.columns}
        if self._settings.relations:
            columns.update(self._relations.columns(self._programs, self._maps))
        columns.update(self._surroundings.columns())
        columns.update(self._statistics.columns(enabled))
        # Nobody measures and nobody has: the zeros of all programs mean "not known".
        if totals.runs is not None and totals.run_time_ns is not None and (enabled or any(totals.runs)):
            columns.update(self._programs.live(rows.PROGRAM_RUN_TIME, [nanoseconds / 1e9 for nanoseconds in totals.run_time_ns]))
            columns.update(self._programs.live(rows.PROGRAM_RUN_COUNT, totals.runs))
        if totals.recursion_misses is not None:  # counted always
            columns.update(self._programs.live(rows.PROGRAM_MISSES, totals.recursion_misses))
        columns.update(self._map_binder.live(self._maps, entries))
        return columns

    def _look_around(self) -> None:
        now = time.monotonic()
        changes = self._programs.changes + self._maps.changes + self._links.changes
        since, pace = now - self._looked_at, self._settings.slow_interval
        if since < pace and (changes == self._looked_changes or since < pace / _HURRY):
            return
        self._refresh_records(first=self._looked_at == float("-inf"))
        self._surroundings.refresh(self._programs.records, self._links.records)
        binder, names = self._link_binder, (interfaces(self._fs), namespace(self._fs), self._surroundings.cgroup_paths)
        if names != (binder.interfaces, binder.netns, binder.cgroups):
            binder.interfaces, binder.netns, binder.cgroups = names
            self._links.rebind()
        self._settle_owners()
        self._looked_at = now
        self._looked_changes = self._programs.changes + self._maps.changes + self._links.changes

    def _settle_owners(self) -> None:
        around = self._surroundings
        found = owners(around.holders, around.attachments, self._programs.records, self._links.records)
        self._programs.own(found.programs)
        self._maps.own(found.maps)
        self._links.own(found.links)

    def _refresh_records(self, first: bool) -> None:
        """What changes in the life of an object: memory of maps that grow, what links point to.

        And everything once after it was first seen: loaders bind maps and freeze them right after loading.
        """
        present = {("program", each) for each in self._programs.records} | {("map", each) for each in self._maps.records}
        new = set() if first else present - self._settled
        growing = [] if first else [each for each, record in self._maps.records.items() if maps.grows(record)]
        self._programs.refresh([number for kind, number in new if kind == "program"])
        self._maps.refresh([*{*growing, *(number for kind, number in new if kind == "map")}])
        self._links.refresh([] if first else list(self._links.records))
        self._settled = set() if first else present

    def _facts(self, inventory: Inventory) -> dict[str, object]:
        return {"engines": inventory.engines, "stats": self._settings.stats}

    def close(self) -> None:
        if self._inventory:
            self._inventory.close()
            self._statistics.close()
            self._inventory = None
