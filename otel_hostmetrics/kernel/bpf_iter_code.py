"""What our iterator programs have in common: the frame around each, and records filled from a table of fields.

A record is a row of 8 byte numbers, then fixed arrays of bytes. It is put together on the program's stack (512 bytes)
and written to the reader in one piece.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from otel_hostmetrics.kernel.bpf_asm import PROBE_READ_KERNEL, R0, R1, R2, R3, R6, R7, R8, R9, R10, SEQ_WRITE, Code, Register
from otel_hostmetrics.kernel.btf import Field, Types

FIELDS: Final = ("bpf_iter_meta.seq",)
Path: TypeAlias = tuple[str, ...]  # names of fields: each but the last is a pointer to the structure of the next
POINTER: Final = Field(0, struct.calcsize("P"))  # what an element of an array of pointers is


def native_low(size: int) -> int:
    """Where in 8 bytes a number of *size* bytes lies so that it reads the same as a whole."""
    return 0 if sys.byteorder == "little" else 8 - size


class IteratorCode(Code):
    """What every iterator program has in common. R6 is the seq_file to write to, R7 the object; R8 and R9 are free.

    The kernel calls the program with a context of pointers: meta, then the object, and once more at the end with a null
    object. Types tells where the fields are.
    """

    def __init__(self, types: Types) -> None:
        super().__init__()
        self._types = types
        self.load(R6, R1, 0, 8)
        self.load(R7, R1, 8, 8)
        self.jump_if("==", R7, 0, "end")
        self.load_field(R6, R6, "bpf_iter_meta.seq")

    def load_field(self, to: Register, base: Register, *path: str) -> None:
        """Follow pointers from a *base* whose type the verifier knows. The fastest way (1 ns); null pointers read as 0."""
        for name in path:
            field = self._types.require(name)
            self.load(to, base, field.offset, field.size)
            base = to

    def load_id(self, to: Register, *path: str) -> None:
        """The object's id; one without is passed over: a link has none until it is attached (bpf_link_settle)."""
        self.load_field(to, R7, *path)
        self.jump_if("==", to, 0, "end")

    def probe(self, to: int, base: Register, offset: int, size: int) -> None:
        """Copy *size* bytes at ``base + offset`` to the stack at *to*; zeros if there is nothing. Loses R1 to R5."""
        self.set(R3, base)
        self.add(R3, offset)
        self.set(R1, R10)
        self.add(R1, to)
        self.set(R2, size)
        self.call(PROBE_READ_KERNEL)

    def probe_number(self, to: int, base: Register, *path: Field) -> None:
        """Follow pointers from any *base* and leave the last field, zero-extended to 8 bytes, on the stack at *to*. Loses R1 to R5."""
        for field in path:
            self.store(R10, to, 0, 8)
            self.probe(to + native_low(field.size), base, field.offset, field.size)
            self.load(R1, R10, to, 8)
            base = R1

    def write(self, start: int, size: int) -> None:
        """Give *size* bytes of the stack to the reader. Loses R1 to R5."""
        self.set(R1, R6)
        self.set(R2, R10)
        self.add(R2, start)
        self.set(R3, size)
        self.call(SEQ_WRITE)

    @contextlib.contextmanager
    def each(self, label: str, table: Field, count: int, most: int, scratch: int) -> Iterator[None]:
        """Repeat what is added inside for each element of an array of pointers, at most *most*, with its address in R1.

        *table* is the field of R8's structure that points to the array, *count* a slot on the stack with its length,
        *scratch* a free one. R9 counts: it must be left alone.
        """
        self.probe_number(scratch, R8, table)
        self.set(R9, 0)
        self.label(label)
        self.load(R1, R10, count, 8)
        self.jump_if(">=", R9, R1, f"{label} end")
        self.set(R2, R9)
        self.shift_left(R2, POINTER.size.bit_length() - 1)
        self.load(R1, R10, scratch, 8)
        self.add(R1, R2)
        yield
        self.add(R9, 1)
        self.jump_if("<", R9, most, label)
        self.label(f"{label} end")

    def finish(self) -> bytes:
        self.label("end")
        self.set(R0, 0)
        self.exit()
        return self.assemble()


class Record:
    """The layout of a record on this kernel.

    *numbers* are paths of fields to follow, the last is the value; *arrays* are (field, bytes kept). Behind them *tail*
    bytes are left to the caller, zeroed. Sizes are multiples of 8.
    """

    def __init__(self, types: Types, numbers: tuple[Path, ...], arrays: tuple[tuple[str, int], ...] = (), tail: int = 0) -> None:
        self._names = [path[-1] for path in numbers]
        self._bases = [_structure(path[0]) for path in numbers]
        # a path with a field that this kernel lacks is empty, and its value None
        self._paths = [[types.fields[name] for name in path] if types.fields.keys() >= {*path} else [] for path in numbers]
        self._arrays = [(_structure(name), types.fields.get(name), size) for name, size in arrays]
        self._unpack = struct.Struct(f"={len(numbers)}Q" + "".join(f"{size}s" for _, size in arrays)).unpack_from
        self._special = [(at, path) for at, path in enumerate(self._paths) if not path or path[-1].bits]
        self.tail = 8 * len(numbers) + sum(size for _, size in arrays)  # where it begins in the record
        self.size = self.tail + tail
        self.start = -self.size  # on the stack

    def slot(self, name: str) -> int:
        """Where on the stack the number lies whose value is the field *name*."""
        return self.start + 8 * self._names.index(name)

    def fill(self, code: IteratorCode, bases: Mapping[str, Register]) -> None:
        """Add the code that reads every field; a path begins in the structure that one of *bases* points to."""
        for at in range(self.start, 0, 8):
            code.store(R10, at, 0, 8)
        at = self.start
        for structure, path in zip(self._bases, self._paths, strict=True):
            code.probe_number(at, bases[structure], *path)
            at += 8
        for structure, field, size in self._arrays:
            if field is not None:
                code.probe(at, bases[structure], field.offset, min(size, field.size))
            at += size

    def unpack(self, records: memoryview, at: int) -> list[Any]:
        """The values of the record that begins at *at*: int, None for what this kernel lacks, bytes for the arrays."""
        values = list(self._unpack(records, at))
        for place, path in self._special:
            values[place] = path[-1].extract(values[place]) if path else None
        return values


def _structure(name: str) -> str:
    return name.partition(".")[0]
