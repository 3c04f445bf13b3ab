"""Names from a daemon that lists its running containers as JSON over a socket: what dockerd and podman's service have in common."""

from __future__ import annotations

import msgspec

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.http_get import get_local
from otel_hostmetrics.enrich.names import CONTAINER_NAME, RUNTIME, Names, image, told
from otel_hostmetrics.errors import Reason, Unavailable


class Container(msgspec.Struct, rename="pascal"):
    """What both tell of one."""

    id: str = ""
    names: list[str] | None = None
    image: str = ""
    labels: dict[str, str] | None = None
    pod_name: str = ""  # podman's


class Listing:
    """*socket* as the agent sees it. A subclass says what to ask for, and what a container's entry means."""

    name = ""
    target = ""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:  # noqa: ARG002 - it lists all there are
        """All running containers. Raises Unavailable."""
        try:
            found = msgspec.json.decode(get_local(self._socket, self.target), type=list[Container])
        except msgspec.MsgspecError as error:
            raise Unavailable(Reason.MALFORMED, self._socket, str(error)) from None
        return Names({each.id: self._attributes(each) for each in found if each.id})

    def _attributes(self, each: Container) -> Attributes:
        return told({RUNTIME: self.name, CONTAINER_NAME: self._name(each.names or []), **self._more(each), **image(each.image)})

    def _name(self, names: list[str]) -> str:
        return names[0] if names else ""

    def _more(self, each: Container) -> Attributes:
        raise NotImplementedError
