"""Names from dockerd, Engine API: ``GET /containers/json``, the running containers."""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.listing import Container, Listing
from otel_hostmetrics.enrich.names import kubernetes


class Docker(Listing):
    """Its socket is ``/run/docker.sock`` on the host."""

    name = "docker"
    target = "/containers/json"

    def _name(self, names: list[str]) -> str:
        """A name of more than one slash is that of a link to another container."""
        return next((name.lstrip("/") for name in names if name.count("/") == 1), "")

    def _more(self, each: Container) -> Attributes:
        return kubernetes(each.labels or {})
