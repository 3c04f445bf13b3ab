"""``struct bpf_link_info``: what a link is attached to, by link type. Offsets as in include/uapi/linux/bpf.h.

Kernels learned to fill the parts of the union one after the other, after the types themselves existed; until then the
fields are 0. Where 0 cannot be a real value (a map id, a number of places) it is therefore read as "not told".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from otel_hostmetrics.kernel.bpf_names import LINK_TYPES
from otel_hostmetrics.kernel.bpf_objects import Buffer, Link, LinkDetail, check

_HEAD = struct.Struct("=III").unpack_from  # type, id, prog_id

# Where a second call finds room for the target's name: link type -> (offset of the pointer, offset of its size)
NAME_FIELDS: Final = {
    LINK_TYPES.index("raw_tracepoint"): (16, 24),
    LINK_TYPES.index("iter"): (16, 24),
    LINK_TYPES.index("perf_event"): (24, 32),
    LINK_TYPES.index("uprobe_multi"): (16, 48),
}


class _Fields:
    """The union's fields, None where the kernel did not write that far."""

    __slots__ = ("_info", "_length")

    def __init__(self, info: Buffer, length: int) -> None:
        self._info = info
        self._length = length

    def _at(self, offset: int, form: str, size: int) -> int | None:
        return struct.unpack_from(form, self._info, offset)[0] if offset + size <= self._length else None

    def u32(self, offset: int) -> int | None:
        return self._at(offset, "=I", 4)

    def s32(self, offset: int) -> int | None:
        return self._at(offset, "=i", 4)

    def u64(self, offset: int) -> int | None:
        return self._at(offset, "=Q", 8)


_Reader: TypeAlias = Callable[[_Fields, str | None], LinkDetail]


def _raw_tracepoint(_: _Fields, name: str | None) -> LinkDetail:
    return LinkDetail(target_name=name)


def _tracing(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(attach_type=at.u32(16), target_object_id=at.u32(20) or None, target_btf_id=at.u32(24) or None)


def _cgroup(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(cgroup_id=at.u64(16), attach_type=at.u32(24))


def _iter(at: _Fields, name: str | None) -> LinkDetail:
    """The target decides what limits the walk: a map, a cgroup, a process or thread; 0 = no limit."""
    target = name or ""
    task, cgroup = target.startswith("task"), target == "cgroup"
    return LinkDetail(
        target_name=name,
        map_id=at.u32(28) or None,
        cgroup_id=(at.u64(32) or None) if cgroup else None,
        tid=(at.u32(32) or None) if task else None,
        pid=(at.u32(36) or None) if task else None,
    )


def _netns(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(netns_inode=at.u32(16), attach_type=at.u32(20))


def _xdp(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(ifindex=at.u32(16))


def _device(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(ifindex=at.u32(16), attach_type=at.u32(20))


def _struct_ops(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(map_id=at.u32(16) or None)


def _sockmap(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(map_id=at.u32(16) or None, attach_type=at.u32(20))


def _netfilter(at: _Fields, _: str | None) -> LinkDetail:
    return LinkDetail(protocol_family=at.u32(16), hook=at.u32(20), priority=at.s32(24))


def _kprobe_multi(at: _Fields, _: str | None) -> LinkDetail:
    # "missed" came in 6.7, together with the first 56 byte structure: the field itself lies below 40
    return LinkDetail(places=at.u32(24) or None, missed=at.u64(32) if at.u64(48) is not None else None)


def _uprobe_multi(at: _Fields, name: str | None) -> LinkDetail:
    return LinkDetail(target_name=name, places=at.u32(52) or None, pid=at.u32(60) or None)


def _perf_event(at: _Fields, name: str | None) -> LinkDetail:
    kind = at.u32(16)
    probe, kprobe = kind in (1, 2, 3, 4), kind in (3, 4)
    return LinkDetail(
        perf_type=kind,
        target_name=name,
        offset=at.u32(36) if probe else None,
        missed=at.u64(48) if kprobe else None,
    )


_READERS: Final[dict[str, _Reader]] = {
    "raw_tracepoint": _raw_tracepoint, "tracing": _tracing, "cgroup": _cgroup, "iter": _iter, "netns": _netns, "xdp": _xdp,
    "perf_event": _perf_event, "kprobe_multi": _kprobe_multi, "struct_ops": _struct_ops, "netfilter": _netfilter,
    "tcx": _device, "uprobe_multi": _uprobe_multi, "netkit": _device, "sockmap": _sockmap,
}  # fmt: skip
_BY_TYPE: Final = tuple(_READERS.get(name) for name in LINK_TYPES)


def parse_link_info(info: Buffer, length: int, target_name: str | None = None) -> Link:
    """``struct bpf_link_info`` of which the kernel wrote *length* bytes.

    *target_name* is what the structure only points to. Raises Unavailable(MALFORMED) below 16 bytes.
    """
    check(info, length, 16, "bpf_link_info")
    kind, number, program = _HEAD(info)
    reader = _BY_TYPE[kind] if kind < len(_BY_TYPE) else None
    return Link(number, kind, program, reader(_Fields(info, length), target_name) if reader else None)
