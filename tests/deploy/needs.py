"""What playing a pod needs of the machine."""

from __future__ import annotations

from tests.deploy import images, podman
from tests.system.processes import need


def need_podman() -> None:
    """Skip where no pod can be played; in CI that is a failure."""
    need(", ".join(filter(None, (podman.missing(), images.missing()))))
