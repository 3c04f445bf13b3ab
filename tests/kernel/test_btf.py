"""BTF: blobs built here, any bytes at all, and the running kernel's."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import btf
from otel_hostmetrics.kernel.btf import Field

INT, PTR, ARRAY, STRUCT, UNION, TYPEDEF, CONST, FUNC, FUNC_PROTO = 1, 2, 3, 4, 5, 8, 10, 12, 13
BIT_FIELDS = 1 << 31  # kind_flag


class Blob:
    """Builds BTF; type ids begin at 1."""

    def __init__(self) -> None:
        self.types: list[bytes] = []
        self.strings = b"\0"

    def name(self, name: str) -> int:
        if not name:
            return 0
        at = self.strings.find(b"\0" + name.encode() + b"\0") + 1
        if not at:
            at = len(self.strings)
            self.strings += name.encode() + b"\0"
        return at

    def type(self, kind: int, name: str = "", size: int = 0, extra: bytes = b"", vlen: int = 0, flag: int = 0) -> int:
        self.types.append(struct.pack("=III", self.name(name), flag | kind << 24 | vlen, size) + extra)
        return len(self.types)

    def int(self, size: int, bits: int = 0) -> int:
        return self.type(INT, f"int{size}_{bits}", size, struct.pack("=I", bits or size * 8))

    def struct(self, name: str, size: int, members: list[tuple[str, int, int]], kind: int = STRUCT, flag: int = 0) -> int:
        """*members* are (name, type, bit offset, or width << 24 | bit offset with *flag*)."""
        extra = b"".join(struct.pack("=III", self.name(member), number, place) for member, number, place in members)
        return self.type(kind, name, size, extra, len(members), flag)

    def bytes(self) -> bytes:
        types = b"".join(self.types)
        return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings)) + types + self.strings


def test_members_their_offsets_and_sizes() -> None:
    blob = Blob()
    u32, u64, char = blob.int(4), blob.int(8), blob.int(1)
    name = blob.type(ARRAY, extra=struct.pack("=III", char, u32, 16))
    alias = blob.type(TYPEDEF, "id_t", blob.type(CONST, size=u32))
    blob.struct("thing", 40, [("id", alias, 0), ("next", blob.type(PTR, size=4), 64), ("name", name, 128), ("total", u64, 256)])
    found = btf.parse(blob.bytes(), ["thing.id", "thing.next", "thing.name", "thing.total", "thing.nothing", "other.id"], [])
    pointer = struct.calcsize("P")
    assert found.fields == {
        "thing.id": Field(0, 4),
        "thing.next": Field(8, pointer),
        "thing.name": Field(16, 16),
        "thing.total": Field(32, 8),
    }
    assert found.sizes == {"thing": 40}


def test_anonymous_members_are_looked_into_and_named_ones_by_path() -> None:
    blob = Blob()
    u32 = blob.int(4)
    inner = blob.struct("", 8, [("first", u32, 0), ("second", u32, 32)])
    either = blob.struct("", 8, [("", inner, 0), ("other", u32, 0)], kind=UNION)
    blob.struct("outer", 24, [("", either, 64), ("part", inner, 128)])
    found = btf.parse(blob.bytes(), ["outer.second", "outer.other", "outer.part.second", "outer.second.deeper", "outer.part.none"], [])
    assert found.fields == {"outer.second": Field(12, 4), "outer.other": Field(8, 4), "outer.part.second": Field(20, 4)}


def test_flexible_array_has_no_size() -> None:
    blob = Blob()
    u64 = blob.int(8)
    blob.struct("table", 8, [("items", blob.type(ARRAY, extra=struct.pack("=III", u64, u64, 0)), 64)])
    assert btf.parse(blob.bytes(), ["table.items"], []).fields == {"table.items": Field(8, 0)}


def test_bit_fields_in_both_forms() -> None:
    """With kind_flag the width is in the member, without it in a type of its own."""
    blob = Blob()
    u16 = blob.int(2)
    blob.struct("new", 4, [("a", u16, 1 << 24 | 18), ("b", u16, 4 << 24 | 22), ("c", u16, 0)], flag=BIT_FIELDS)
    blob.struct("old", 4, [("a", blob.int(2, bits=1), 18)])
    fields = btf.parse(blob.bytes(), ["new.a", "new.b", "new.c", "old.a"], []).fields
    assert fields == {"new.a": Field(2, 1, 2, 1), "new.b": Field(2, 2, 6, 4), "new.c": Field(0, 2), "old.a": Field(2, 1, 2, 1)}


@pytest.mark.skipif(struct.pack("=H", 1)[0] == 0, reason="the expected values are those of a little-endian machine")
def test_bit_fields_are_extracted() -> None:
    assert Field(2, 1, 2, 1).extract(0b0000_0100) == 1
    assert Field(2, 1, 2, 1).extract(0b1111_1011) == 0
    assert Field(2, 2, 6, 4).extract(0b10_1100_0000) == 0b1011
    assert Field(0, 8).extract(2**64 - 1) == 2**64 - 1


def test_functions_are_found_by_kind() -> None:
    """A structure or a member of the same name is not a function."""
    blob = Blob()
    blob.struct("walk", 4, [("run", blob.int(4), 0)])
    prototype = blob.type(FUNC_PROTO)
    number = blob.type(FUNC, "run", prototype)
    found = btf.parse(blob.bytes(), ["run.x"], ["run", "walk", "absent"])
    assert (found.fields, found.functions) == ({}, {"run": number})


def test_a_missing_field_is_unsupported_when_required() -> None:
    with pytest.raises(Unavailable, match=r"thing\.id") as caught:
        btf.parse(Blob().bytes(), ["thing.id"], []).require("thing.id")
    assert caught.value.reason is Reason.UNSUPPORTED


def _loops() -> list[bytes]:
    """Types that contain themselves: through an anonymous member, a typedef, an array."""
    anonymous, alias, array = Blob(), Blob(), Blob()
    anonymous.struct("a", 4, [("", 1, 0)])
    alias.struct("a", 4, [("x", 2, 0)])
    alias.type(TYPEDEF, "t", 2)
    array.struct("a", 4, [("x", 2, 0)])
    array.type(ARRAY, extra=struct.pack("=III", 2, 2, 2))
    return [anonymous.bytes(), alias.bytes(), array.bytes()]


def _nonsense() -> list[bytes]:
    good = Blob()
    good.struct("a", 4, [("x", good.int(4), 0)])
    blob = good.bytes()
    unknown = Blob()
    unknown.type(100)
    beyond = Blob()
    beyond.struct("a", 4, [("x", 1000, 0)])
    return [b"", blob[:23], blob[:-1], blob[::-1], b"\x9f\xeb\x02" + blob[3:], unknown.bytes(), beyond.bytes()]


@pytest.mark.parametrize("blob", [*_loops(), *_nonsense()])
def test_nonsense_is_malformed(blob: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        btf.parse(blob, ["a.x", "a.y"], [])
    assert caught.value.reason is Reason.MALFORMED


def _swapped(blob: bytes, changes: list[tuple[int, int]]) -> bytes:
    result = bytearray(blob)
    for at, value in changes:
        result[at % len(result)] = value
    return bytes(result)


def _reason(data: bytes) -> Reason | None:
    """Why these bytes are refused, or None."""
    try:
        btf.parse(data, ["a.x", "a.y", "a.y.z"], ["a"])
    except Unavailable as error:
        return error.reason
    return None


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8))
def test_any_bytes_are_taken_or_malformed(tail: bytes, changes: list[tuple[int, int]]) -> None:
    blob = Blob()
    inner = blob.struct("", 8, [("x", blob.int(4), 0)])
    blob.struct("a", 24, [("", inner, 64), ("y", blob.type(ARRAY, extra=struct.pack("=III", 1, 1, 4)), 2 << 24)], flag=BIT_FIELDS)
    for data in (tail, blob.bytes()[:24] + tail, _swapped(blob.bytes(), changes) + tail):
        assert _reason(data) in (None, Reason.MALFORMED)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        btf.scan(["a.x"], [], str(tmp_path / "vmlinux"))
    assert caught.value.reason is Reason.ABSENT
    (tmp_path / "empty").touch()
    with pytest.raises(Unavailable) as caught:
        btf.scan(["a.x"], [], str(tmp_path / "empty"))
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.skipif(not os.access(btf.VMLINUX, os.R_OK), reason=f"no {btf.VMLINUX} (CONFIG_DEBUG_INFO_BTF)")
def test_the_running_kernel() -> None:
    """What the ABI fixes: a task's comm has 16 bytes, a program's tag 8, pids are ints."""
    fields = ["bpf_prog.aux", "bpf_prog.tag", "bpf_prog.gpl_compatible", "bpf_prog_aux.ksym.name", "task_struct.comm", "task_struct.tgid"]
    found = btf.scan([*fields, "task_struct.nothing"], ["bpf_iter_bpf_map", "bpf_iter_nothing"])
    assert found.fields.keys() == set(fields)
    sizes = {name: field.size for name, field in found.fields.items()}
    assert (sizes["task_struct.comm"], sizes["bpf_prog.tag"], sizes["task_struct.tgid"]) == (16, 8, 4)
    assert found.fields["bpf_prog.gpl_compatible"].bits == 1
    assert found.functions.keys() == {"bpf_iter_bpf_map"}
