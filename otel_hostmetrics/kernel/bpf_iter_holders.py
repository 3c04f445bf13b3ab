"""Which process holds which object, through iter/task_file [5.8]: 0.3 us per open file of the host against 4 in /proc.

What a file is, its file_operations tell: the function that releases a BPF program is no other file's. The addresses of
the four functions are not looked up in kallsyms, which often hides them, but seen on open files of our own.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import Counter
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_asm import GET_CURRENT_PID_TGID, R0, R1, R2, R7, R8, R9, R10
from otel_hostmetrics.kernel.bpf_holders import Holder
from otel_hostmetrics.kernel.bpf_iter import NEEDS, BpfIterator, OwnIds, ReadBuffer
from otel_hostmetrics.kernel.bpf_iter_code import IteratorCode, Path
from otel_hostmetrics.kernel.bpf_iter_percpu import ARRAY, create_map
from otel_hostmetrics.kernel.bpf_objects import Kind, text
from otel_hostmetrics.kernel.btf import Types

# Kinds of objects and the way from a file's private_data to the id
_KINDS: Final[dict[Kind, Path]] = {
    "program": ("bpf_prog.aux", "bpf_prog_aux.id"),
    "map": ("bpf_map.id",),
    "link": ("bpf_link.id",),
    "btf": ("btf.id",),
}
_NAMES: Final = tuple(_KINDS)
_RELEASE: Final = ("file.f_op", "file_operations.release")
_THREAD: Final = ("task_struct.thread_pid", "pid.level")
_LEADER: Final = ("task_struct.group_leader", "task_struct.thread_pid")
_TASK: Final = ("task_struct.tgid", "task_struct.start_boottime", "task_struct.comm", "pid.numbers", "upid.nr")  # start_boottime: 5.5
FIELDS: Final = (*_RELEASE, "file.private_data", *_THREAD, *_LEADER, *_TASK, *(name for path in _KINDS.values() for name in path))

_FD, _FILE = 16, 24  # in the context, struct bpf_iter__task_file
_RECORD: Final = struct.Struct("=4Q16s")  # kind, id, pid, start, comm
_KIND, _ID, _PID, _START, _COMM = range(-_RECORD.size, -8, 8)
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# The smallest BTF: header {magic, version, flags, length, types at, bytes, strings at, bytes}, a pointer to void, the empty string
_BTF: Final = struct.pack("=HBBIIIIIIIIx", 0xEB9F, 1, 0, 24, 0, 12, 12, 1, 0, 2 << 24, 0)


class HolderIterator:
    """Finds holders again and again. Not thread-safe. Constructor and method raise Unavailable."""

    def __init__(self, types: Types, buffer: ReadBuffer) -> None:
        releases, level = _learn(types, buffer)
        self._walk = BpfIterator("task_file", _code(types, releases, level), types, buffer, "otel_holders")

    @property
    def own(self) -> OwnIds:
        return self._walk.own

    def read(self) -> list[Holder]:
        """Every process of our pid namespace, and those below it, that has a program, map, link or BTF object open."""
        files = Counter(_RECORD.iter_unpack(self._walk.read()))
        return [
            Holder(_NAMES[kind], number, pid, start // _TICK_NS * _TICK_NS, text(comm), fds)
            for (kind, number, pid, start, comm), fds in files.items()
            if pid  # 0: exiting at this moment
        ]

    def close(self) -> None:
        """Unload. Safe to call twice."""
        self._walk.close()


def _learn(types: Types, buffer: ReadBuffer) -> tuple[dict[Kind, int], int]:
    """(address of the release function by kind, depth of our pid namespace), from open files of our own."""
    descriptors = [create_map(ARRAY, 8, b"otel_learn")]
    try:
        descriptors.append(_load_btf())
        with BpfIterator("task_file", _learner(types), types, buffer, "otel_learn") as walk:
            program, link = walk.descriptors
            seen = {fd: (release, level) for fd, release, level in struct.iter_unpack("=3Q", walk.read())}
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    fds: dict[Kind, int] = {"program": program, "map": descriptors[0], "link": link, "btf": descriptors[1]}
    if not seen.keys() >= set(fds.values()):
        raise Unavailable(Reason.UNREADABLE, "BPF iterator task_file", "did not show our own files")
    return {kind: seen[fd][0] for kind, fd in fds.items()}, seen[link][1]


def _load_btf() -> int:
    blob = ctypes.create_string_buffer(_BTF, len(_BTF))
    try:
        return bpf.bpf(bpf.BTF_LOAD, struct.pack("=QQII", bpf.address(blob), 0, len(_BTF), 0))
    except OSError as error:
        raise unavailable(error, "BPF_BTF_LOAD", NEEDS) from error


def _learner(types: Types) -> bytes:
    """Write {fd, address of release, level of the pid namespace} for each file of the process that reads."""
    code = IteratorCode(types)
    code.load(R8, R1, _FILE, 8)
    code.load(R9, R1, _FD, 4)
    code.jump_if("==", R8, 0, "end")
    code.call(GET_CURRENT_PID_TGID)
    code.shift_right(R0, 32)
    code.load_field(R1, R7, "task_struct.tgid")
    code.jump_if("!=", R0, R1, "end")
    code.store(R10, -24, R9, 8)
    code.load_field(R1, R8, *_RELEASE)
    code.store(R10, -16, R1, 8)
    code.load_field(R1, R7, *_THREAD)
    code.store(R10, -8, R1, 8)
    code.write(-24, 24)
    return code.finish()


def _code(types: Types, releases: dict[Kind, int], level: int) -> bytes:
    """Write a record for each file whose release function is one of *releases*."""
    code = IteratorCode(types)
    code.load(R8, R1, _FILE, 8)
    code.jump_if("==", R8, 0, "end")
    code.load_field(R9, R8, "file.private_data")
    code.load_field(R2, R8, *_RELEASE)
    for kind, release in releases.items():
        code.set_wide(R1, release)
        code.jump_if("==", R2, R1, kind)
    code.jump("end")
    for number, kind in enumerate(_NAMES):
        code.label(kind)
        code.store(R10, _KIND, number, 8)
        code.probe_number(_ID, R9, *(types.require(name) for name in _KINDS[kind]))
        code.jump("process")
    code.label("process")
    # A task has a number in every pid namespace from the first down to its own: the one at our depth is what /proc shows us
    number_field = types.require("upid.nr")
    place = types.require("pid.numbers").offset + level * types.sizes["upid"] + number_field.offset
    code.probe_number(_PID, R7, *(types.require(name) for name in _LEADER), number_field._replace(offset=place))
    code.load_field(R8, R7, "task_struct.group_leader")
    code.load_field(R1, R8, "task_struct.start_boottime")
    code.store(R10, _START, R1, 8)
    code.probe(_COMM, R8, types.require("task_struct.comm").offset, 16)
    code.write(_KIND, _RECORD.size)
    return code.finish()
