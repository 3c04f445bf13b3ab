"""Loads real BPF programs, maps and links, with bpf(2) alone: no clang, no libbpf. For tests, benchmarks and demonstrations.

    python tests/live/bpfload.py --progs 1000 --maps 1000 --links 1000 [--zoo] [--pin DIR] [--seconds S]

prints one JSON line with all ids, then holds everything for S seconds, or until standard input ends. What is not
pinned goes with the process. The programs are one constant return each; links in bulk are iterators, attached to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from otel_hostmetrics.kernel import bpf, btf
from otel_hostmetrics.kernel.bpf_asm import instruction
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, MAP_TYPES, PROGRAM_TYPES
from otel_hostmetrics.kernel.bpf_objects import Kind

_ALLOW_MULTI = 2  # BPF_F_ALLOW_MULTI
_EXIT = instruction(0x95)


def move(register: int, value: int) -> bytes:
    """``rN = value``."""
    return instruction(0xB7, register, immediate=value)


def _load_map(register: int, fd: int) -> bytes:
    return instruction(0x18, register, 1, immediate=fd) + instruction(0)  # BPF_LD_IMM64, BPF_PSEUDO_MAP_FD


def attach_type(name: str) -> int:
    return ATTACH_TYPES.index(name)


class Loader:
    """Creates objects and holds them until close(). Every method returns the new descriptor and raises OSError."""

    def __init__(self) -> None:
        self.ids: dict[Kind, list[int]] = {"program": [], "map": [], "link": [], "btf": []}
        self.fds: list[int] = []
        self.refused: dict[str, str] = {}  # species of the zoo that this kernel does not accept, and why
        self._stack = contextlib.ExitStack()
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and release everything, last first."""
        self._stack.close()
        self.fds.clear()

    def keep(self, fd: int, kind: Kind | None = None) -> int:
        """Own a descriptor from now on."""
        self._stack.callback(os.close, fd)
        if kind is not None:
            self.fds.append(fd)
            self.ids[kind].append(object_id(fd, kind))
        return fd

    def at_close(self, call: Callable[..., object], *arguments: object, **named: object) -> None:
        self._stack.callback(call, *arguments, **named)

    def map(self, kind: str = "array", key: int = 4, value: int = 8, entries: int = 1, flags: int = 0, name: str = "test_map") -> int:
        attr = struct.pack("=7I16s", MAP_TYPES.index(kind), key, value, entries, flags, 0, 0, name.encode()[:15])
        return self.keep(bpf.bpf(bpf.MAP_CREATE, attr), "map")

    def program(
        self,
        kind: str = "socket_filter",
        returns: int = 0,
        name: str = "test_program",
        *,
        body: bytes = b"",
        attach: str = "",
        maps: Sequence[int] = (),
        target: int = 0,
        btf_fd: int = 0,
    ) -> int:
        """A program that runs *body*, refers to *maps* and returns a constant.

        *attach* is its expected attach type, *target* the BTF type it is for, *btf_fd* BTF from :meth:`btf`.
        """
        code = b"".join(_load_map(1, fd) for fd in maps) + body + move(0, returns) + _EXIT
        instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
        function = ctypes.create_string_buffer(struct.pack("=II", 0, 3), 8)  # instruction 0 begins BTF type 3
        attr = struct.pack(
            "=IIQQIIQII16sIIIIQIIQIII", PROGRAM_TYPES.index(kind), len(code) // 8, bpf.address(instructions), bpf.address(licence),
            0, 0, 0, 0, 0, name.encode()[:15], 0, attach_type(attach) if attach else 0,
            btf_fd, 8 if btf_fd else 0, bpf.address(function) if btf_fd else 0, 1 if btf_fd else 0, 0, 0, 0, target, 0,
        )  # fmt: skip
        return self.keep(bpf.bpf(bpf.PROG_LOAD, attr), "program")

    def btf(self, function: str) -> int:
        """BTF with one function, type 3: INT int (1), FUNC_PROTO int(void) (2), FUNC (3)."""
        strings = b"\0int\0" + function.encode() + b"\0"
        types = (
            struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)
            + struct.pack("=III", 0, 13 << 24, 1)
            + struct.pack("=III", 5, 12 << 24 | 1, 2)
        )
        blob = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
        buffer = ctypes.create_string_buffer(blob, len(blob))
        return self.keep(bpf.bpf(bpf.BTF_LOAD, struct.pack("=QQIII", bpf.address(buffer), 0, len(blob), 0, 0)), "btf")

    def link(self, program: int, target: int, attach: str, tail: bytes = b"", flags: int = 0) -> int:
        attr = struct.pack("=IIII", program, target, attach_type(attach), flags) + tail
        return self.keep(bpf.bpf(bpf.LINK_CREATE, attr), "link")

    def raw_tracepoint(self, program: int, name: str = "") -> int:
        """A link to a tracepoint, or, without a name, to what a tracing or LSM program was loaded for."""
        buffer = ctypes.create_string_buffer(name.encode())
        return self.keep(bpf.bpf(bpf.RAW_TRACEPOINT_OPEN, struct.pack("=QI", bpf.address(buffer) if name else 0, program)), "link")

    def iterator(self, target: str = "task", name: str = "test_iterator") -> int:
        function = f"bpf_iter_{target}"
        return self.program("tracing", name=name, attach="trace_iter", target=btf.scan((), (function,)).functions[function])

    def attach_cgroup(self, program: int, directory: str, attach: str) -> None:
        """The attachment without a link, which outlives the process unless close() is called."""
        fd = self.keep(os.open(directory, os.O_RDONLY | os.O_CLOEXEC))
        bpf.bpf(bpf.PROG_ATTACH, struct.pack("=IIIII", fd, program, attach_type(attach), _ALLOW_MULTI, 0))
        self._stack.callback(bpf.bpf, bpf.PROG_DETACH, struct.pack("=IIIII", fd, program, attach_type(attach), 0, 0))

    def bind(self, program: int, fd: int) -> None:
        """Make a program hold one more map [5.10]."""
        bpf.bpf(bpf.PROG_BIND_MAP, struct.pack("=III", program, fd, 0))

    def run(self, program: int, times: int) -> None:
        """Run a networking program on a packet of zeros."""
        packet = ctypes.create_string_buffer(64)
        bpf.bpf(bpf.PROG_TEST_RUN, struct.pack("=IIIIQQII", program, 0, 64, 0, bpf.address(packet), 0, times, 0))

    def pin(self, fd: int, path: str) -> None:
        buffer = ctypes.create_string_buffer(os.fsencode(path))
        bpf.bpf(bpf.OBJ_PIN, struct.pack("=QI", bpf.address(buffer), fd))

    def bulk(self, programs: int, maps: int, links: int) -> None:
        """Many objects of several types, each program with a tag of its own and one map."""
        arrays: list[int] = []
        for index in range(maps):
            kind, key, value, entries, flags = _MAPS[index % len(_MAPS)]
            fd = self.map(kind, key, value, entries, flags, f"bulk_map_{index}")
            if kind == "array":
                arrays.append(fd)
        for index in range(programs):
            program, returns, attach = _PROGRAMS[index % len(_PROGRAMS)]
            used = arrays[index % len(arrays) :][:1] if arrays else []
            self.program(program, returns, f"bulk_prog_{index}", body=move(2, index), attach=attach, maps=used)
        if links:
            iterator = self.iterator()
            for _ in range(links):
                self.link(iterator, 0, "trace_iter")


_MAPS = (
    ("array", 4, 8, 1, 0),
    ("hash", 4, 8, 16, 0),
    ("percpu_array", 4, 8, 1, 0),
    ("lru_hash", 8, 16, 64, 0),
    ("hash", 16, 64, 128, 1),  # BPF_F_NO_PREALLOC
    ("queue", 0, 8, 8, 0),
)
_PROGRAMS = (
    ("socket_filter", 0, ""),
    ("sched_cls", 0, ""),
    ("xdp", 2, ""),
    ("cgroup_skb", 1, "cgroup_inet_ingress"),
    ("raw_tracepoint", 0, ""),
    ("tracepoint", 0, ""),
    ("cgroup_sock_addr", 1, "cgroup_inet4_connect"),
)
_ID_AT: dict[Kind, int] = {"program": 4, "map": 4, "link": 4, "btf": 12}


def object_id(fd: int, kind: Kind) -> int:
    info = ctypes.create_string_buffer(16)
    bpf.bpf(bpf.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 16, bpf.address(info)))
    number: int = struct.unpack_from("=I", info, _ID_AT[kind])[0]
    return number


def main() -> None:
    from tests.live.zoo import populate  # here: the zoo imports this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("progs", "maps", "links"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--zoo", action="store_true", help="one object of every type that this kernel accepts")
    parser.add_argument("--pin", help="pin everything in this directory of a BPF file system")
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    with Loader() as loader:
        loader.bulk(options.progs, options.maps, options.links)
        if options.zoo:
            populate(loader)
        if options.pin:
            for number, fd in enumerate(loader.fds):
                with contextlib.suppress(OSError):  # BTF cannot be pinned
                    loader.pin(fd, f"{options.pin}/{os.getpid()}_{number}")
        print(json.dumps({"pid": os.getpid(), "ids": loader.ids, "refused": loader.refused}), flush=True)  # noqa: T201
        if options.seconds is None:
            sys.stdin.read()
        else:
            time.sleep(options.seconds)


if __name__ == "__main__":
    main()
