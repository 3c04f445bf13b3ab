"""/proc/PID/cgroup: which cgroups a process is in (cgroups(7), "/proc files").

One line for each hierarchy, ``NUMBER:CONTROLLERS:PATH``; the one of cgroup v2 is ``0::PATH``. Paths are relative to the
cgroup namespace of who reads.
"""

from __future__ import annotations

import os
import re
from typing import Final

from otel_hostmetrics.errors import unavailable
from otel_hostmetrics.kernel.cgroup_path import NOTHING, CgroupPath, parse
from otel_hostmetrics.kernel.hostfs import content

UNIFIED: Final = ""  # the hierarchy of cgroup v2, among those of v1 that are named after a controller
_OUTSIDE: Final = re.compile(r"^(?:/\.\.)+(?=/)")  # above the cgroup namespace of who reads
_USUAL = 1024  # bytes
_MOST = 32_768  # bytes: more than 14 hierarchies with paths of 2 KB; what is beyond is not looked at


def read(proc: str, pid: int) -> bytes:
    """The file of one process below the procfs *proc*, as it is: 8 us, as much as asking whether the pid is still the same one.

    Raises Unavailable: ABSENT or GONE when the process has exited.
    """
    return content(f"{proc}/{pid}/cgroup", _MOST)


class Kept:
    """The files of at most *most* processes, kept open: 2 us each instead of 8, and of 11 where a host has thousands.

    A descriptor is of the process, not of its number: when the process has exited, the kernel says ESRCH, whoever has the
    pid by then (proc_single_show() in fs/proc/base.c). It follows the process from cgroup to cgroup.
    """

    def __init__(self, proc: str, most: int) -> None:
        self._proc = proc
        self._most = most
        self._kept: dict[int, int] = {}  # pid -> descriptor
        self._used: set[int] = set()

    def read(self, pid: int) -> bytes:
        """As the function of that name."""
        fd = self._kept.get(pid)
        if fd is None:
            return self._opened(pid)
        self._used.add(pid)
        try:
            content = os.pread(fd, _USUAL, 0)
            return content if len(content) < _USUAL else os.pread(fd, _MOST, 0)
        except OSError:  # it has exited; the pid may be another's
            os.close(self._kept.pop(pid))
            return self._opened(pid)

    def _opened(self, pid: int) -> bytes:
        if len(self._kept) >= self._most:
            return read(self._proc, pid)
        path = f"{self._proc}/{pid}/cgroup"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(error, path, needs=path) from None
        try:
            content = os.read(fd, _MOST)
        except OSError as error:
            os.close(fd)
            raise unavailable(error, path, needs=path) from None
        self._kept[pid] = fd
        self._used.add(pid)
        return content

    def sweep(self) -> None:
        """Close what nobody has read since the last sweep."""
        for pid in self._kept.keys() - self._used:
            os.close(self._kept.pop(pid))
        self._used.clear()

    def close(self) -> None:
        """May be called again."""
        self._used.clear()
        self.sweep()


def paths(content: bytes) -> list[str]:
    """The distinct paths, that of cgroup v2 first: on a hybrid host it is the one that BPF sees."""
    unified: list[str] = []
    others: dict[str, None] = {}
    for line in content.decode("utf-8", "backslashreplace").split("\n"):
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if number == "0" and not controllers:
            unified.append(path)
        else:
            others[path] = None
    return [*unified, *(path for path in others if path not in unified)]


def path_in(content: bytes, controller: str) -> str:
    """The path in the hierarchy of one controller of v1, or in the UNIFIED one; empty if there is none.

    Of a path that is seen from another cgroup namespace it is what lies below the last ``..``: the whole path, if that
    namespace's root is as deep as there are dots.
    """
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon and (controller in controllers.split(",") if controller else number == "0" and not controllers):
            return _OUTSIDE.sub("", path, count=1)
    return ""


def container(content: bytes) -> CgroupPath:
    """The innermost container that a path tells of, and its pod; else the first pod.

    On a hybrid host the hierarchies may tell of different ones: docker in a container makes its cgroups in those of v1 only.
    """
    found = [(path, parse(path)) for path in paths(content)]
    best = next((each for _, each in found if each.container_id), None)
    if best is None:
        return next((each for _, each in found if each.pod_uid), NOTHING)
    for path, each in found:
        if each.container_id and each.container_id != best.container_id and best.container_id in path:
            best = each
    return best
