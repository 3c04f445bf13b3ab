"""CPU time of cgroups: ``usage_usec`` of cpu.stat [v2: Linux 4.15, in every cgroup, also without the cpu controller], cpuacct.usage [v1].

A cgroup's number contains that of the cgroups below it, also of those that are gone, so the time of a process that lived
for a millisecond is in it. The time that is a cgroup's own is its number less those of its children.

What came and went is found without listing directories: reading a removed cgroup's file says ENODEV, and a directory is
looked at only if it used more than its children did, which a new child's time causes. Looking is comparing the number
of links, 2 + children; the time of last modification stays as it is, kernfs does not keep it (tried on Linux 6.18).
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import cgroup_path
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.proc_cgroup import UNIFIED

_SIZE: Final = 32  # bytes: "usage_usec " and 20 digits; 20 digits and a newline
_USEC: Final = b"usage_usec "
_STAT, _ACCOUNT = "cpu.stat", "cpuacct"
_V1: Final = ("cpuacct", "cpu,cpuacct", "cpuacct,cpu")  # names of the mount point
_DEPTH: Final = 32  # the kernel's own bound is cgroup.max.depth, by default none
_LOOK_AT_ALL: Final = 60.0  # s between two looks for new cgroups also where nothing tells of them: inside containers
_UNKNOWN: Final = 1 << 62  # ns: more than any cgroup used
_GONE: Final = (errno.ENODEV, errno.ENOENT)


class Cgroup:
    """One cgroup. *own* is its own CPU time (ns) between the last two readings, never negative after a reading."""

    __slots__ = ("children", "contained", "fd", "file", "gone", "links", "own", "parent", "path", "seen", "used")

    def __init__(self, path: str, parent: Cgroup | None) -> None:
        self.path = path  # as in /proc/PID/cgroup; empty for the root
        self.parent = parent
        self.children: dict[str, Cgroup] = {}
        self.contained: bool = parent is not None and (parent.contained or bool(cgroup_path.parse(path).container_id))
        self.gone = False  # removed since the reading before: *own* is that of then, what it used last is in its parent's
        self.own = 0
        self.used = 0  # with all below it
        self.seen = 0  # the number in the file, ns
        self.links = 0
        self.file = ""
        self.fd = -1


class CgroupTimes:
    """The cgroups of a host below the root, up to *most*; those beyond are a part of their parents. Not thread-safe.

    Descriptors are kept within *budget*: 1.0 us for a number, against 8 to open the file for it. Raises Unavailable: ABSENT
    without a cgroup file system.
    """

    def __init__(self, fs: HostFS, budget: Budget, most: int) -> None:
        self.directory, self._name, self._scale = _hierarchy(fs)
        self.controller = UNIFIED if self._name == _STAT else _ACCOUNT  # whose hierarchy it is
        self._budget = budget
        self._most = most
        self.cgroups: list[Cgroup] = []  # parents before their children
        self.full = False  # some are left out
        self._root = Cgroup("", None)
        self._next_look = time.monotonic() + _LOOK_AT_ALL
        self._look(self._root, born=False)

    def read(self) -> list[Cgroup]:
        """Take the times now. Returns the cgroups that are gone since the last reading; they are in *cgroups* no more."""
        self._root.own = _UNKNOWN
        lost = [each for each in self.cgroups if not self._take(each)]
        self._settle()
        lost += self._look(self._root, born=True)
        for each in [one for one in self.cgroups if one.own > 0 and not one.contained]:
            lost += self._look(each, born=True)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_AT_ALL
            for each in self.cgroups.copy():
                lost += self._look(each, born=False)
        if lost:
            self._forget(lost)
        for each in self.cgroups:
            if each.own < 0:  # noqa: PLR1730 - a child's file was read a moment later than its parent's; max() costs ten times this
                each.own = 0
        return lost

    def _take(self, each: Cgroup) -> bool:
        """False if it is gone. What cannot be read for another reason used nothing now, and the rest later."""
        try:
            seen = self._number(os.pread(each.fd, _SIZE, 0) if each.fd >= 0 else _content(each.file))
        except OSError as error:
            each.used = 0
            each.gone = error.errno in _GONE
            if each.gone and each.parent is not None:
                each.parent.links = 0  # one that came instead leaves the number as it was
            return not each.gone
        except ValueError:
            each.used = 0
            return True
        each.used, each.seen = max(seen - each.seen, 0), seen
        return True

    def _number(self, content: bytes) -> int:
        """ns. Raises ValueError."""
        return int(content.removeprefix(_USEC).partition(b"\n")[0]) * self._scale

    def _settle(self) -> None:
        for each in self.cgroups:
            if not each.gone:
                used = each.own = each.used
                if used and each.parent is not None:
                    each.parent.own -= used

    def _look(self, each: Cgroup, born: bool) -> list[Cgroup]:
        """Find children that came, and return those that went. *born*: none of the time of new ones was accounted for before."""
        if each.gone:
            return []
        directory = self.directory + each.path
        links = _links(directory)
        if links == each.links >= 2:  # 1 on file systems that do not count: always look
            return []
        each.links = links
        names = _directories(directory)
        lost = [child for name, child in each.children.items() if name not in names and not child.gone]
        for child in lost:  # between its reading and now, or in a tree that is not the kernel's
            each.own += child.used
        lost = [one for child in lost for one in _all_below(child)]
        for name in sorted(names - each.children.keys()) if each.path.count("/") < _DEPTH else ():
            child = Cgroup(f"{each.path}/{name}", each)
            if self._add(child):
                each.children[name] = child
                child.own = child.used = min(child.seen, max(each.own, 0)) if born else 0
                each.own -= child.used
                lost += self._look(child, born)
        return lost

    def _add(self, child: Cgroup) -> bool:
        """Not beyond the limit, nor if it cannot be read or is gone again."""
        if len(self.cgroups) >= self._most:
            self.full = True
            return False
        child.file = f"{self.directory}{child.path}/{self._name}"
        try:
            if self._budget.free > 0:
                child.fd = os.open(child.file, os.O_RDONLY | os.O_CLOEXEC)
                self._budget.free -= 1
            child.seen = self._number(os.pread(child.fd, _SIZE, 0) if child.fd >= 0 else _content(child.file))
        except (OSError, ValueError):
            self._release(child)
            return False
        self.cgroups.append(child)
        return True

    def _forget(self, lost: Iterable[Cgroup]) -> None:
        for each in lost:
            self._release(each)
            assert each.parent is not None  # the root is never lost
            each.parent.children.pop(each.path.rpartition("/")[2], None)
            each.parent.links = 0  # one of the same name may be there: to be looked at when it uses more than its children
        self.cgroups = [each for each in self.cgroups if not each.gone]

    def _release(self, each: Cgroup) -> None:
        if each.fd >= 0:
            os.close(each.fd)
            self._budget.free += 1
            each.fd = -1

    def close(self) -> None:
        """May be called again."""
        for each in self.cgroups:
            self._release(each)
        self.cgroups = []


def _all_below(cgroup: Cgroup) -> Iterator[Cgroup]:
    """With itself. Marks them as gone."""
    cgroup.gone = True
    yield cgroup
    for child in cgroup.children.values():
        yield from _all_below(child)


def _hierarchy(fs: HostFS) -> tuple[str, str, int]:
    """(directory, file, ns of one). Where both versions are mounted v1 has the processes: runtimes follow the controllers."""
    root = fs.sys("fs/cgroup")
    if not os.path.exists(f"{root}/cgroup.controllers"):
        for name in _V1:
            if os.path.exists(f"{root}/{name}/cpuacct.usage"):
                return f"{root}/{name}", f"{_ACCOUNT}.usage", 1
        root += "/unified"
    if not os.path.exists(f"{root}/cgroup.controllers"):
        raise Unavailable(Reason.ABSENT, fs.sys("fs/cgroup"), "neither cgroup v2 nor cpuacct of v1 is mounted there")
    return root, _STAT, 1000


def _content(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(fd, _SIZE, 0)
    finally:
        os.close(fd)


def _links(path: str) -> int:
    try:
        return os.stat(path).st_nlink
    except OSError:
        return 0


def _directories(path: str) -> set[str]:
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
    except OSError:
        return set()
