"""Full names of programs: the kernel keeps 15 bytes, the program's BTF keeps the function's whole name.

Format: Documentation/bpf/btf.rst. Only FUNC entries are of interest, everything else is stepped over.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_objects import Buffer, text

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_TYPE = struct.Struct("=III")  # name_off, info, size or type
_FUNC = 12
# Bytes after struct btf_type, by kind: fixed, and per member (vlen)
_FIXED: Final = {1: 4, 3: 12, 14: 4, 17: 4}  # INT, ARRAY, VAR, DECL_TAG
_PER_MEMBER: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64
_LAST_KIND = 19  # a newer kind cannot be stepped over: its size is nowhere in the format

_MAX_BYTES = 4 << 20  # BTF of one program; the largest we know of are below 1 MiB
_MAX_OBJECTS = 256  # BTF objects whose function names are remembered


def function_names(btf: Buffer) -> dict[int, str]:
    """Type id -> name of every function in a BTF blob. Raises Unavailable(MALFORMED)."""
    try:
        magic, _, _, header, type_offset, type_bytes, string_offset, string_bytes = _HEADER.unpack_from(btf)
        if magic != _MAGIC:
            raise Unavailable(Reason.MALFORMED, "BTF", f"magic {magic:#x}")
        strings = bytes(btf[header + string_offset : header + string_offset + string_bytes])
        names: dict[int, str] = {}
        offset, end, number = header + type_offset, min(header + type_offset + type_bytes, len(btf)), 1
        while offset < end:
            name, info, _ = _TYPE.unpack_from(btf, offset)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            if kind > _LAST_KIND:
                break
            if kind == _FUNC:
                names[number] = text(strings[name : name + 512])  # KSYM_NAME_LEN
            offset += _TYPE.size + _FIXED.get(kind, 0) + _PER_MEMBER.get(kind, 0) * members
            number += 1
    except struct.error as error:
        raise Unavailable(Reason.MALFORMED, "BTF", str(error)) from None
    return names


class FullNames:
    """Function names by BTF id, read once per BTF object; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._known: dict[int, dict[int, str]] = {}

    def of(self, btf_id: int, type_id: int, short: str) -> str | None:
        """The name of function *type_id*, or None where it adds nothing to *short* or cannot be had."""
        names = self._known.get(btf_id)
        if names is None:
            if len(self._known) >= _MAX_OBJECTS:
                del self._known[next(iter(self._known))]
            names = self._known[btf_id] = _read(btf_id)
        name = names.get(type_id)
        return name if name and name != short else None


def _read(btf_id: int) -> dict[int, str]:
    """The functions of a BTF object; empty when it is gone or not ours to read: the short name must do."""
    try:
        fd = bpf.bpf(bpf.BTF_GET_FD_BY_ID, struct.pack("=III", btf_id, 0, 0))
    except OSError:
        return {}
    try:
        return function_names(_data(fd))
    except (OSError, Unavailable):
        return {}
    finally:
        os.close(fd)


def _data(fd: int) -> bytes:
    """The blob behind a BTF descriptor: struct bpf_btf_info {u64 btf; u32 btf_size; u32 id}, asked for its size first."""
    info = ctypes.create_string_buffer(16)
    attr = struct.pack("=IIQ", fd, 16, bpf.address(info))
    bpf.bpf(bpf.OBJ_GET_INFO_BY_FD, attr)
    size = min(struct.unpack_from("=8xI", info)[0], _MAX_BYTES)
    blob = ctypes.create_string_buffer(size)
    struct.pack_into("=QII", info, 0, bpf.address(blob), size, 0)
    bpf.bpf(bpf.OBJ_GET_INFO_BY_FD, attr)
    return blob.raw
