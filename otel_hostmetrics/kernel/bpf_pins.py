"""Objects pinned in BPF file systems: a path that keeps a program, map or link alive without any process.

Opening a pin with BPF_OBJ_GET and asking for its id costs 10 us, so a directory is read again only when its
modification time changed: bpffs changes it whenever an entry is made, renamed or removed.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_objects import DESCRIPTORS, Kind
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import mounts

_ID_AT: Final = 4  # "id" is the second field of bpf_prog_info, bpf_map_info and bpf_link_info
_MAX_DEPTH = 32
_RDONLY = 1 << 3  # BPF_F_RDONLY [4.15]
_SETTLED_NS = 50_000_000  # a change within one clock tick (up to 10 ms) of the last one leaves the time as it was


class Pin(NamedTuple):
    """One pinned object."""

    path: str  # on the host
    kind: Kind
    id: int


class _Directory(NamedTuple):
    modified_ns: int  # -1 = read it again next time
    pins: tuple[Pin, ...]
    children: tuple[str, ...]


class Pins:
    """Finds pins again and again. *limit* bounds the number of entries looked at."""

    def __init__(self, fs: HostFS, limit: int = 10_000) -> None:
        bpf.require()
        self._fs = fs
        self._limit = limit
        self._known: dict[str, _Directory] = {}
        self._info = ctypes.create_string_buffer(16)

    def scan(self) -> tuple[list[Pin], list[Unavailable]]:
        """The pins of all BPF file systems, and what could not be read. Raises Unavailable when nothing can be."""
        pins: list[Pin] = []
        problems: list[Unavailable] = []
        seen: dict[str, _Directory] = {}
        for mount in mounts(self._fs, "bpf"):
            todo = [(mount.path, mount.point, 0)]
            while todo and len(pins) + len(seen) < self._limit:
                path, shown, depth = todo.pop()
                try:
                    directory = seen[path] = self._read(path, shown, problems)
                except OSError as error:
                    problems.append(unavailable(error, path, needs=path))
                    continue
                pins += directory.pins
                if depth < _MAX_DEPTH:
                    todo += [(f"{path}/{name}", f"{shown}/{name}", depth + 1) for name in directory.children]
                elif directory.children:
                    problems.append(Unavailable(Reason.UNREADABLE, path, f"more than {_MAX_DEPTH} levels of directories"))
            if len(pins) + len(seen) >= self._limit:
                problems.append(Unavailable(Reason.UNREADABLE, mount.path, f"{self._limit} pins and directories or more"))
        self._known = seen
        return pins, problems

    def _read(self, path: str, shown: str, problems: list[Unavailable]) -> _Directory:
        modified = os.stat(path).st_mtime_ns
        known = self._known.get(path)
        if known is not None and known.modified_ns == modified:
            return known
        pins: list[Pin] = []
        children: list[str] = []
        failed = len(problems)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    children.append(entry.name)
                elif entry.is_file(follow_symlinks=False) and len(pins) < self._limit:
                    self._pin(entry.path, f"{shown}/{entry.name}", pins, problems)
        settled = time.time_ns() - modified > _SETTLED_NS and failed == len(problems)
        return _Directory(modified if settled else -1, tuple(pins), tuple(children))

    def _pin(self, path: str, shown: str, pins: list[Pin], problems: list[Unavailable]) -> None:
        name = ctypes.create_string_buffer(os.fsencode(path))
        try:
            fd = _open(bpf.address(name))
        except FileNotFoundError:  # unpinned since it was listed
            return
        except OSError as error:
            problems.append(unavailable(error, path, needs=path))
            return
        try:
            kind = DESCRIPTORS.get(os.readlink(f"/proc/self/fd/{fd}"))
            if kind is not None:
                pins.append(Pin(shown, kind, self._id(fd)))
        except OSError as error:
            problems.append(unavailable(error, path))
        finally:
            os.close(fd)

    def _id(self, fd: int) -> int:
        """Of any kind of object: 16 bytes of its info are enough, and every kernel has them."""
        ctypes.memset(self._info, 0, 16)
        bpf.bpf(bpf.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 16, bpf.address(self._info)))
        number: int = struct.unpack_from("=I", self._info, _ID_AT)[0]
        return number


def _open(path: int) -> int:
    """A descriptor of the object pinned under the C string at *path*.

    Opening for writing, as links must be, needs write permission on the pin. Programs and maps of others are opened read-only.
    """
    try:
        return bpf.bpf(bpf.OBJ_GET, struct.pack("=QII", path, 0, 0))
    except PermissionError as denied:
        try:
            return bpf.bpf(bpf.OBJ_GET, struct.pack("=QII", path, 0, _RDONLY))
        except OSError:
            raise denied from None
