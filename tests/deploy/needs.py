"""What playing a pod needs of the machine."""

from __future__ import annotations

import os

import pytest

from tests.deploy import images, podman


def need_podman() -> None:
    """Skip where no pod can be played, and say what is missing; in CI that is a failure."""
    lacking = ", ".join(filter(None, (podman.missing(), images.missing())))
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"no pod can be played here without {lacking}")
    if lacking:
        pytest.skip(f"no pod can be played here without {lacking}")
