"""Programs attached to cgroups: BPF_PROG_QUERY for each cgroup2 directory and attach type (4.15).

It is the way to find the owner of a program that no process holds: container runtimes and systemd attach device
filters and accounting to the cgroup and exit. A query costs 1.5 us, a cgroup with all 30 types 60 us; so only types
that loaded programs can have are asked for, which mostly leaves one or two.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, PROGRAM_TYPES
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import mounts

_NEEDS: Final = "CAP_SYS_ADMIN|CAP_NET_ADMIN"
_MAX_DEPTH = 64
_ROOM = 1024  # programs on one cgroup with one attach type; the kernel allows 64, lsm_cgroup answers for all its hooks

# include/linux/bpf-cgroup-defs.h: what a program type can be attached to
_PREFIXES: Final = {
    "cgroup_skb": ("cgroup_inet_ingress", "cgroup_inet_egress"),
    "cgroup_sock": ("cgroup_inet_sock", "cgroup_inet4_post_bind", "cgroup_inet6_post_bind"),
    "sock_ops": ("cgroup_sock_ops",),
    "cgroup_device": ("cgroup_device",),
    "cgroup_sock_addr": (
        *(f"cgroup_inet{version}_{call}" for version in "46" for call in ("bind", "connect", "getpeername", "getsockname")),
        "cgroup_udp",
        "cgroup_unix",
    ),
    "cgroup_sysctl": ("cgroup_sysctl",),
    "cgroup_sockopt": ("cgroup_getsockopt", "cgroup_setsockopt"),
    "lsm": ("lsm_cgroup",),
}
_ATTACH_TYPES: Final = {
    PROGRAM_TYPES.index(program): tuple(number for number, name in enumerate(ATTACH_TYPES) if name.startswith(prefixes))
    for program, prefixes in _PREFIXES.items()
}


class CgroupAttachment(NamedTuple):
    """One program on one cgroup. Inherited programs are listed where they are attached, not below."""

    cgroup: str  # path below the cgroup2 mount, as in /proc/PID/cgroup: "/" is the root
    cgroup_id: int  # inode of the directory
    attach_type: int  # enum bpf_attach_type
    program_id: int


class CgroupPrograms:
    """Asks all cgroups again and again. *limit* bounds the number of cgroups. Not thread-safe."""

    def __init__(self, fs: HostFS, limit: int = 20_000) -> None:
        bpf.require()
        self._fs = fs
        self._limit = limit
        self._unknown: set[int] = set()  # attach types this kernel does not have
        self._programs = (ctypes.c_uint32 * _ROOM)()
        # 0 target_fd, 4 attach_type, 8 query_flags, 12 attach_flags, 16 u64 prog_ids, 24 prog_cnt; may wait for cgroup_mutex
        self._query = bpf.Call(bpf.PROG_QUERY, 32, blocking=True)
        self._query.point(4, ctypes.addressof(self._programs))

    def scan(self, program_types: Collection[int] | None = None) -> tuple[list[CgroupAttachment], list[Unavailable]]:
        """Attached programs, and what could not be read. *program_types* are those of the loaded programs; None = all.

        Raises Unavailable: ABSENT without cgroup2, DENIED without CAP_SYS_ADMIN or CAP_NET_ADMIN.
        """
        wanted = [
            number
            for program, numbers in _ATTACH_TYPES.items()
            if program_types is None or program in program_types
            for number in numbers
            if number not in self._unknown
        ]
        if not wanted:
            return [], []
        found: list[CgroupAttachment] = []
        problems: list[Unavailable] = []
        for path, cgroup in self._walk(problems):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                problems.append(unavailable(error, path, needs=path))
                continue
            try:
                found += self._attachments(fd, cgroup, wanted)
            finally:
                os.close(fd)
        return found, problems

    def _walk(self, problems: list[Unavailable]) -> Iterator[tuple[str, str]]:
        """(directory, path below the mount) of each cgroup, breadth first."""
        places = mounts(self._fs, "cgroup2")
        if not places:
            raise Unavailable(Reason.ABSENT, "cgroup2", "not mounted")
        top = places[0]
        todo = [(top.path, top.root.rstrip("/"))]
        for count, (path, cgroup) in enumerate(todo):
            if count >= self._limit or cgroup.count("/") > _MAX_DEPTH:
                problems.append(Unavailable(Reason.UNREADABLE, top.path, f"more than {self._limit} cgroups or {_MAX_DEPTH} levels"))
                return
            yield path, cgroup or "/"
            try:
                with os.scandir(path) as entries:
                    todo += [(entry.path, f"{cgroup}/{entry.name}") for entry in entries if entry.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(unavailable(error, path, needs=path))

    def _attachments(self, fd: int, cgroup: str, wanted: list[int]) -> list[CgroupAttachment]:
        found: list[CgroupAttachment] = []
        words, issue = self._query.words, self._query.issue
        for attach_type in wanted:
            if attach_type in self._unknown:
                continue
            words[0], words[1], words[2], words[3], words[6] = fd, attach_type, 0, 0, _ROOM
            if issue() < 0:
                self._refused(attach_type)
            elif words[6]:
                inode = os.fstat(fd).st_ino
                found += [CgroupAttachment(cgroup, inode, attach_type, program) for program in self._programs[: words[6]]]
        return found

    def _refused(self, attach_type: int) -> None:
        """EINVAL: this kernel does not know the type, so it is not asked again. ENOENT, ENODEV: the cgroup is going away."""
        error = bpf.failure(self._query.command)
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
            self._unknown.add(attach_type)
        elif error.errno not in (errno.ENOENT, errno.ENODEV):
            raise unavailable(error, "BPF_PROG_QUERY", _NEEDS)
