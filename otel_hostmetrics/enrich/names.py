"""What is known of containers and pods, under the names of the semantic conventions (v1.44, container and k8s)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Protocol

from otel_hostmetrics.catalogue.model import Attributes, AttributeValue
from otel_hostmetrics.errors import Unavailable

POD, NAMESPACE, UID, CONTAINER = "k8s.pod.name", "k8s.namespace.name", "k8s.pod.uid", "k8s.container.name"
RUNTIME, CONTAINER_NAME = "container.runtime.name", "container.name"

CONFIG_HASH = "kubernetes.io/config.hash"  # annotation of a static pod: the uid that its cgroup has
# Labels that the kubelet gives containers, whatever the runtime.
KUBERNETES_LABELS = {
    "io.kubernetes.container.name": CONTAINER,
    "io.kubernetes.pod.name": POD,
    "io.kubernetes.pod.namespace": NAMESPACE,
    "io.kubernetes.pod.uid": UID,
}
_PAUSE = "POD"  # what the kubelet's Docker shim and CRI-O call a pod's first container, which is in no pod's specification
_MOST_LABELS = 32  # of one pod
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


class Names(NamedTuple):
    """What one lookup found, or all of them together."""

    containers: Mapping[str, Attributes] = {}  # by container id
    pods: Mapping[str, Attributes] = {}  # by uid; static pods also by the uid that their cgroup has
    devices: Mapping[str, Attributes] = {}  # by device id: the container it was given to
    problem: Unavailable | None = None  # what is missing here, and why


class Lookup(Protocol):
    """One way to names. Used by one thread."""

    name: str

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:
        """What it knows, at least of these container ids and pod uids. Blocks, for seconds at most. Raises Unavailable."""


def merged(found: Iterable[Names]) -> Names:
    """All of them; where two tell of the same thing, attribute by attribute the later wins."""
    containers: dict[str, Attributes] = {}
    pods: dict[str, Attributes] = {}
    devices: dict[str, Attributes] = {}
    for names in found:
        for known, more in ((containers, names.containers), (pods, names.pods)):
            for key, attributes in more.items():
                before = known.get(key)
                known[key] = {**before, **attributes} if before else attributes
        devices.update(names.devices)
    return Names(containers, pods, devices)


def told(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    """Without what is empty: absent is not ''."""
    return {key: value for key, value in attributes.items() if value}


def image(reference: str) -> dict[str, AttributeValue]:
    """``registry/name:tag@digest`` as attributes; nothing of a mere id."""
    name = reference.partition("@")[0]
    if not name or _IMAGE_ID.fullmatch(reference):
        return {}
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port
        return {"container.image.name": name}
    tags: Any = (tag,)  # a list, as the convention has it; no metric of the catalogue has one
    return {"container.image.name": head, "container.image.tags": tags}


def kubernetes(labels: Mapping[str, str]) -> dict[str, AttributeValue]:
    """What the kubelet's labels on a container tell."""
    found = told({key: labels.get(label) for label, key in KUBERNETES_LABELS.items()})
    if found.get(CONTAINER) == _PAUSE:
        del found[CONTAINER]
    return found


def pod_labels(labels: Mapping[str, str], wanted: tuple[str, ...]) -> dict[str, AttributeValue]:
    """Those labels of a pod that match one of the shell patterns, as ``k8s.pod.label.KEY``."""
    chosen = sorted(key for key in labels if any(fnmatchcase(key, pattern) for pattern in wanted)) if wanted else []
    return {f"k8s.pod.label.{key}": labels[key] for key in chosen[:_MOST_LABELS]}
