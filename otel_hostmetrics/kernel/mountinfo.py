"""/proc/self/mountinfo: where file systems of a type are mounted (Documentation/filesystems/proc.rst, section 3.5)."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from otel_hostmetrics.kernel.hostfs import HostFS

_OCTAL = re.compile(r"\\([0-7]{3})")  # how space, tab, newline and backslash are written


class Mount(NamedTuple):
    """One mounted file system."""

    device: str  # major:minor, the same for all mounts of one file system
    root: str  # directory of the file system that is mounted: not "/" for a bind mount of a part
    point: str  # where it is on the host
    path: str  # where we can open it


def mounts(fs: HostFS, kind: str) -> list[Mount]:
    """The mounts of file system type *kind*, one for each file system: the one that shows most of it.

    In a container the file tells the container's own view, where the host's mounts lie below the host root; in a
    recording it tells the host's view. Raises Unavailable.
    """
    found: dict[str, Mount] = {}
    for line in fs.text(fs.proc("self/mountinfo")).splitlines():
        mount = _parse(line, kind, fs.root)
        if mount is not None and os.path.isdir(mount.path):
            known = found.get(mount.device)
            if known is None or _breadth(mount) < _breadth(known):
                found[mount.device] = mount
    return list(found.values())


def _breadth(mount: Mount) -> tuple[int, int]:
    return len(mount.root), len(mount.point)


def _parse(line: str, kind: str, host: str) -> Mount | None:
    """``36 35 98:0 /root /mnt/point options... - type source super``; None for other types and for what is no such line."""
    left, dash, right = line.partition(" - ")
    fields = left.split(" ")
    if not dash or len(fields) < 6 or right.split(" ", 1)[0] != kind:
        return None
    root, point = (_OCTAL.sub(lambda octal: chr(int(octal[1], 8)), field) for field in fields[3:5])
    prefix = host.rstrip("/")
    if prefix and (point == prefix or point.startswith(prefix + "/")):
        return Mount(fields[2], root, point[len(prefix) :] or "/", point)
    return Mount(fields[2], root, point, f"{prefix}{point}")
