"""A program's record as points."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric, Number, Series
from otel_hostmetrics.kernel.bpf_names import PROGRAM_TYPES, name_of
from otel_hostmetrics.kernel.bpf_objects import Program
from otel_hostmetrics.sources.bpf.objects import Bound

_LIVE = (rows.PROGRAM_RUN_TIME, rows.PROGRAM_RUN_COUNT, rows.PROGRAM_MISSES)


def bind(program: Program) -> Bound:
    """Every series of one program. Its counters began when it was loaded."""
    loaded_ns = _unix_ns(program.load_time_ns)
    seed = {"id": str(program.id), "name": program.name, "type": name_of(PROGRAM_TYPES, program.type)}
    own = attributes(program)
    values: tuple[tuple[Metric, Mapping[str, AttributeValue], Number | None], ...] = (
        (rows.PROGRAM_INFO, _information(program, seed, loaded_ns), 1),
        (rows.PROGRAM_LOAD_TIME, seed, loaded_ns // 10**9 or None),
        (rows.PROGRAM_JITED, seed, program.jited_bytes),
        (rows.PROGRAM_TRANSLATED, seed, program.translated_bytes),
        (rows.PROGRAM_MEM, seed, program.memory_bytes),
        (rows.PROGRAM_VERIFIED, seed, program.verified_instructions),
        (rows.PROGRAM_MEMORY, own, program.memory_bytes),
        (rows.PROGRAM_INSTRUCTIONS, own, program.verified_instructions),
        (rows.PROGRAM_CODE, {**own, "bpf.program.code": "translated"}, program.translated_bytes),
        (rows.PROGRAM_CODE, {**own, "bpf.program.code": "jited"}, program.jited_bytes),
    )
    fixed = [(metric.series(labels, loaded_ns), value) for metric, labels, value in values if value is not None]
    return Bound(fixed, {metric: Series(metric, own, loaded_ns) for metric in _LIVE})


def attributes(program: Program) -> dict[str, AttributeValue]:
    """What names a program in our own metrics: with its full name, where the kernel tells it."""
    name = program.full_name or program.name
    return {"bpf.program.id": program.id, "bpf.program.name": name, "bpf.program.type": name_of(PROGRAM_TYPES, program.type)}


def _information(program: Program, seed: Mapping[str, AttributeValue], loaded_ns: int) -> dict[str, AttributeValue]:
    # The seed's text says "the tag"; its program prints the 8 bytes as a decimal number. We print what the kernel, bpftool
    # and /proc/kallsyms print, 16 hex digits, and the number beside it.
    known: dict[str, AttributeValue | None] = {
        "tag": program.tag,
        "tag_decimal": str(int(program.tag, 16)),
        # Labels of the seed, always there: empty where this kernel or engine does not tell.
        "gpl_compatible": "" if program.gpl_compatible is None else program.gpl_compatible,
        "load_time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(loaded_ns // 10**9)) if loaded_ns else "",
        "map_ids": str(list(program.map_ids)) if program.map_ids is not None else None,
        "full_name": program.full_name if program.full_name != program.name else None,
        "uid": str(program.uid) if program.uid is not None else None,
        "btf_id": str(program.btf_id) if program.btf_id else None,
    }
    return {**seed, **{key: value for key, value in known.items() if value is not None}}


@lru_cache(maxsize=65_536)
def _unix_ns(since_boot_ns: int | None) -> int:
    """A CLOCK_BOOTTIME as Unix time, to the millisecond; 0 if not known.

    Computed once per program and kept: computed anew it would flap by the jitter of the two clocks and by every step of
    the wall clock, and a label that flaps is a new series each time.
    """
    if since_boot_ns is None:
        return 0
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return (boot_ns + since_boot_ns + 500_000) // 10**6 * 10**6
