"""BPF programs, maps and links as records, from what BPF_OBJ_GET_INFO_BY_FD returns.

The kernel writes as much of the structure as it knows and returns that length; a field beyond it does not exist on
this kernel and is None here, never 0. Offsets are those of ``struct bpf_prog_info`` and ``struct bpf_map_info`` in
include/uapi/linux/bpf.h, native byte order; the lengths (40, 80, 104...) are those of released kernels. None also
means that the engine which made the record cannot see the field.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, Literal, NamedTuple, TypeAlias

from otel_hostmetrics.errors import Reason, Unavailable

Buffer: TypeAlias = bytes | bytearray | memoryview
Kind: TypeAlias = Literal["program", "map", "link", "btf"]

# What the link of a descriptor in /proc/PID/fd reads. Links have two names: as created, and as opened by id or pin.
DESCRIPTORS: Final[dict[str, Kind]] = {
    "anon_inode:bpf-prog": "program",
    "anon_inode:bpf-map": "map",
    "anon_inode:bpf_link": "link",
    "anon_inode:bpf-link": "link",
    "anon_inode:btf": "btf",
}


class Program(NamedTuple):
    """One loaded program. A field's first kernel is in brackets where it is newer than 4.15."""

    id: int
    type: int  # enum bpf_prog_type
    tag: str  # SHA of the instructions, 16 hex digits as bpftool shows it
    name: str  # at most 15 bytes; "" for an anonymous program
    full_name: str | None  # the function's name in the program's own BTF, when *name* was cut [5.0]
    jited_bytes: int
    translated_bytes: int
    memory_bytes: int | None  # fdinfo "memlock", rounded up to pages
    load_time_ns: int | None  # CLOCK_BOOTTIME
    uid: int | None  # of the process that loaded it
    map_ids: tuple[int, ...] | None
    gpl_compatible: bool | None  # [4.18]
    ifindex: int | None  # of the device it is offloaded to; 0 = not offloaded [4.16]
    btf_id: int | None  # 0 = no BTF [5.0]
    verified_instructions: int | None  # [5.16]
    attach_btf_id: int | None  # type id, in its target's BTF, of what it is attached to; 0 = nothing [6.0]


class RunStats(NamedTuple):
    """Totals since the program was loaded, counted only while somebody had statistics switched on."""

    time_ns: int  # [5.1]
    runs: int  # [5.1]
    recursion_misses: int | None  # [5.12]


class Map(NamedTuple):
    """One map. A field's first kernel is in brackets where it is newer than 4.15."""

    id: int
    type: int  # enum bpf_map_type
    name: str  # at most 15 bytes
    key_bytes: int
    value_bytes: int
    max_entries: int
    flags: int  # BPF_F_*
    extra: int | None  # meaning depends on the type [5.16]
    ifindex: int | None  # of the device it is offloaded to; 0 = not offloaded [4.16]
    btf_id: int | None  # 0 = no BTF [4.18]
    memory_bytes: int | None  # fdinfo "memlock": real use since 6.4, an estimate before
    frozen: bool | None  # fdinfo: read-only from user space for good [5.2]


class LinkDetail(NamedTuple):
    """What a link is attached to: the union in ``struct bpf_link_info``. A link's type decides what is not None."""

    attach_type: int | None = None  # enum bpf_attach_type: tracing, cgroup, netns [5.8], tcx [6.6], netkit [6.7], sockmap [6.10]
    ifindex: int | None = None  # xdp [5.9], tcx, netkit; 0 = the device is gone
    cgroup_id: int | None = None  # inode of the cgroup2 directory: cgroup [5.8], iter over a cgroup [6.1]; 0 = gone
    netns_inode: int | None = None  # /proc/PID/ns/net's inode: netns [5.8]; of xdp, tcx, netkit by iterator only; 0 = gone
    target_name: str | None = None  # tracepoint [5.8], iterator [5.9], kernel symbol or path of the ELF file [6.6]
    target_object_id: int | None = None  # tracing: BTF object id, or program id for an extension [5.13]
    target_btf_id: int | None = None  # tracing: type id in that object [5.13]
    map_id: int | None = None  # iter over a map's elements [5.9], struct_ops [6.4], sockmap [6.10]
    pid: int | None = None  # iter over one process's tasks [6.1], uprobe_multi limited to one process [6.8]
    tid: int | None = None  # iter over one thread [6.1]
    perf_type: int | None = None  # enum bpf_perf_event_type; 0 = not told [6.6]
    protocol_family: int | None = None  # netfilter: NFPROTO_* [6.4]
    hook: int | None = None  # netfilter: NF_INET_* [6.4]
    priority: int | None = None  # netfilter [6.4]
    offset: int | None = None  # perf_event: bytes from the symbol (kprobe) or in the file (uprobe) [6.6]
    places: int | None = None  # kprobe_multi [6.6], uprobe_multi [6.8]: number of addresses
    missed: int | None = None  # kprobe, kprobe_multi: runs lost to recursion [6.7]


class Link(NamedTuple):
    """One attachment of a program that has an owner and an id [5.8]."""

    id: int
    type: int  # enum bpf_link_type
    program_id: int  # 0 for struct_ops, whose programs are behind the map
    detail: LinkDetail | None  # None where the kernel or the engine tells nothing about this type


_PROGRAM_40 = struct.Struct("=II8sII").unpack_from  # type, id, tag, jited_prog_len, xlated_prog_len
_PROGRAM_80 = struct.Struct("=QII8x16s").unpack_from  # at 40: load_time, created_by_uid, nr_map_ids, name
_MAP_24 = struct.Struct("=6I").unpack_from  # type, id, key_size, value_size, max_entries, map_flags
_STATS = struct.Struct("=QQ").unpack_from
_U32 = struct.Struct("=I").unpack_from
_U64 = struct.Struct("=Q").unpack_from
_GPL = 1 if sys.byteorder == "little" else 1 << 31  # a one-bit bit-field lies at the other end on big-endian machines


def parse_program_info(
    info: Buffer,
    length: int,
    map_ids: tuple[int, ...] | None = None,
    full_name: str | None = None,
    memory_bytes: int | None = None,
) -> Program:
    """``struct bpf_prog_info`` of which the kernel wrote *length* bytes.

    What the structure only points to is given by the caller. Raises Unavailable(MALFORMED) below 40 bytes.
    """
    check(info, length, 40, "bpf_prog_info")
    kind, number, tag, jited, translated = _PROGRAM_40(info)
    load_time, uid, name = None, None, ""
    if length >= 80:
        load_time, uid, _, raw = _PROGRAM_80(info, 40)
        name = text(raw)
    return Program(
        number,
        kind,
        tag.hex(),
        name,
        full_name,
        jited,
        translated,
        memory_bytes,
        load_time,
        uid,
        map_ids,
        bool(_U32(info, 84)[0] & _GPL) if length >= 128 else None,  # 4.16 and 4.17 (104) have padding there
        _U32(info, 80)[0] if length >= 104 else None,
        _U32(info, 128)[0] if length >= 192 else None,
        _U32(info, 216)[0] if length >= 224 else None,
        _U32(info, 224)[0] if length >= 232 else None,
    )


def parse_run_stats(info: Buffer, length: int) -> RunStats:
    """The run statistics in ``struct bpf_prog_info``. Raises Unavailable(UNSUPPORTED) where there are none (before 5.1)."""
    check(info, length, 40, "bpf_prog_info")
    if length < 208:
        raise Unavailable(Reason.UNSUPPORTED, "bpf_prog_info", "run statistics need Linux 5.1")
    time_ns, runs = _STATS(info, 192)
    return RunStats(time_ns, runs, _U64(info, 208)[0] if length >= 216 else None)


def parse_map_info(info: Buffer, length: int, memory_bytes: int | None = None, frozen: bool | None = None) -> Map:
    """``struct bpf_map_info`` of which the kernel wrote *length* bytes. Raises Unavailable(MALFORMED) below 24 bytes."""
    check(info, length, 24, "bpf_map_info")
    kind, number, key, value, entries, flags = _MAP_24(info)
    return Map(
        number,
        kind,
        text(info[24:40]) if length >= 40 else "",
        key,
        value,
        entries,
        flags,
        _U64(info, 80)[0] if length >= 88 else None,
        _U32(info, 40)[0] if length >= 64 else None,
        _U32(info, 64)[0] if length >= 80 else None,
        memory_bytes,
        frozen,
    )


def check(info: Buffer, length: int, least: int, what: str) -> None:
    """Raises Unavailable(MALFORMED) unless *length* is plausible for *info*."""
    if not least <= length <= len(info):
        raise Unavailable(Reason.MALFORMED, what, f"{length} of {len(info)} bytes, at least {least} expected")


def text(raw: Buffer) -> str:
    """A C string in a fixed array or a buffer. Names are free-form bytes: what is not UTF-8 is shown as hex escapes."""
    return bytes(raw).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
