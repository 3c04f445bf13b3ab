"""Names from dockerd, Engine API: ``GET /containers/json``, the running containers."""

from __future__ import annotations

import msgspec

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.http_get import get_local
from otel_hostmetrics.enrich.names import CONTAINER_NAME, RUNTIME, Names, image, kubernetes, told
from otel_hostmetrics.errors import Reason, Unavailable

_TARGET = "/containers/json"


class _Container(msgspec.Struct, rename="pascal"):
    id: str = ""
    names: list[str] | None = None
    image: str = ""
    labels: dict[str, str] | None = None


class Docker:
    """*socket* as the agent sees it: ``/run/docker.sock`` on the host."""

    name = "docker"

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:  # noqa: ARG002 - it lists all there are
        """All running containers. Raises Unavailable."""
        try:
            found = msgspec.json.decode(get_local(self._socket, _TARGET), type=list[_Container])
        except msgspec.MsgspecError as error:
            raise Unavailable(Reason.MALFORMED, self._socket, str(error)) from None
        return Names({each.id: _attributes(each) for each in found if each.id})


def _attributes(each: _Container) -> Attributes:
    """A name of more than one slash is that of a link to another container."""
    name = next((name.lstrip("/") for name in each.names or () if name.count("/") == 1), "")
    return told({RUNTIME: "docker", CONTAINER_NAME: name, **kubernetes(each.labels or {}), **image(each.image)})
