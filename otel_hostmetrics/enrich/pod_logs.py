"""Names from where the kubelet keeps logs (pkg/kubelet/kuberuntime): it takes no socket, no token, and knows static pods.

``pods/NAMESPACE_POD_UID/CONTAINER/`` has the uid that the cgroup has, and ``containers/POD_NAMESPACE_CONTAINER-ID.log`` the
container's id. None of the names may contain a ``_``.
"""

from __future__ import annotations

import re

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.names import CONTAINER, NAMESPACE, POD, UID, Names
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_POD = re.compile(r"([^_]+)_([^_]+)_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})")
_CONTAINER = re.compile(r"([^_]+)_([^_]+)_([^_]+)-([0-9a-f]{64})\.log")
_MOST = 20_000  # entries of a directory; the kubelet's limit of pods on a node is in the hundreds


class PodLogs:
    """*directory* on the host: ``/var/log``."""

    name = "pod_logs"

    def __init__(self, fs: HostFS, directory: str) -> None:
        self._fs = fs
        self._directory = fs.path(directory)
        self._answer = Names()

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:
        """Lists the two directories, unless all is known. Raises Unavailable."""
        if not (containers <= self._answer.containers.keys() and pods <= self._answer.pods.keys()):
            self._answer = Names(self._containers(containers), self._pods(pods))
        return self._answer

    def _pods(self, wanted: frozenset[str]) -> dict[str, Attributes]:
        found = (match for name in self._names("pods") if (match := _POD.fullmatch(name)))
        return {
            uid: {NAMESPACE: namespace, POD: pod, UID: uid} for namespace, pod, uid in (match.groups() for match in found) if uid in wanted
        }

    def _containers(self, wanted: frozenset[str]) -> dict[str, Attributes]:
        found = (match for name in self._names("containers") if (match := _CONTAINER.fullmatch(name)))
        return {
            each: {NAMESPACE: namespace, POD: pod, CONTAINER: container}
            for pod, namespace, container, each in (match.groups() for match in found)
            if each in wanted
        }

    def _names(self, name: str) -> list[str]:
        try:
            return self._fs.names(f"{self._directory}/{name}")[:_MOST]
        except Unavailable as error:
            if error.reason is Reason.ABSENT:  # no kubelet here
                return []
            raise
