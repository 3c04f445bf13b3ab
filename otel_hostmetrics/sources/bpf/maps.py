"""A map's record as points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric, Number, Series
from otel_hostmetrics.kernel.bpf_iter_maps import MapEntries
from otel_hostmetrics.kernel.bpf_names import MAP_TYPES, name_of
from otel_hostmetrics.kernel.bpf_objects import Map
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.bpf.objects import Bound, Objects

# Memory that changes while a map lives: entries are allocated as they come.
_NO_PREALLOC = 1  # BPF_F_NO_PREALLOC
_HASHES = frozenset(MAP_TYPES.index(name) for name in ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash"))
_GROWING = frozenset(MAP_TYPES.index(name) for name in (
    "lpm_trie", "hash_of_maps", "devmap_hash", "sockhash", "arena",
    "sk_storage", "inode_storage", "task_storage", "cgrp_storage", "cgroup_storage",
))  # fmt: skip


# Their max_entries are bytes (ringbuf), pages (arena), or nothing (storage of sockets and others).
_OF_NO_ENTRIES = frozenset(MAP_TYPES.index(name) for name in (
    "ringbuf", "user_ringbuf", "arena", "sk_storage", "inode_storage", "task_storage", "cgrp_storage", "cgroup_storage",
    "percpu_cgroup_storage",
))  # fmt: skip


class Binder:
    """Binds maps; those in *counted* have a number of entries in every cycle."""

    def __init__(self) -> None:
        self.counted: frozenset[int] = frozenset()
        self._limits: tuple[tuple[Series, ...], list[int]] = ((), [])

    def bind(self, map_: Map) -> Bound:
        """Every series of one map."""
        # The seed's text says the type is the kernel's number, its later program prints a word: number here, word beside it.
        seed = {"name": map_.name, "id": str(map_.id), "type": str(map_.type)}
        own = attributes(map_)
        values: tuple[tuple[Metric, Mapping[str, AttributeValue], Number | None], ...] = (
            (rows.MAP_INFO, _information(map_, seed), 1),
            (rows.MAP_KEY_SIZE, seed, map_.key_bytes),
            (rows.MAP_VALUE_SIZE, seed, map_.value_bytes),
            (rows.MAP_MAX_ENTRIES, seed, map_.max_entries),
            (rows.MAP_LIMIT, own, None if map_.type in _OF_NO_ENTRIES else map_.max_entries),
            (rows.MAP_MEMORY, own, map_.memory_bytes),
        )
        fixed = [(metric.series(labels), value) for metric, labels, value in values if value is not None]
        live = (rows.MAP_ENTRIES, rows.MAP_UTILIZATION) if map_.id in self.counted and map_.max_entries else ()
        return Bound(fixed, {metric: Series(metric, own) for metric in live})

    def live(self, maps: Objects[Map], now: MapEntries) -> Iterable[tuple[Metric, Column]]:
        """Entries and fill level of the maps that have them."""
        for metric, entries in maps.live(rows.MAP_ENTRIES, now.entries):
            yield metric, entries
            if self._limits[0] is not entries.series:
                self._limits = entries.series, [maps.records[int(each.attributes["bpf.map.id"])].max_entries for each in entries.series]
            shares = [used / limit for used, limit in zip(entries.values, self._limits[1], strict=True)]  # type: ignore[operator]
            yield rows.MAP_UTILIZATION, Column(maps.live_series(rows.MAP_UTILIZATION), shares)


def attributes(map_: Map) -> dict[str, AttributeValue]:
    """What names a map in our own metrics."""
    return {"bpf.map.id": map_.id, "bpf.map.name": map_.name, "bpf.map.type": name_of(MAP_TYPES, map_.type)}


def grows(map_: Map) -> bool:
    """Whether the memory of a map changes during its life."""
    return map_.type in _GROWING or (map_.type in _HASHES and bool(map_.flags & _NO_PREALLOC))


def _information(map_: Map, seed: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    sizes = {"key_size": map_.key_bytes, "value_size": map_.value_bytes, "max_entries": map_.max_entries, "flags": map_.flags}
    information: dict[str, AttributeValue] = {**seed, **{key: str(value) for key, value in sizes.items()}}
    information["type_name"] = name_of(MAP_TYPES, map_.type)
    if map_.btf_id:
        information["btf_id"] = str(map_.btf_id)
    if map_.frozen is not None:
        information["frozen"] = map_.frozen
    return information
