"""From a pid or cgroup to the container and the pod: every point knows whose it is.

A cycle asks only what costs microseconds (workloads.py: cgroup files and paths). The names behind the ids come from
runtimes' files, sockets and the kubelet, which a thread of its own asks (refresh.py).
"""

from __future__ import annotations

from otel_hostmetrics.enrich.names import Lookup
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.enrich.stage import Stage
from otel_hostmetrics.enrich.workloads import Workloads
from otel_hostmetrics.kernel import rlimit
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Workloads as Settings
from otel_hostmetrics.telemetry import Telemetry


def build(fs: HostFS, settings: Settings, telemetry: Telemetry) -> Stage:
    """The stage as configured. Its thread starts with the first workload that is seen."""
    refresh = Refresh(lookups(fs, settings), settings.interval, telemetry)
    workloads = Workloads(fs, refresh, settings.resource, telemetry, rlimit.kept(settings.descriptors, 4))
    return Stage(workloads, refresh, settings.points, devices=bool(settings.pod_resources))


def lookups(fs: HostFS, settings: Settings) -> list[Lookup]:
    """The ways to names that are configured, the one that knows most last. What is not, is not imported."""
    found: list[Lookup] = []
    if settings.pod_logs:
        from otel_hostmetrics.enrich.pod_logs import PodLogs

        found.append(PodLogs(fs, settings.pod_logs))
    if settings.bundles:
        from otel_hostmetrics.enrich.bundles import Bundles

        found.append(Bundles(fs, settings.bundles))
    if settings.docker:
        from otel_hostmetrics.enrich.docker import Docker

        found.append(Docker(_socket(fs, settings.docker)))
    if settings.podman:
        from otel_hostmetrics.enrich.podman import Podman

        found.append(Podman(_socket(fs, settings.podman)))
    if settings.cri:
        from otel_hostmetrics.enrich.cri import Cri

        found.append(Cri(_socket(fs, settings.cri), settings.pod_labels))
    if settings.kubelet:
        from otel_hostmetrics.enrich.kubelet import Kubelet

        found.append(Kubelet(settings))
    if settings.pod_resources:
        from otel_hostmetrics.enrich.pod_resources import PodResources

        found.append(PodResources(fs, _socket(fs, settings.pod_resources)))
    return found


def _socket(fs: HostFS, text: str) -> str:
    """Its path here; runtimes' own tools write ``unix:///run/docker.sock``."""
    return fs.path(text.removeprefix("unix:"))
