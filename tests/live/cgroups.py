"""Cgroups of our own on the running kernel, named as runtimes name those of containers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from otel_hostmetrics.kernel.cgroup_cpu import CgroupTimes
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS


def accounted(fs: HostFS) -> str:
    """The directory of the hierarchy in which CPU time is read. Raises Unavailable."""
    times = CgroupTimes(fs, Budget(0), 1)
    times.close()
    return times.directory


@contextlib.contextmanager
def made(mount: str, path: str) -> Iterator[str]:
    """The cgroup *path*, inside one of ours that goes with the last of them."""
    top = f"{mount}/test-{os.getpid()}"
    directory = f"{top}/{path}"
    os.makedirs(directory, exist_ok=True)
    try:
        yield directory
    finally:
        while len(directory) >= len(top):
            with contextlib.suppress(OSError):  # another one is beside it
                os.rmdir(directory)
            directory = os.path.dirname(directory)


def of_pod(identity: str, uid: str, qos: str = "besteffort") -> str:
    """The path of a container's cgroup as the kubelet, the systemd driver and containerd would name it."""
    pod = f"kubepods-{qos}-pod{uid.replace('-', '_')}.slice"
    return f"kubepods.slice/kubepods-{qos}.slice/{pod}/cri-containerd-{identity}.scope"
