"""How far each CPU's copy of a per-CPU variable lies from its pointer, learned without kallsyms.

The kernel counts a program's runs per CPU. A per-CPU pointer plus the CPU's offset is the address of its copy; the
table of offsets (__per_cpu_offset) is visible only in kallsyms, which often hides it. But of a per-CPU array map of our
own both sides can be read: the pointer itself (struct bpf_array.pptrs) and the address of the value on each CPU
(bpf_map_lookup_percpu_elem [5.19]). The difference is the same for every per-CPU pointer until the next boot.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_asm import MAP_LOOKUP_PERCPU_ELEM, R0, R1, R2, R3, R7, R8, R10
from otel_hostmetrics.kernel.bpf_iter import NEEDS, BpfIterator, ReadBuffer, object_id
from otel_hostmetrics.kernel.bpf_iter_code import IteratorCode
from otel_hostmetrics.kernel.btf import Types

FIELDS: Final = ("bpf_map.id", "bpf_array.pptrs")
POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")  # Documentation/ABI/testing/sysfs-devices-system-cpu

ARRAY, PERCPU_ARRAY = 2, 6  # enum bpf_map_type
_CPU_LIMIT: Final = 1 << 16
_KEY, _ANSWER = -8, -16  # on the stack


def possible_cpus(text: str) -> list[int]:
    """``0-3,8``: the CPUs that per-CPU memory exists for. Raises Unavailable(MALFORMED)."""
    cpus: list[int] = []
    try:
        for part in text.strip().split(","):
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            if numbers.stop > _CPU_LIMIT:
                raise ValueError(f"CPU {numbers.stop - 1}")
            cpus.extend(numbers)
    except ValueError as error:
        raise Unavailable(Reason.MALFORMED, str(POSSIBLE), str(error)) from error
    return cpus


def learn_offsets(types: Types, buffer: ReadBuffer) -> list[int]:
    """The offset of every possible CPU, modulo 2**64, from one walk over all maps. Raises Unavailable."""
    try:
        cpus = possible_cpus(POSSIBLE.read_text("ascii"))
    except OSError as error:
        raise unavailable(error, str(POSSIBLE)) from error
    descriptor = create_map(PERCPU_ARRAY, 8, b"otel_learn")
    try:
        with BpfIterator("bpf_map", _learner(types, descriptor, cpus[-1] + 1), types, buffer, "otel_learn") as walk:
            words = walk.read().cast("Q").tolist()
    finally:
        os.close(descriptor)
    if len(words) != cpus[-1] + 2:
        raise Unavailable(Reason.UNREADABLE, walk.what, f"{len(words)} values for {cpus[-1] + 1} CPUs")
    return [words[1 + cpu] - words[0] & (1 << 64) - 1 for cpu in cpus]


def offsets_map(offsets: list[int]) -> int:
    """An array map whose one element is the table of *offsets*, for a program to read: its descriptor. Raises Unavailable."""
    table = ctypes.create_string_buffer(struct.pack(f"={len(offsets)}Q", *offsets), 8 * len(offsets))
    key = ctypes.create_string_buffer(4)
    descriptor = create_map(ARRAY, len(table), b"otel_percpu")
    try:
        bpf.bpf(bpf.MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", descriptor, bpf.address(key), bpf.address(table), 0))
    except OSError as error:
        os.close(descriptor)
        raise unavailable(error, "BPF_MAP_UPDATE_ELEM", NEEDS) from error
    return descriptor


def create_map(kind: int, value_bytes: int, name: bytes) -> int:
    """A map with one element: its descriptor. Raises Unavailable."""
    bpf.require()
    try:
        return bpf.bpf(bpf.MAP_CREATE, struct.pack("=IIIIIII16s", kind, 4, value_bytes, 1, 0, 0, 0, name))
    except OSError as error:
        raise unavailable(error, "BPF_MAP_CREATE", NEEDS) from error


def _learner(types: Types, descriptor: int, cpus: int) -> bytes:
    """For our own map: write its per-CPU pointer, then the address of the value on each CPU; 0 where there is no such CPU."""
    code = IteratorCode(types)
    code.load_field(R1, R7, "bpf_map.id")
    code.jump_if("!=", R1, object_id(descriptor), "end")
    code.probe_number(_ANSWER, R7, types.require("bpf_array.pptrs")._replace(size=8))  # a flexible array: its first element
    code.write(_ANSWER, 8)
    code.store(R10, _KEY, 0, 8)
    code.set(R8, 0)
    code.label("cpu")
    code.set_map(R1, descriptor)
    code.set(R2, R10)
    code.add(R2, _KEY)
    code.set(R3, R8)
    code.call(MAP_LOOKUP_PERCPU_ELEM)
    code.store(R10, _ANSWER, R0, 8)
    code.write(_ANSWER, 8)
    code.add(R8, 1)
    code.jump_if("<", R8, cpus, "cpu")
    return code.finish()
