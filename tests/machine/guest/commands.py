"""Other programs, and waiting for what they do."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

_T = TypeVar("_T")


def run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of *command*. Raises RuntimeError with its own words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def listed(*command: str) -> Any:
    """What *command* prints as JSON; ``[]`` where it prints nothing, as ``rdma`` does for an empty list."""
    return json.loads(run(*command) or "[]")


def until(condition: Callable[[], _T], what: str, limit: float = 15, pause: float = 0.1) -> _T:
    """The first true value of *condition*. Raises TimeoutError naming *what* after *limit* seconds."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:.0f} s: {what}")
        time.sleep(pause)
    return value
