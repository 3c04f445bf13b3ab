"""Names from the kubelet of this node: ``GET /pods``.

The right it takes is ``nodes/pods`` (KEP-2862, KubeletFineGrainedAuthz: on by default from Kubernetes 1.33). Never give it
``nodes/proxy``: that lets its owner run commands in every pod of the node.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.http_get import get_tls
from otel_hostmetrics.enrich.names import CONFIG_HASH, CONTAINER, NAMESPACE, POD, UID, Names, image, pod_labels, told
from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.settings import Workloads

_PORT = 10250
_MOST_TOKEN = 65_536


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Container(msgspec.Struct):
    name: str = ""
    image: str = ""
    id: str = msgspec.field(default="", name="containerID")  # containerd://ID


class _Status(msgspec.Struct, rename="camel"):
    container_statuses: list[_Container] | None = None
    init_container_statuses: list[_Container] | None = None
    ephemeral_container_statuses: list[_Container] | None = None


class _Pod(msgspec.Struct):
    """The part we read of a core/v1 Pod."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Pods(msgspec.Struct):
    items: list[_Pod] | None = None


class Kubelet:
    """Asks ``workloads.kubelet``, ``https://HOST[:PORT]``."""

    name = "kubelet"

    def __init__(self, settings: Workloads) -> None:
        self._settings = settings
        self._where = urlsplit(settings.kubelet)

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:  # noqa: ARG002 - it lists all there are
        """All pods of the node. Raises Unavailable."""
        where, settings = self._where, self._settings
        if where.scheme != "https" or not where.hostname:
            raise Unavailable(Reason.MALFORMED, "workloads.kubelet", f"expected https://HOST:PORT, got {settings.kubelet!r}")
        headers = {"Authorization": f"Bearer {_token(settings.kubelet_token)}"} if settings.kubelet_token else {}
        answer = get_tls(where.hostname, where.port or _PORT, "/pods", headers, settings.kubelet_ca, settings.kubelet_verify)
        try:
            found = msgspec.json.decode(answer, type=_Pods).items or []
        except msgspec.MsgspecError as error:
            raise Unavailable(Reason.MALFORMED, f"{settings.kubelet}/pods", str(error)) from None
        return self._names(found)

    def _names(self, found: list[_Pod]) -> Names:
        by_container: dict[str, Attributes] = {}
        by_uid: dict[str, Attributes] = {}
        for pod in found:
            metadata = pod.metadata
            names = told({POD: metadata.name, NAMESPACE: metadata.namespace, UID: metadata.uid, "k8s.node.name": pod.spec.node_name})
            attributes = {**names, **pod_labels(metadata.labels or {}, self._settings.pod_labels)}
            # A static pod's mirror has another uid than its cgroup, which has the hash of its configuration.
            for uid in (metadata.uid, (metadata.annotations or {}).get(CONFIG_HASH, "")):
                if uid:
                    by_uid[uid] = attributes
            for each in _containers(pod.status):
                by_container[each.id.rpartition("/")[2]] = {**attributes, **told({CONTAINER: each.name}), **image(each.image)}
        return Names(by_container, by_uid)


def _containers(status: _Status) -> Iterator[_Container]:
    for group in (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses):
        yield from (each for each in group or () if each.id)


def _token(path: str) -> str:
    """Read for each request: it is renewed every hour. Raises Unavailable."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(_MOST_TOKEN).strip()
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
