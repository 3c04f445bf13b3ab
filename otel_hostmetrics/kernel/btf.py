"""Where the running kernel keeps a field: offsets and ids from BTF (Documentation/bpf/btf.rst), /sys/kernel/btf/vmlinux.

BTF describes every type of the kernel, here 126,000 in 5.5 MB. Kept as Python objects that is 72 MiB (measured); we
need some 80 numbers. So one loop over the type section finds where each type begins, the few names asked for are
searched as bytes, and everything but the answers is given back. Structures differ between kernels: a field that this
kernel lacks is simply not in the result.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

VMLINUX: Final = "/sys/kernel/btf/vmlinux"  # since 5.4, CONFIG_DEBUG_INFO_BTF

_LIMIT: Final = 256 << 20  # bytes; a kernel's BTF is 2 to 10 MB
_DEPTH: Final = 32  # nested anonymous members and chained type qualifiers; real ones stay below 10
_HEADER: Final = struct.Struct("=HBBIIIII")  # struct btf_header: magic, version, flags, hdr_len, type_off/_len, str_off/_len
_MAGIC: Final = 0xEB9F

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12
_FUNC_PROTO, _DATASEC, _FLOAT, _TYPE_TAG, _ENUM64 = 13, 15, 16, 18, 19
_QUALIFIERS: Final = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_SIZED: Final = frozenset({_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64})

# 32-bit words a type takes, by kind: struct btf_type is 3; what follows is fixed, or per member (the vlen in its info).
# 0 is a kind unknown here, which cannot be skipped: its size is nowhere in the format.
_FIXED: Final = (0, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3) + (0,) * 108
_EACH: Final = tuple({_STRUCT: 3, _UNION: 3, _ENUM: 2, _FUNC_PROTO: 2, _DATASEC: 3, _ENUM64: 3}.get(kind, 0) for kind in range(128))


class Field(NamedTuple):
    """A member of a structure. A bit-field has the bytes that hold it; whole bytes have ``bits`` 0."""

    offset: int  # bytes from the start of the structure
    size: int  # bytes
    bit: int = 0  # of the first bit, counted in memory order from *offset*
    bits: int = 0

    def extract(self, value: int) -> int:
        """The bit-field in *value*, an unsigned integer of *size* bytes loaded at *offset*."""
        if not self.bits:
            return value
        shift = self.bit if sys.byteorder == "little" else self.size * 8 - self.bit - self.bits
        return value >> shift & (1 << self.bits) - 1


class Types(NamedTuple):
    """What was asked for and exists."""

    fields: Mapping[str, Field]  # "bpf_prog.aux"
    functions: Mapping[str, int]  # type id of each FUNC
    sizes: Mapping[str, int]  # bytes of each structure a field was asked of

    def require(self, path: str) -> Field:
        """The field, or Unavailable(UNSUPPORTED)."""
        if path not in self.fields:
            raise Unavailable(Reason.UNSUPPORTED, path, "no such field in this kernel")
        return self.fields[path]


def scan(fields: Iterable[str], functions: Iterable[str], path: str = VMLINUX) -> Types:
    """Look up ``structure.member`` (``bpf_prog_aux.ksym.name`` for a nested one) and function names. About 50 ms of CPU.

    Raises Unavailable: ABSENT without the file, MALFORMED if it is not BTF of this machine's byte order.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _scan_file(descriptor, fields, functions, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unavailable(error, path, needs=path) from error


def _scan_file(descriptor: int, fields: Iterable[str], functions: Iterable[str], path: str) -> Types:
    """Read into an anonymous mapping: unlike 5 MB from malloc, it goes back to the kernel for certain, and at once.

    Mapping the file itself would save the copy (5 ms) but works only since 6.16.
    """
    size = os.fstat(descriptor).st_size
    if not 0 < size <= _LIMIT:
        raise Unavailable(Reason.MALFORMED, path, f"{size} bytes")
    with mmap.mmap(-1, size) as data:
        done = 0
        with memoryview(data) as view:
            while done < size and (count := os.readv(descriptor, [view[done:]])):
                done += count
        return parse(data, fields, functions, path)


def parse(data: bytes | mmap.mmap, fields: Iterable[str], functions: Iterable[str], what: str = "BTF") -> Types:
    """The same on bytes. Any bytes give Types or Unavailable(MALFORMED)."""
    wanted: dict[str, list[str]] = {}
    for path in fields:
        structure, _, member = path.partition(".")
        wanted.setdefault(structure, []).append(member)
    try:
        with memoryview(data) as view:
            return _Blob(data, view).find(wanted, tuple(functions))
    except (struct.error, IndexError, ValueError) as error:
        raise Unavailable(Reason.MALFORMED, what, str(error)) from error


class _Blob:
    """The type and the string section of one BTF blob. Raises ValueError, IndexError or struct.error on nonsense."""

    def __init__(self, data: bytes | mmap.mmap, view: memoryview) -> None:
        magic, version, _, header, types, types_length, strings, strings_length = _HEADER.unpack_from(view)
        if (magic, version) != (_MAGIC, 1):
            raise ValueError(f"magic {magic:#x} version {version}: not BTF of this byte order")
        types += header
        self.data, self.strings = data, header + strings
        self.end = self.strings + strings_length
        if types_length % 4 or types + types_length > len(view) or self.end > len(view):
            raise ValueError(f"sections exceed the file of {len(view)} bytes")
        with view[types : types + types_length] as section:
            self.words = section.cast("I")
        self.starts = array("I", [0])  # by type id, in words; id 0 is void
        self.budget = 1 << 20  # members looked at, whatever the file claims

    def find(self, wanted: Mapping[str, list[str]], functions: tuple[str, ...]) -> Types:
        with self.words:
            found, ids = self._walk(self._named(wanted), self._named(functions))
            fields: dict[str, Field] = {}
            for structure, number in found.items():
                for member in wanted[structure]:
                    field = self._member(number, member.split("."), 0, _DEPTH)
                    if field is not None:
                        fields[f"{structure}.{member}"] = field
            sizes = {structure: self.words[self.starts[number] + 2] for structure, number in found.items()}
        return Types(fields, ids, sizes)

    def _named(self, names: Iterable[str]) -> dict[int, str]:
        """Where each name stands in the string section; BTF writers store a string once."""
        offsets = {self.data.find(b"\0%b\0" % name.encode(), self.strings, self.end) + 1 - self.strings: name for name in names}
        return {offset: name for offset, name in offsets.items() if offset > 0}

    def _name(self, offset: int) -> bytes:
        start = self.strings + offset
        return self.data[start : self.data.find(b"\0", start, self.end)]

    def _walk(self, structures: Mapping[int, str], functions: Mapping[int, str]) -> tuple[dict[str, int], dict[str, int]]:
        """Note where every type begins; the ids of wanted structures and functions by name. 0.2 us per type: a flat loop."""
        words, end, append = self.words, len(self.words), self.starts.append
        candidates: list[tuple[int, int]] = []
        names = structures.keys() | functions.keys()
        at = 0
        while at < end:
            info = words[at + 1]
            if words[at] in names:
                candidates.append((len(self.starts), at))
            append(at)
            kind = info >> 24 & 0x7F
            size = _FIXED[kind]
            if not size:
                raise ValueError(f"type {len(self.starts) - 1} is of kind {kind}, which is not known here")
            at += size + (info & 0xFFFFFF) * _EACH[kind]
        found: dict[int, dict[str, int]] = {_STRUCT: {}, _FUNC: {}}
        for number, start in candidates:
            kind = words[start + 1] >> 24 & 0x7F
            name = (structures if kind == _STRUCT else functions if kind == _FUNC else {}).get(words[start])
            if name is not None:
                found[kind].setdefault(name, number)  # pahole now and then leaves a second copy of a type
        return found[_STRUCT], found[_FUNC]

    def _members(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        """(name, type, bit offset, bits) of each member of a structure or union."""
        start = self.starts[number]
        info = self.words[start + 1]
        if info >> 24 & 0x7F not in (_STRUCT, _UNION):
            return
        for at in range(start + 3, start + 3 + 3 * (info & 0xFFFFFF), 3):
            self.budget -= 1
            if self.budget < 0:
                raise ValueError("members without end")
            name, kind, place = self.words[at], self.words[at + 1], self.words[at + 2]
            # kind_flag: the structure has bit-fields, and a place is their width and a 24-bit offset
            yield (name, kind, place & 0xFFFFFF, place >> 24) if info >> 31 else (name, kind, place, 0)

    def _member(self, number: int, path: list[str], base: int, depth: int) -> Field | None:
        """Find a member by its path from structure *number*, which begins at bit *base*; anonymous ones are looked into."""
        if depth < 0:
            raise ValueError("structures nested without end")
        for name, kind, place, bits in self._members(number):
            if name == 0:
                field = self._member(self._bare(kind), path, base + place, depth - 1)
                if field is not None:
                    return field
            elif self._name(name) == path[0].encode():
                if len(path) > 1:
                    return self._member(self._bare(kind), path[1:], base + place, depth - 1)
                return self._field(kind, base + place, bits)
        return None

    def _field(self, kind: int, place: int, bits: int) -> Field:
        number = self._bare(kind)
        start = self.starts[number]
        if not bits and self.words[start + 1] >> 24 & 0x7F == _INT:  # the older form: the width is in the type, INT_BITS
            width = self.words[start + 3] & 0xFF
            bits = width if width != self.words[start + 2] * 8 else 0
        if not bits:
            return Field(place // 8, self._size(number, _DEPTH))
        return Field(place // 8, (place % 8 + bits + 7) // 8, place % 8, bits)

    def _bare(self, number: int) -> int:
        """The type behind typedefs and qualifiers."""
        for _ in range(_DEPTH):
            start = self.starts[number]
            if number == 0 or self.words[start + 1] >> 24 & 0x7F not in _QUALIFIERS:
                return number
            number = self.words[start + 2]
        raise ValueError(f"type {number}: qualifiers without end")

    def _size(self, number: int, depth: int) -> int:
        """Bytes of a type; a flexible array has 0."""
        number = self._bare(number)
        start = self.starts[number]
        kind = self.words[start + 1] >> 24 & 0x7F if number else 0
        if kind == _PTR:
            return struct.calcsize("P")
        if kind == _ARRAY and depth > 0:
            return self.words[start + 5] * self._size(self.words[start + 3], depth - 1)
        if kind in _SIZED:
            return self.words[start + 2]
        raise ValueError(f"type {number} of kind {kind} has no size")
