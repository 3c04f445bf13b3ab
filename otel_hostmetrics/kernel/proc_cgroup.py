"""/proc/PID/cgroup: which cgroups a process is in (cgroups(7), "/proc files").

One line for each hierarchy, ``NUMBER:CONTROLLERS:PATH``; the one of cgroup v2 is ``0::PATH``. Paths are relative to the
cgroup namespace of who reads.
"""

from __future__ import annotations

import os

from otel_hostmetrics.errors import unavailable
from otel_hostmetrics.kernel.cgroup_path import NOTHING, CgroupPath, parse

_MOST = 32_768  # bytes: more than 14 hierarchies with paths of 2 KB; what is beyond is not looked at


def read(proc: str, pid: int) -> bytes:
    """The file of one process below the procfs *proc*, as it is: 8 us, as much as asking whether the pid is still the same one.

    Raises Unavailable: ABSENT or GONE when the process has exited.
    """
    path = f"{proc}/{pid}/cgroup"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
    try:
        return os.read(fd, _MOST)
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
    finally:
        os.close(fd)


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


def container(content: bytes) -> CgroupPath:
    """The container and pod that the first path with a container tells of; else of the first with a pod."""
    found = [parse(path) for path in paths(content)]
    return next((each for each in found if each.container_id), next((each for each in found if each.pod_uid), NOTHING))
