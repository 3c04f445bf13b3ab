"""Recorded hosts as file trees.

A recording is a text: ``[directory]``, and in it ``name = content``, ``name -> link`` and ``name ! EINVAL`` for a file
that cannot be read. Its first lines say where it was recorded.
"""

from __future__ import annotations

import os
from pathlib import Path

from otel_hostmetrics.kernel.hostfs import HostFS

HOSTS = Path(__file__).parent

# Reading the speed of an interface without one is refused with EINVAL by the running kernel: a real refusal.
_REFUSALS = {"EINVAL": "/sys/class/net/lo/speed"}


def unpack(host: str, root: Path) -> HostFS:
    """Make the tree of a recording below *root*."""
    directory = root
    for line in (HOSTS / host / "tree.txt").read_text().splitlines():
        if line.startswith("["):
            directory = root / line[2:-1]
            directory.mkdir(parents=True, exist_ok=True)
        elif not line.startswith("#"):
            name, kind, value = (line + " ").split(" ", 2)
            if kind == "=":
                (directory / name).write_text(f"{value.strip()}\n")
            else:
                os.symlink(value.strip() if kind == "->" else _REFUSALS[value.strip()], directory / name)
    return HostFS(str(root))
