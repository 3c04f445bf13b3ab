"""What a cgroup's path tells of the container and pod whose processes are in it.

Runtimes and cgroup drivers name cgroups in their own ways: ``cri-containerd-ID.scope`` (systemd driver), ``ID`` (cgroupfs
driver), ``SLICE:cri-containerd:ID`` (containerd told to use the wrong driver), ``libpod-ID.scope/container`` (crun). Read from
another cgroup namespace the front may be cut off: ``/../../../besteffort/podUID/ID``.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple


class CgroupPath(NamedTuple):
    """Empty where the path does not tell."""

    container_id: str = ""
    runtime: str = ""  # containerd, cri-o, docker, podman, ecs, garden, lxc, systemd-nspawn; unknown with the cgroupfs driver
    pod_uid: str = ""  # of a static pod: 32 hex digits, its configuration's hash
    qos: str = ""  # Guaranteed, Burstable, BestEffort


NOTHING: Final = CgroupPath()

_RUNTIMES: Final = {
    "cri-containerd": "containerd", "containerd": "containerd", "nerdctl": "containerd", "default": "containerd", "k8s.io": "containerd",
    "docker": "docker", "moby": "docker", "crio": "cri-o", "libpod": "podman", "libpod_parent": "podman", "libpod-payload": "podman",
}  # fmt: skip
_QOS: Final = {"besteffort": "BestEffort", "burstable": "Burstable", "kubepods": "Guaranteed"}
_DELETED = " (deleted)"  # what the kernel puts behind a cgroup that was removed while the process still exits

# [PREFIX-]ID[.scope], PREFIX:ID; ID.service is a health check of podman and nerdctl, ID.mount a file system
_CONTAINER = re.compile(r"(?:(?:.*:)?(?P<prefix>[^:]*)[-:])?(?P<id>[0-9a-f]{64})(?:\.scope)?")
_TASK = re.compile(r"[0-9a-f]{32}-\d+")  # of ECS on Fargate
_POD = re.compile(r"(?<![a-z])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=[/:.]|$)")
_MACHINE = re.compile(r"systemd-nspawn@(.+)\.service|machine-((?!qemu|lxc).+)\.scope")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")  # systemd.unit(5), "String Escaping for Inclusion in Unit Names"


def parse(path: str) -> CgroupPath:
    """The innermost container of *path* and its pod. Any text is a path; what says nothing is NOTHING."""
    path = path.removesuffix(_DELETED)
    segments = path.split("/")
    container = next((found for at in range(len(segments) - 1, -1, -1) if (found := _segment(segments, at))), NOTHING)
    pods = list(_POD.finditer(path))
    if not pods:
        return container
    pod = pods[-1]
    before = path[: pod.start()].rstrip("-/")
    qos = next((value for word, value in _QOS.items() if before.endswith(word)), "")
    return container._replace(pod_uid=pod[1].replace("_", "-"), qos=qos)


def _segment(segments: list[str], at: int) -> CgroupPath | None:
    """The container that a segment names; NOTHING where looking further out would be wrong."""
    segment, parent = segments[at], segments[at - 1] if at else ""
    if match := _CONTAINER.fullmatch(segment):
        prefix = match["prefix"] or ""
        if prefix.endswith("conmon"):
            return NOTHING
        return CgroupPath(match["id"], _RUNTIMES.get(prefix) or _RUNTIMES.get(parent) or _ecs(segments, at))
    if segment == "conmon" or _POD.search(segment):  # monitors of all containers; a pod's own cgroup
        return NOTHING
    if _TASK.fullmatch(segment) and _ecs(segments, at):
        return CgroupPath(segment, "ecs")
    if segment and parent == "garden":
        return CgroupPath(segment, "garden")
    return _system_container(segment, parent)


def _ecs(segments: list[str], at: int) -> str:
    """``/ecs/TASK/CONTAINER``."""
    return "ecs" if "ecs" in segments[max(at - 2, 0) : at] else ""


def _system_container(segment: str, parent: str) -> CgroupPath | None:
    """A container with an init of its own, whose name is its id."""
    if segment and parent in ("lxc", "lxc.payload"):
        return CgroupPath(segment, "lxc")
    if segment.startswith("lxc.payload."):
        return CgroupPath(segment.removeprefix("lxc.payload."), "lxc")
    if match := _MACHINE.fullmatch(segment):
        name = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), match[1] or match[2])
        return CgroupPath(name, "systemd-nspawn")
    return None
