"""Which workload a cgroup belongs to."""

from __future__ import annotations

from typing import NamedTuple

from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.kernel import cgroup_path

_SERVICE = ".service"


class Workload(NamedTuple):
    """What several cgroups may have in common."""

    type: str  # container, pod, service, cgroup
    name: str  # id, uid, unit, path


def workload(path: str) -> Workload:
    """Of the innermost container, else the pod, else the systemd service (a user's with that of the user), else the cgroup itself.

    What is inside a container is the container's, also a service of its own systemd.
    """
    told = cgroup_path.parse(path)
    if told.container_id:
        return Workload(rows.CONTAINER, told.container_id)
    if told.pod_uid:
        return Workload(rows.POD, told.pod_uid)
    services = [_text(segment) for segment in path.split("/") if segment.endswith(_SERVICE)]
    return Workload(rows.SERVICE, "/".join(services)) if services else Workload(rows.CGROUP, _text(path))


def _text(name: str) -> str:
    """Names of files may be any bytes; what is exported is UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
