"""BPF objects by id: BPF_*_GET_NEXT_ID lists them, BPF_*_GET_FD_BY_ID opens one, BPF_OBJ_GET_INFO_BY_FD describes it.

Works on every kernel from 5.4 (links from 5.8) and needs CAP_SYS_ADMIN, even to list: CAP_BPF is not enough. Ids grow
and are not used again before 2^31 of them, so within one boot an id is a safe key for what has been read once.
A descriptor keeps its object alive; none is kept here, on any path.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_btf import FullNames
from otel_hostmetrics.kernel.bpf_links import NAME_FIELDS, parse_link_info
from otel_hostmetrics.kernel.bpf_objects import (
    Kind,
    Link,
    Map,
    Program,
    RunStats,
    parse_map_info,
    parse_program_info,
    parse_run_stats,
    text,
)

_NEEDS: Final = "CAP_SYS_ADMIN"
_WALK: Final[dict[Kind, int]] = {"program": bpf.PROG_GET_NEXT_ID, "map": bpf.MAP_GET_NEXT_ID, "link": bpf.LINK_GET_NEXT_ID}
_OPEN: Final[dict[Kind, int]] = {"program": bpf.PROG_GET_FD_BY_ID, "map": bpf.MAP_GET_FD_BY_ID, "link": bpf.LINK_GET_FD_BY_ID}

_INFO_SIZE = 256  # more than any kernel's structure; a tail the kernel does not know is fine as long as it is zero
_EMPTY = bytes(_INFO_SIZE)
_MAPS, _FUNCTIONS = 52, 144  # offsets of nr_map_ids and nr_func_info in struct bpf_prog_info
_U32: Final = struct.Struct("=I").unpack_from
_MAP_IDS = 64  # program types with more maps are rare: the call is then made again with a larger buffer
_NOT_THERE = (errno.ENOENT, errno.EAGAIN)  # unloaded since it was listed, which is normal; a link that is being attached
_NAME_CUT = 15  # BPF_OBJ_NAME_LEN - 1
_NAME_SIZE = 4096  # PATH_MAX: a uprobe's file


class ObjectsById:
    """Reads objects through calls and buffers that are prepared once. Not thread-safe: one per thread.

    Methods raise Unavailable: DENIED without CAP_SYS_ADMIN, UNSUPPORTED where the kernel lacks the command.
    *limit* bounds a walk; what is beyond is not seen.
    """

    def __init__(self, limit: int = 1 << 20) -> None:
        bpf.require()
        self._limit = limit
        self._walk = {kind: bpf.Call(command, 12) for kind, command in _WALK.items()}
        self._open = {kind: bpf.Call(command, 12) for kind, command in _OPEN.items()}
        self._describe = bpf.Call(bpf.OBJ_GET_INFO_BY_FD, 16)
        self._describe_link = bpf.Call(bpf.OBJ_GET_INFO_BY_FD, 16, blocking=True)  # of devices and cgroups: rtnl_lock, cgroup_mutex
        self._info = ctypes.create_string_buffer(_INFO_SIZE)
        self._view = memoryview(self._info).cast("B")
        for call in (self._describe, self._describe_link):
            call.point(2, bpf.address(self._info))
        self._name = ctypes.create_string_buffer(_NAME_SIZE)
        self._function = ctypes.create_string_buffer(8)  # struct bpf_func_info of the main function: insn_off, type_id
        self._prepare_map_ids(_MAP_IDS)
        self._name_requests = {kind: self._prepare_name(*fields) for kind, fields in NAME_FIELDS.items()}
        self._names = FullNames()

    def ids(self, kind: Kind) -> list[int]:
        """The ids of all programs, maps or links, ascending. One system call, about a microsecond, each."""
        call = self._walk[kind]
        found: list[int] = []
        append, issue, words, left = found.append, call.issue, call.words, self._limit
        words[0] = 0  # 0 start_id, 1 next_id
        while left and issue() == 0:
            number = words[0] = words[1]
            append(number)
            left -= 1
        if left:
            error = bpf.failure(call.command)
            if error.errno != errno.ENOENT:  # ENOENT is the end of the list
                raise unavailable(error, f"list of BPF {kind}s", _NEEDS)
        return found

    def program(self, number: int, memory: bool = True) -> Program | None:
        """One program, or None when it is gone. *memory* reads fdinfo too: 7 of 12 us."""
        fd = self._fd("program", number)
        if fd is None:
            return None
        try:
            length, map_ids = self._program_info(fd)
            record = parse_program_info(self._view, length, map_ids, memory_bytes=_memlock(fd)[0] if memory else None)
            function = _U32(self._function, 4)[0] if _U32(self._info, _FUNCTIONS)[0] else 0
        finally:
            os.close(fd)
        if len(record.name.encode()) >= _NAME_CUT and record.btf_id:
            return record._replace(full_name=self._names.of(record.btf_id, function, record.name))
        return record

    def run_stats(self, number: int) -> RunStats | None:
        """A program's totals now, or None when it is gone."""
        fd = self._fd("program", number)
        if fd is None:
            return None
        try:
            return parse_run_stats(self._view, self._fill(fd, _EMPTY))
        finally:
            os.close(fd)

    def map(self, number: int, memory: bool = True) -> Map | None:
        """One map, or None when it is gone. *memory* reads fdinfo too, for memory_bytes and frozen."""
        fd = self._fd("map", number)
        if fd is None:
            return None
        try:
            memory_bytes, frozen = _memlock(fd) if memory else (None, None)
            return parse_map_info(self._view, self._fill(fd, _EMPTY), memory_bytes, frozen)
        finally:
            os.close(fd)

    def link(self, number: int) -> Link | None:
        """One link, or None when it is gone, or not yet attached."""
        fd = self._fd("link", number)
        if fd is None:
            return None
        try:
            length = self._fill(fd, _EMPTY, self._describe_link)
            request = self._name_requests.get(_U32(self._info)[0])
            if request is None:
                return parse_link_info(self._view, length)
            self._name[0] = b"\0"
            length = self._fill_name(fd, request)
            return parse_link_info(self._view, length, text(self._name.value) or None)
        finally:
            os.close(fd)

    def _fd(self, kind: Kind, number: int) -> int | None:
        call = self._open[kind]
        call.words[0] = number
        fd = call.issue()
        if fd >= 0:
            return fd
        error = bpf.failure(call.command)
        if error.errno in _NOT_THERE:
            return None
        raise unavailable(error, f"BPF {kind} {number}", _NEEDS)

    def _fill(self, fd: int, template: bytes, call: bpf.Call | None = None) -> int:
        """Describe *fd* into the buffer: the length written. What the last call left there would be taken as a request."""
        call = call or self._describe
        self._view[:] = template
        words = call.words
        words[0], words[1] = fd, _INFO_SIZE
        if call.issue() < 0:
            raise unavailable(bpf.failure(call.command), "BPF_OBJ_GET_INFO_BY_FD", _NEEDS)
        return words[1]

    def _prepare_map_ids(self, room: int) -> None:
        """A request that carries room for map ids and for the first function's type, so that one call brings all."""
        self._room = room
        self._map_ids = (ctypes.c_uint32 * room)()
        request = bytearray(_INFO_SIZE)
        struct.pack_into("=I", request, _MAPS, room)
        struct.pack_into("=Q", request, 56, ctypes.addressof(self._map_ids))
        struct.pack_into("=IQI", request, 132, 8, bpf.address(self._function), 1)
        self._request = bytes(request)

    def _program_info(self, fd: int) -> tuple[int, tuple[int, ...]]:
        length = self._fill(fd, self._request)
        used: int = _U32(self._info, _MAPS)[0]
        while used > self._room:  # BPF_PROG_BIND_MAP may add more meanwhile
            self._prepare_map_ids(used + _MAP_IDS)
            length = self._fill(fd, self._request)
            used = _U32(self._info, _MAPS)[0]
        return length, tuple(self._map_ids[:used])

    def _prepare_name(self, pointer: int, size: int) -> bytes:
        request = bytearray(_INFO_SIZE)
        struct.pack_into("=Q", request, pointer, bpf.address(self._name))
        struct.pack_into("=I", request, size, _NAME_SIZE)
        return bytes(request)

    def _fill_name(self, fd: int, request: bytes) -> int:
        """Describe a link again, now that its type says where the pointer to room for the name goes."""
        try:
            return self._fill(fd, request, self._describe_link)
        except Unavailable as error:
            if error.reason is not Reason.UNSUPPORTED:  # perf events that are no probe have no name
                raise
            return self._fill(fd, _EMPTY, self._describe_link)


def _memlock(fd: int) -> tuple[int | None, bool | None]:
    """(bytes, frozen) from fdinfo of a program or map: in no structure of bpf(2)."""
    path = f"/proc/self/fdinfo/{fd}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(file, 4096)
        finally:
            os.close(file)
    except OSError as error:
        raise unavailable(error, path, needs="/proc") from None
    fields = dict(line.split(b":\t", 1) for line in content.splitlines() if b":\t" in line)
    memlock, frozen = fields.get(b"memlock", b""), fields.get(b"frozen")
    return int(memlock) if memlock.isdigit() else None, frozen == b"1" if frozen is not None else None
