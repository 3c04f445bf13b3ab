"""Programs through iter/bpf_prog [5.9]: ids and run-time totals every cycle, full records when there are new ones.

Field names are those of struct bpf_prog and struct bpf_prog_aux (include/linux/bpf.h); the records equal what
kernel/bpf_ids.py makes of BPF_OBJ_GET_INFO_BY_FD and fdinfo.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container
from typing import Any, Final, NamedTuple

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.bpf_asm import R1, R2, R7, R8, R9, R10
from otel_hostmetrics.kernel.bpf_iter import BpfIterator, OwnIds, ReadBuffer, object_id
from otel_hostmetrics.kernel.bpf_iter_code import POINTER, IteratorCode, Record, native_low
from otel_hostmetrics.kernel.bpf_iter_percpu import learn_offsets, offsets_map
from otel_hostmetrics.kernel.bpf_objects import Program, text
from otel_hostmetrics.kernel.btf import Types

_STATS: Final = ("bpf_prog_stats.nsecs", "bpf_prog_stats.cnt", "bpf_prog_stats.misses")

# One 8 byte slot of a record each: the pointers to follow from the program or its aux
_NUMBERS: Final = (
    ("bpf_prog_aux.id",),
    ("bpf_prog_aux.used_map_cnt",),
    ("bpf_prog_aux.func_cnt",),
    ("bpf_prog.jited_len",),
    ("bpf_prog.type",),
    ("bpf_prog.len",),
    ("bpf_prog.pages",),
    ("bpf_prog_aux.load_time",),
    ("bpf_prog_aux.user", "user_struct.uid"),
    ("bpf_prog.gpl_compatible",),
    ("bpf_prog_aux.offload", "bpf_prog_offload.netdev", "net_device.ifindex"),
    ("bpf_prog_aux.btf", "btf.id"),
    ("bpf_prog_aux.verified_insns",),
    ("bpf_prog_aux.attach_btf_id",),
)
_BYTES: Final = (("bpf_prog.tag", 8), ("bpf_prog_aux.name", 16), ("bpf_prog_aux.ksym.name", 256))
_OTHERS: Final = ("bpf_prog.aux", "bpf_prog.stats", "bpf_prog_aux.func", "bpf_prog_aux.used_maps", "bpf_map.id")
FIELDS: Final = (*_STATS, *_OTHERS, *(name for path in _NUMBERS for name in path), *(name for name, _ in _BYTES))

_HEAD: Final = struct.Struct("=QQ").unpack_from  # id, used_map_cnt: what is needed to pass a record over
_MAX_FUNCTIONS: Final = 256  # BPF_MAX_SUBPROGS
_MAX_MAPS: Final = 256  # the verifier takes 64; BPF_PROG_BIND_MAP may add
_KSYM_PREFIX: Final = len("bpf_prog_") + 16 + len("_")
_NAME_CUT: Final = 15  # BPF_OBJ_NAME_LEN - 1
_PAGE: Final = os.sysconf("SC_PAGESIZE")


class ProgramTotals(NamedTuple):
    """One cycle's columns, a place per program. None where this kernel does not tell (before 5.19)."""

    ids: list[int]
    run_time_ns: list[int] | None
    runs: list[int] | None
    recursion_misses: list[int] | None


class ProgramIterators:
    """Both walks over programs. Not thread-safe. Methods and constructor raise Unavailable."""

    def __init__(self, types: Types, buffer: ReadBuffer) -> None:
        self.stats_problem: Unavailable | None = None  # why there are no totals, only ids
        self._map_ids: frozenset[int] = frozenset()
        self._record = Record(types, _NUMBERS, _BYTES)
        self._details = BpfIterator("bpf_prog", _details_code(types, self._record), types, buffer, "otel_programs")
        try:
            self._totals = self._open_totals(types, buffer)
        except BaseException:
            self._details.close()
            raise

    def _open_totals(self, types: Types, buffer: ReadBuffer) -> BpfIterator:
        try:
            offsets = learn_offsets(types, buffer)
            table = offsets_map(offsets)
            try:
                walk = BpfIterator("bpf_prog", totals_code(types, table, len(offsets)), types, buffer, "otel_prog_stats")
                self._map_ids = frozenset({object_id(table)})
                return walk
            finally:
                os.close(table)  # the program holds it
        except Unavailable as error:
            self.stats_problem = error
            return BpfIterator("bpf_prog", _ids_code(types), types, buffer, "otel_prog_ids")

    @property
    def own(self) -> OwnIds:
        own = self._details.own, self._totals.own
        return OwnIds(own[0].programs | own[1].programs, self._map_ids, own[0].links | own[1].links)

    def totals(self) -> ProgramTotals:
        """Ids and totals of all programs. The totals stand still while nobody has statistics switched on."""
        words = self._totals.read().cast("Q")
        if self.stats_problem is not None:
            return ProgramTotals(words.tolist(), None, None, None)
        return ProgramTotals(*(words[column::4].tolist() for column in range(4)))

    def details(self, known: Container[int] = ()) -> list[Program]:
        """Records of all programs but those *known*: passing one over costs a third of decoding it (measured)."""
        records = self._details.read()
        found: list[Program] = []
        at, size = 0, self._record.size
        while at < len(records):
            number, used = _HEAD(records, at)
            maps = min(used, _MAX_MAPS)
            if number not in known:
                map_ids = struct.unpack_from(f"={maps}I", records, at + size) if used == maps else None
                found.append(_program(self._record.unpack(records, at), map_ids))
            at += size + 4 * maps
        return found

    def close(self) -> None:
        """Unload. Safe to call twice."""
        self._totals.close()
        self._details.close()


def _program(row: list[Any], map_ids: tuple[int, ...] | None) -> Program:
    number, _, _, jited, kind, length, pages, load_time, uid, gpl, ifindex, btf, verified, attach, tag, name, ksym = row
    short = text(name)
    full = text(ksym)[_KSYM_PREFIX:]
    return Program(
        number,
        kind,
        tag.hex(),
        short,
        full if len(short.encode()) >= _NAME_CUT and full.startswith(short) and full != short else None,
        jited,
        length * 8,
        pages * _PAGE,
        load_time,
        uid,
        map_ids,
        None if gpl is None else bool(gpl),
        ifindex,
        btf,
        verified,
        attach,
    )


def _ids_code(types: Types) -> bytes:
    code = IteratorCode(types)
    code.load_id(R1, "bpf_prog.aux", "bpf_prog_aux.id")
    code.store(R10, -8, R1, 8)
    code.write(-8, 8)
    return code.finish()


def totals_code(types: Types, table: int, cpus: int) -> bytes:
    """Write {id, nsecs, cnt, misses}, each total summed over the CPUs whose offsets are in the map *table*.

    A loop, not a block per CPU: machines with hundreds of possible CPUs get the same 60 instructions.
    """
    fields = [types.require(name) for name in _STATS]
    low = min(field.offset for field in fields)
    copy = -32 - (max(field.offset for field in fields) + 8 - low)
    code = IteratorCode(types)
    code.load_id(R1, "bpf_prog.aux", "bpf_prog_aux.id")
    code.store(R10, -32, R1, 8)
    for slot in (-24, -16, -8):
        code.store(R10, slot, 0, 8)
    code.probe_number(copy, R7, types.require("bpf_prog.stats"))
    code.load(R8, R10, copy, 8)
    code.set_map_value(R9, table)
    code.set(R7, 0)
    code.label("cpu")
    code.set(R1, R9)
    code.add(R1, R7)
    code.load(R1, R1, 0, 8)
    code.add(R1, R8)
    code.probe(copy, R1, low, -32 - copy)
    for slot, field in zip((-24, -16, -8), fields, strict=True):
        code.load(R1, R10, slot, 8)
        code.load(R2, R10, copy + field.offset - low, 8)
        code.add(R1, R2)
        code.store(R10, slot, R1, 8)
    code.add(R7, 8)
    code.jump_if("<", R7, 8 * cpus, "cpu")
    code.write(-32, 32)
    return code.finish()


def _details_code(types: Types, record: Record) -> bytes:
    """Write a record, and behind it the 32-bit ids of the program's maps."""
    code = IteratorCode(types)
    code.load_id(R1, "bpf_prog.aux", "bpf_prog_aux.id")
    code.load_field(R8, R7, "bpf_prog.aux")
    record.fill(code, {"bpf_prog": R7, "bpf_prog_aux": R8})
    table, item = record.start - 8, record.start - 16  # free space on the stack
    _sum_functions(code, types, record, table, item)
    code.write(record.start, record.size)
    identity = types.require("bpf_map.id")
    with code.each("map", types.require("bpf_prog_aux.used_maps"), record.slot("bpf_prog_aux.used_map_cnt"), _MAX_MAPS, table):
        code.probe_number(item, R1, POINTER, identity)
        code.write(item + native_low(identity.size), identity.size)
    return code.finish()


def _sum_functions(code: IteratorCode, types: Types, record: Record, table: int, item: int) -> None:
    """Of a program with subprograms, jited_len is that of all (bpf_prog_get_info_by_fd in kernel/bpf/syscall.c)."""
    count, total = record.slot("bpf_prog_aux.func_cnt"), record.slot("bpf_prog.jited_len")
    code.load(R1, R10, count, 8)
    code.jump_if("==", R1, 0, "summed")
    code.store(R10, total, 0, 8)
    with code.each("function", types.require("bpf_prog_aux.func"), count, _MAX_FUNCTIONS, table):
        code.probe_number(item, R1, POINTER, types.require("bpf_prog.jited_len"))
        code.load(R2, R10, total, 8)
        code.add(R1, R2)
        code.store(R10, total, R1, 8)
    code.label("summed")
