#!/usr/bin/python3
"""An OCI runtime that leaves out what a container engine without CAP_SYS_RESOURCE may not set, and is runc otherwise.

podman writes raised limits into every bundle; where they may not be raised, runc refuses to start the container.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

_NOT_ALLOWED = ("rlimits", "oomScoreAdj")


def main(arguments: list[str]) -> None:
    """Rewrite the bundle of ``create``, or the process of ``exec``, and become runc."""
    if "create" in arguments:
        _rewrite(os.path.join(_option(arguments, "--bundle", "-b") or os.getcwd(), "config.json"), "process")
    if "exec" in arguments and (process := _option(arguments, "--process", "-p")):
        _rewrite(process, None)
    os.execv(shutil.which("runc") or "/usr/sbin/runc", ["runc", *arguments])


def _option(arguments: list[str], *names: str) -> str | None:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, value = argument.partition("=")
        if name in names:
            return value or following
    return None


def _rewrite(path: str, part: str | None) -> None:
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    process = config[part] if part else config
    for key in _NOT_ALLOWED:
        process.pop(key, None)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)


if __name__ == "__main__":
    main(sys.argv[1:])
