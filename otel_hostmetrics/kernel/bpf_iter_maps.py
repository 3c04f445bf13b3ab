"""Maps through iter/bpf_map [5.8]: ids and numbers of entries every cycle, full records when there are new ones.

Field names are those of struct bpf_map (include/linux/bpf.h). The kernel counts the entries of every hash table (hash,
LRU, per-CPU, hash of maps) since 6.6 and of a longest-prefix-match trie since it exists; asking for the count costs
0.1 us where counting by keys takes 63 ms for 50,000 entries (measured). Other types have no such number.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_asm import R0, R1, R7, R10
from otel_hostmetrics.kernel.bpf_iter import BpfIterator, OwnIds, ReadBuffer, join
from otel_hostmetrics.kernel.bpf_iter_code import IteratorCode, Record
from otel_hostmetrics.kernel.bpf_names import MAP_TYPES
from otel_hostmetrics.kernel.bpf_objects import Map, text
from otel_hostmetrics.kernel.btf import Types

NOT_COUNTED: Final = -1
_NEGATIVE: Final = -(2**31)  # and above, as unsigned

_NUMBERS: Final = (
    ("bpf_map.id",),
    ("bpf_map.map_type",),
    ("bpf_map.key_size",),
    ("bpf_map.value_size",),
    ("bpf_map.max_entries",),
    ("bpf_map.map_flags",),
    ("bpf_map.map_extra",),
    ("bpf_map.btf", "btf.id"),
    ("bpf_map.frozen",),
)
_BYTES: Final = (("bpf_map.name", 16),)
_COUNT: Final = "bpf_map_sum_elem_count"  # s64 (const struct bpf_map *) [6.6]
_LPM_TRIE: Final = MAP_TYPES.index("lpm_trie")
FIELDS: Final = ("bpf_map.elem_count", "lpm_trie.n_entries", *(name for path in _NUMBERS for name in path), *(name for name, _ in _BYTES))
FUNCTIONS: Final = (_COUNT,)


class MapEntries(NamedTuple):
    """One cycle's columns, a place per map."""

    ids: list[int]
    entries: list[int]  # NOT_COUNTED where the kernel keeps no number for this type


class MapIterators:
    """Both walks over maps. Not thread-safe. Methods and constructor raise Unavailable."""

    def __init__(self, types: Types, buffer: ReadBuffer) -> None:
        self._record = Record(types, _NUMBERS, _BYTES)
        self.count_problem: Unavailable | None = None  # why hash tables have no number of entries
        self._entries = self._open_entries(types, buffer)
        try:
            self._details = BpfIterator("bpf_map", _details_code(types, self._record), types, buffer, "otel_maps")
        except BaseException:
            self._entries.close()
            raise

    def _open_entries(self, types: Types, buffer: ReadBuffer) -> BpfIterator:
        """Not every JIT calls kernel functions, and the interpreter calls none."""
        try:
            return BpfIterator("bpf_map", _entries_code(types), types, buffer, "otel_map_count")
        except Unavailable as error:
            if error.reason is Reason.DENIED or _COUNT not in types.functions:
                raise
            self.count_problem = Unavailable(error.reason, "entries of BPF hash tables", error.detail)
            others = types._replace(functions={name: number for name, number in types.functions.items() if name != _COUNT})
            return BpfIterator("bpf_map", _entries_code(others), others, buffer, "otel_map_count")

    @property
    def own(self) -> OwnIds:
        return join((self._entries.own, self._details.own))

    def entries(self) -> MapEntries:
        """Ids and numbers of entries of all maps."""
        words = self._entries.read().cast("q")
        return MapEntries(words[0::2].tolist(), words[1::2].tolist())

    def details(self, known: Container[int] = ()) -> list[Map]:
        """Records of all maps but those *known*. What only fdinfo tells (memory) and offloading are None."""
        records, size = self._details.read(), self._record.size
        ids = records.cast("Q")[:: size // 8].tolist()
        return [_map(self._record.unpack(records, row * size)) for row, number in enumerate(ids) if number not in known]

    def close(self) -> None:
        """Unload. Safe to call twice."""
        self._entries.close()
        self._details.close()


def _map(row: list[Any]) -> Map:
    number, kind, key, value, entries, flags, extra, btf, frozen, name = row
    return Map(
        number,
        kind,
        text(name),
        key,
        value,
        entries,
        flags,
        extra,
        ifindex=None,
        btf_id=btf,
        memory_bytes=None,
        frozen=None if frozen is None else bool(frozen),
    )


def _entries_code(types: Types) -> bytes:
    """Write {id, entries}."""
    code = IteratorCode(types)
    code.load_id(R1, "bpf_map.id")
    code.store(R10, -16, R1, 8)
    code.store(R10, -8, NOT_COUNTED, 8)
    if "bpf_map.elem_count" in types.fields and _COUNT in types.functions:
        code.load_field(R1, R7, "bpf_map.elem_count")  # per-CPU counters, which only the types that count have
        code.jump_if("==", R1, 0, "not a hash table")
        code.set(R1, R7)
        code.call_kernel(types.functions[_COUNT])
        code.jump_if("<", R0, _NEGATIVE, "not negative")  # as per-CPU counters may be that are added up while others count
        code.set(R0, 0)
        code.label("not negative")
        code.store(R10, -8, R0, 8)
        code.label("not a hash table")
    if "lpm_trie.n_entries" in types.fields:
        code.load_field(R1, R7, "bpf_map.map_type")
        code.jump_if("!=", R1, _LPM_TRIE, "not a trie")
        code.probe_number(-8, R7, types.fields["lpm_trie.n_entries"])  # the map is the first member of struct lpm_trie
        code.label("not a trie")
    code.write(-16, 16)
    return code.finish()


def _details_code(types: Types, record: Record) -> bytes:
    code = IteratorCode(types)
    code.load_id(R1, "bpf_map.id")
    record.fill(code, {"bpf_map": R7})
    code.write(record.start, record.size)
    return code.finish()
