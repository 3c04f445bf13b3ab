"""Names from the container runtime itself: CRI v1, kubernetes/cri-api pkg/apis/runtime/v1/api.proto.

Two calls for all containers of the node, 0.5 ms of CPU time for both sides. The socket gives full control of the node,
so it is asked only where it is configured. Of the messages, only the fields named here are read.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.names import CONFIG_HASH, CONTAINER, NAMESPACE, POD, RUNTIME, UID, Names, image, pod_labels, told
from otel_hostmetrics.enrich.unary import call
from otel_hostmetrics.protobuf import mapping, message, messages, text

_SERVICE: Final = "/runtime.v1.RuntimeService/"
_NAMES: Final = {"crio": "cri-o", "cri-o": "cri-o", "docker": "docker"}


class _Sandbox(NamedTuple):
    attributes: Attributes
    hash: str  # of a static pod's configuration


class Cri:
    """*socket* as the agent sees it; *labels* are shell patterns of pod labels to take over."""

    name = "cri"

    def __init__(self, socket: str, labels: tuple[str, ...]) -> None:
        self._socket = socket
        self._labels = labels
        self._runtime = ""

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:  # noqa: ARG002 - it lists all there are
        """All pods and containers of the runtime. Raises Unavailable."""
        if not self._runtime:
            name = text(self._call("Version"), 2)
            self._runtime = _NAMES.get(name, name)
        sandboxes = {text(each, 1): self._sandbox(each) for each in messages(self._call("ListPodSandbox"), 1)}
        found: dict[str, Attributes] = {each: sandbox.attributes for each, sandbox in sandboxes.items()}
        for container in messages(self._call("ListContainers"), 1):
            found[text(container, 1)] = self._container(container, sandboxes)
        by_uid = {uid: each.attributes for each in sandboxes.values() for uid in (str(each.attributes.get(UID, "")), each.hash) if uid}
        return Names(found, by_uid)

    def _call(self, method: str) -> bytes:
        return call(self._socket, _SERVICE + method)

    def _sandbox(self, data: bytes) -> _Sandbox:
        """PodSandbox: id 1, metadata 2 (name 1, uid 2, namespace 3), labels 5, annotations 6."""
        metadata = message(data, 2)
        names = told({POD: text(metadata, 1), UID: text(metadata, 2), NAMESPACE: text(metadata, 3), RUNTIME: self._runtime})
        return _Sandbox({**names, **pod_labels(mapping(data, 5), self._labels)}, mapping(data, 6).get(CONFIG_HASH, ""))

    def _container(self, data: bytes, sandboxes: dict[str, _Sandbox]) -> Attributes:
        """Container: id 1, pod_sandbox_id 2, metadata 3 (name 1), image 4 (image 1, user_specified_image 18)."""
        sandbox = sandboxes.get(text(data, 2))
        specified = message(data, 4)
        return {
            **(sandbox.attributes if sandbox else {}),
            **told({CONTAINER: text(message(data, 3), 1)}),
            **image(text(specified, 18) or text(specified, 1)),
        }
