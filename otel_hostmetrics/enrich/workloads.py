"""Answers whose a process or cgroup is: one attributes object for each workload, so that exporters group by identity.

No answer is remembered by pid: /proc/PID/cgroup is read every time, which cannot be wrong; what is remembered is what
the file's bytes mean.
"""

from __future__ import annotations

import re
import time
from fnmatch import fnmatchcase
from typing import TypeVar

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.names import CONTAINER, NAMESPACE, POD, RUNTIME, UID, told
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import cgroup_path, proc_cgroup
from otel_hostmetrics.kernel.cgroup_handle import CgroupIds
from otel_hostmetrics.kernel.cgroup_path import CgroupPath
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.telemetry import Telemetry

_SWEEP = 60.0  # s between two looks for workloads that nobody asks for any more
_MOST = 20_000  # of what is remembered; beyond, all of it is forgotten and read again
CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_K = TypeVar("_K", bytes, str)


class _Workload:
    """What a cgroup path means; *attributes* is None for the host itself."""

    __slots__ = ("attributes", "path", "used")

    def __init__(self, path: CgroupPath) -> None:
        self.path = path
        self.attributes: Attributes | None = None
        self.used = True


class Workloads:
    """For one thread. *chosen* are shell patterns of the attributes to give, *descriptors* how many may be kept open."""

    def __init__(self, fs: HostFS, refresh: Refresh, chosen: tuple[str, ...], telemetry: Telemetry, descriptors: int = 0) -> None:
        self._fs = fs
        self._processes = proc_cgroup.Kept(fs.proc(), descriptors)
        self._refresh = refresh
        self._chosen = chosen
        self._telemetry = telemetry
        self._names = refresh.names
        self._workloads: dict[CgroupPath, _Workload] = {}
        self._by_container: dict[str, _Workload] = {}
        self._by_content: dict[bytes, _Workload] = {}
        self._by_path: dict[str, _Workload] = {}
        self._paths: dict[int, str] = {}  # by cgroup id, which the kernel gives to no other cgroup
        self._ids: CgroupIds | Unavailable | None = None
        self._one: dict[frozenset[tuple[str, object]], Attributes] = {}  # the one object of equal attributes
        self._device_containers: dict[str, str] = {}  # container ids, as far as they are known
        self._new = False
        self._swept = time.monotonic()
        self._count()

    def begin(self) -> None:
        """Take over what has become known since the last time. Objects whose content stays are the same objects."""
        now = time.monotonic()
        if now - self._swept > _SWEEP:
            self._swept = now
            self._sweep()
        if self._refresh.names is not self._names:
            self._names = self._refresh.names
            self._bind_devices()
            for workload in self._workloads.values():
                workload.attributes = self._describe(workload.path)
            self._count()

    def ask(self) -> bool:
        """Have the names of new workloads looked up; whether there are any."""
        new, self._new = self._new, False
        if new:
            containers = frozenset(each for each in self._by_container if CONTAINER_ID.fullmatch(each))
            self._count()
            self._refresh.want(containers, self._pods())
        return new

    def process(self, pid: int) -> Attributes | None:
        """Raises Unavailable: ABSENT or GONE for a process that has exited."""
        content = self._processes.read(pid)
        workload = self._by_content.get(content) or self._keep(self._by_content, content, proc_cgroup.container(content))
        workload.used = True
        return workload.attributes

    def cgroup(self, path: str) -> Attributes | None:
        """Of a path as in /proc/PID/cgroup."""
        workload = self._by_path.get(path) or self._keep(self._by_path, path, cgroup_path.parse(path))
        workload.used = True
        return workload.attributes

    def cgroup_id(self, number: int) -> Attributes | None:
        """Of a cgroup2 directory by its inode number. Raises Unavailable."""
        path = self._paths.get(number)
        if path is None:
            if self._ids is None:
                self._ids = self._opened()
            if isinstance(self._ids, Unavailable):
                raise self._ids
            path = self._ids.path(number)
            if len(self._paths) >= _MOST:
                self._paths.clear()
            self._paths[number] = path
        return self.cgroup(path)

    def device(self, name: str) -> Attributes | None:
        """Of a device that was given to one container: a GPU by its UUID, an RDMA device by its name."""
        names = self._names.devices.get(name)
        if names is None:
            return None
        container = self._device_containers.get(name)
        if container is None:  # known by name only
            return self._chosen_of(names)
        workload = self._by_container.get(container) or self._workload(CgroupPath(container))
        workload.used = True
        return workload.attributes

    def _count(self) -> None:
        """Whenever their number, or what is known of them, may have changed."""
        containers, pods = self._names.containers.keys(), self._names.pods.keys()
        for kind, there, known in (("container", self._by_container.keys(), containers), ("pod", self._pods(), pods)):
            named = len(there & known)
            for has, number in ((True, named), (False, len(there) - named)):
                self._telemetry.set(rows.WORKLOADS, number, {rows.WORKLOAD_TYPE: kind, rows.NAMED: has})

    def _pods(self) -> frozenset[str]:
        return frozenset(path.pod_uid for path in self._workloads if path.pod_uid)

    def _opened(self) -> CgroupIds | Unavailable:
        try:
            return CgroupIds(self._fs)
        except Unavailable as error:
            return error

    def _keep(self, known: dict[_K, _Workload], key: _K, path: CgroupPath) -> _Workload:
        if len(known) >= _MOST:
            known.clear()
        workload = known[key] = self._workloads.get(path) or self._workload(path)
        return workload

    def _workload(self, path: CgroupPath) -> _Workload:
        workload = self._workloads[path] = _Workload(path)
        workload.attributes = self._describe(path)
        if path.container_id:
            self._by_container[path.container_id] = workload
        self._new |= workload.attributes is not None
        return workload

    def _describe(self, path: CgroupPath) -> Attributes | None:
        """What the path tells, and what is known of that container and pod."""
        container = self._names.containers.get(path.container_id, {})
        uid = path.pod_uid or str(container.get(UID, ""))
        own = told({"container.id": path.container_id, RUNTIME: path.runtime, UID: uid})
        return self._chosen_of({**own, **self._names.pods.get(uid, {}), **container})

    def _chosen_of(self, attributes: Attributes) -> Attributes | None:
        found = {key: value for key, value in attributes.items() if any(fnmatchcase(key, pattern) for pattern in self._chosen)}
        return self._one.setdefault(frozenset(found.items()), found) if found else None

    def _bind_devices(self) -> None:
        """A device's container by what both are known by: namespace, pod and name."""
        by_name = {_name(names): each for each, names in self._names.containers.items()}
        found = ((device, by_name.get(_name(names))) for device, names in self._names.devices.items())
        self._device_containers = {device: container for device, container in found if container is not None}

    def _sweep(self) -> None:
        """Forget what nobody has asked for since the last sweep."""
        self._processes.sweep()
        used = {path: workload for path, workload in self._workloads.items() if workload.used}
        self._workloads = used
        self._by_container = {path.container_id: workload for path, workload in used.items() if path.container_id}
        self._by_content = {key: workload for key, workload in self._by_content.items() if workload.used}
        self._by_path = {key: workload for key, workload in self._by_path.items() if workload.used}
        self._paths = {number: path for number, path in self._paths.items() if path in self._by_path}
        self._one = {frozenset(each.attributes.items()): each.attributes for each in used.values() if each.attributes}
        for workload in used.values():
            workload.used = False
        self._count()

    def close(self) -> None:
        """May be called again."""
        self._processes.close()
        if isinstance(self._ids, CgroupIds):
            self._ids.close()
            self._ids = None


def _name(names: Attributes) -> tuple[object, ...]:
    return names.get(NAMESPACE), names.get(POD), names.get(CONTAINER)
