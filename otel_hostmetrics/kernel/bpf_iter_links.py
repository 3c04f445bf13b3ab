"""Links through iter/bpf_link [5.19]: ids and programs every cycle, full records when there are new ones.

A struct bpf_link is the first part of a larger structure of its type (struct bpf_cgroup_link...), some of which are
known only to one file of the kernel; BTF describes them all. For each type a table says which of their fields become
which of LinkDetail: the same that ``fill_link_info`` of that type tells to BPF_OBJ_GET_INFO_BY_FD. Perf events and
multi-probes, which take more than following pointers, have no detail here.
"""

from __future__ import annotations

import struct
from collections.abc import Container
from typing import Final, NamedTuple

from otel_hostmetrics.kernel.bpf_asm import PROBE_READ_KERNEL_STR, R1, R2, R3, R7, R8, R10
from otel_hostmetrics.kernel.bpf_iter import BpfIterator, OwnIds, ReadBuffer, join
from otel_hostmetrics.kernel.bpf_iter_code import IteratorCode, Path, Record
from otel_hostmetrics.kernel.bpf_names import LINK_TYPES
from otel_hostmetrics.kernel.bpf_objects import Link, LinkDetail, text
from otel_hostmetrics.kernel.btf import Field, Types

_BASE: Final = (("bpf_link.id",), ("bpf_link.type",), ("bpf_link.prog", "bpf_prog.aux", "bpf_prog_aux.id"))
_ATTACH_TYPE: Final = "bpf_link.attach_type"  # since 6.17 here, before in the structures of the types
_CGROUP_ID: Final = ("cgroup.kn", "kernfs_node.id")
_NETNS: Final = "net.ns.inum"


def _device(pointer: str) -> dict[str, Path]:
    """An interface: its index means something in its network namespace only, which BPF_OBJ_GET_INFO_BY_FD does not tell."""
    return {"ifindex": (pointer, "net_device.ifindex"), "netns_inode": (pointer, "net_device.nd_net.net", _NETNS)}


class _Places(NamedTuple):
    """Where this kernel has what a shape asks for."""

    numbers: dict[str, list[Field]]
    string: list[Field]


class _Shape(NamedTuple):
    """A link type: where the structure has its ``struct bpf_link``, paths of numbers, and of a pointer to a string."""

    link: str
    numbers: dict[str, Path]
    string: Path = ()


_SHAPES: Final = {
    "raw_tracepoint": _Shape("bpf_raw_tp_link.link", {}, ("bpf_raw_tp_link.btp", "bpf_raw_event_map.tp", "tracepoint.name")),
    "tracing": _Shape(
        "bpf_tracing_link.link.link",
        {"attach_type": ("bpf_tracing_link.attach_type",), "key": ("bpf_tracing_link.trampoline", "bpf_trampoline.key")},
    ),
    "cgroup": _Shape(
        "bpf_cgroup_link.link", {"attach_type": ("bpf_cgroup_link.type",), "cgroup_id": ("bpf_cgroup_link.cgroup", *_CGROUP_ID)}
    ),
    "iter": _Shape(
        "bpf_iter_link.link",
        {
            "map_id": ("bpf_iter_link.aux.map", "bpf_map.id"),
            "cgroup_id": ("bpf_iter_link.aux.cgroup.start", *_CGROUP_ID),
            "task": ("bpf_iter_link.aux.task.pid",),
            "task_type": ("bpf_iter_link.aux.task.type",),
        },
        ("bpf_iter_link.tinfo", "bpf_iter_target_info.reg_info", "bpf_iter_reg.target"),
    ),
    "netns": _Shape("bpf_netns_link.link", {"attach_type": ("bpf_netns_link.type",), "netns_inode": ("bpf_netns_link.net", _NETNS)}),
    "xdp": _Shape("bpf_xdp_link.link", _device("bpf_xdp_link.dev")),
    "struct_ops": _Shape("bpf_struct_ops_link.link", {"map_id": ("bpf_struct_ops_link.map", "bpf_map.id")}),
    "netfilter": _Shape(
        "bpf_nf_link.link",
        {
            "protocol_family": ("bpf_nf_link.hook_ops.pf",),
            "hook": ("bpf_nf_link.hook_ops.hooknum",),
            "priority": ("bpf_nf_link.hook_ops.priority",),
        },
    ),
    "tcx": _Shape("tcx_link.link", {"attach_type": ("tcx_link.location",), **_device("tcx_link.dev")}),
    "netkit": _Shape("netkit_link.link", {"attach_type": ("netkit_link.location",), **_device("netkit_link.dev")}),
    "sockmap": _Shape("sockmap_link.link", {"attach_type": ("sockmap_link.attach_type",), "map_id": ("sockmap_link.map", "bpf_map.id")}),
}
FIELDS: Final = (
    _ATTACH_TYPE,
    *(name for path in _BASE for name in path),
    *(name for shape in _SHAPES.values() for path in ((shape.link,), shape.string, *shape.numbers.values()) for name in path),
)

_TRACING, _ITER = (LINK_TYPES.index(name) for name in ("tracing", "iter"))
_VALUES: Final = max(len(shape.numbers) for shape in _SHAPES.values())
_STRING: Final = 128  # bytes kept of a name; tracepoints and iterators have short ones
_TAIL: Final = struct.Struct(f"={_VALUES}Q{_STRING}s")


class LinkPrograms(NamedTuple):
    """One cycle's columns, a place per link."""

    ids: list[int]
    program_ids: list[int]  # BPF_LINK_UPDATE may change it; 0 = none


class LinkIterators:
    """Both walks over links. Not thread-safe. Methods and constructor raise Unavailable."""

    def __init__(self, types: Types, buffer: ReadBuffer) -> None:
        self._record = Record(types, _BASE, tail=_TAIL.size)
        self._places = {LINK_TYPES.index(name): _places(types, shape) for name, shape in _SHAPES.items() if shape.link in types.fields}
        self._programs = BpfIterator("bpf_link", _programs_code(types), types, buffer, "otel_link_prog")
        try:
            self._details = BpfIterator("bpf_link", self._details_code(types), types, buffer, "otel_links")
        except BaseException:
            self._programs.close()
            raise

    @property
    def own(self) -> OwnIds:
        return join((self._programs.own, self._details.own))

    def programs(self) -> LinkPrograms:
        """Ids of all links and of their programs."""
        words = self._programs.read().cast("I")
        return LinkPrograms(words[0::2].tolist(), words[1::2].tolist())

    def details(self, known: Container[int] = ()) -> list[Link]:
        """Records of all links but those *known*."""
        records, size = self._details.read(), self._record.size
        ids = records.cast("Q")[:: size // 8].tolist()
        return [self._link(records, row * size) for row, number in enumerate(ids) if number not in known]

    def _link(self, records: memoryview, at: int) -> Link:
        number, kind, program = self._record.unpack(records, at)
        places = self._places.get(kind)
        if places is None:
            return Link(number, kind, program, None)
        *values, string = _TAIL.unpack_from(records, at + self._record.tail)
        return Link(number, kind, program, _detail(kind, dict(zip(places.numbers, values, strict=False)), text(string) or None))

    def _details_code(self, types: Types) -> bytes:
        """Write a record whose tail is filled by the code for the link's type."""
        code = IteratorCode(types)
        code.load_id(R1, "bpf_link.id")
        self._record.fill(code, {"bpf_link": R7})
        code.load_field(R8, R7, "bpf_link.type")
        for kind, places in self._places.items():
            code.jump_if("!=", R8, kind, f"not {kind}")
            _fill_tail(code, places, self._record.start + self._record.tail)
            code.jump("filled")
            code.label(f"not {kind}")
        code.label("filled")
        code.write(self._record.start, self._record.size)
        return code.finish()

    def close(self) -> None:
        """Unload. Safe to call twice."""
        self._programs.close()
        self._details.close()


def _places(types: Types, shape: _Shape) -> _Places:
    """What this kernel has of a type. R7 points to the ``struct bpf_link`` inside, so all else is that much nearer."""
    inside = types.fields[shape.link].offset

    def place(path: Path) -> list[Field]:
        if not types.fields.keys() >= {*path}:
            return []
        first, *rest = (types.fields[name] for name in path)
        return [first._replace(offset=first.offset - inside), *rest]

    numbers = {name: place(path) for name, path in shape.numbers.items()}
    if "attach_type" in numbers and _ATTACH_TYPE in types.fields:
        numbers["attach_type"] = [types.fields[_ATTACH_TYPE]]
    return _Places({name: fields for name, fields in numbers.items() if fields}, place(shape.string) if shape.string else [])


def _fill_tail(code: IteratorCode, places: _Places, start: int) -> None:
    for slot, fields in enumerate(places.numbers.values()):
        code.probe_number(start + 8 * slot, R7, *fields)
    if places.string:
        string = start + 8 * _VALUES
        code.probe_number(string, R7, *places.string)
        code.set(R3, R1)
        code.set(R1, R10)
        code.add(R1, string)
        code.set(R2, _STRING)
        code.call(PROBE_READ_KERNEL_STR)


def _programs_code(types: Types) -> bytes:
    """Write {id, program id}, 32 bits each."""
    code = IteratorCode(types)
    code.load_id(R1, "bpf_link.id")
    code.store(R10, -8, R1, 4)
    code.load_field(R1, R7, "bpf_link.prog", "bpf_prog.aux", "bpf_prog_aux.id")
    code.store(R10, -4, R1, 4)
    code.write(-8, 8)
    return code.finish()


def _detail(kind: int, values: dict[str, int], name: str | None) -> LinkDetail:
    """The values under the names of LinkDetail. A few stand for something else, or for nothing when 0."""
    fields: dict[str, int | None] = {**values}
    if "map_id" in fields:
        fields["map_id"] = values["map_id"] or None
    if "priority" in fields:
        fields["priority"] = _signed(values["priority"])
    if kind == _TRACING:  # a trampoline's key says what it is for: bpf_trampoline_compute_key in include/linux/bpf_verifier.h
        key = fields.pop("key", None) or 0
        fields.update(target_object_id=key >> 32 or None, target_btf_id=key & 0x7FFFFFFF or None)
    elif kind == _ITER:  # at most one of the limits holds: enum bpf_iter_task_type is 1 for a thread, 2 for a process
        task, limit = fields.pop("task", None), fields.pop("task_type", None)
        cgroup = fields.pop("cgroup_id", None) if name == "cgroup" else None
        fields.update(cgroup_id=cgroup or None, tid=task if limit == 1 else None, pid=task if limit == 2 else None)
    return LinkDetail(target_name=name, **fields)


def _signed(value: int) -> int:
    """A 32-bit number of C's int."""
    return value - (1 << 32) if value >> 31 else value
