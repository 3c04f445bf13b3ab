"""Resolving the configuration again, for SIGHUP: flags, environment and file as at the start, by the same front.

The agent has no YAML parser, so the front runs once more, as a child that only prints what it resolved. This is the one
process the agent ever starts.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence

from otel_hostmetrics import launch
from otel_hostmetrics.settings import Settings, decode

_log = logging.getLogger(__name__)

_TIMEOUT = 20.0  # s: the front takes 0.3 s
_MOST = 1 << 20  # bytes of encoded settings


def resolve(arguments: Sequence[str], alive: Callable[[], None]) -> Settings | None:
    """The new settings; None where they are wrong (the child says why on standard error) or do not come in time.

    *alive* is called every second meanwhile, for the watchdog.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    command = [*launch.interpreter(), "-m", "otel_hostmetrics", "--resolve-only", *arguments]
    try:
        # posix_spawn, not subprocess: no fork of a process with threads, and 2 MB less resident.
        child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)], setsigmask=())
    finally:
        os.close(writer)
    try:
        blob = _read(reader, time.monotonic() + _TIMEOUT, alive)
    finally:
        os.close(reader)
        if not _exited_well(child):
            blob = b""
    try:
        return decode(blob) if blob else None
    except ValueError as error:
        _log.error("reload: %s", error)
        return None


def _read(descriptor: int, deadline: float, alive: Callable[[], None]) -> bytes:
    content = b""
    while len(content) < _MOST and (remaining := deadline - time.monotonic()) > 0:
        alive()
        if not select.select([descriptor], [], [], min(remaining, 1.0))[0]:
            continue
        chunk = os.read(descriptor, 65536)
        if not chunk:
            return content
        content += chunk
    _log.error("reload: no settings within %g s", _TIMEOUT)
    return b""


def _exited_well(child: int) -> bool:
    """Whether the child ended with 0; one that still runs after its output ended, or never ended it, is killed."""
    for _ in range(20):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
