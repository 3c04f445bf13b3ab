"""Resolving the configuration again, for SIGHUP: flags, environment and file as at the start, by the same front.

The agent has no YAML parser, so the front runs once more, as a child that only prints what it resolved.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from otel_hostmetrics import launch
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import child
from otel_hostmetrics.settings import Settings, decode

_log = logging.getLogger(__name__)

_TIMEOUT = 20.0  # s: the front takes 0.3 s
_MOST = 8192  # bytes of its messages


def resolve(arguments: Sequence[str], alive: Callable[[], None]) -> Settings | None:
    """The new settings; None where they are wrong or do not come in time. What the child writes to standard error is logged.

    *alive* is called every second meanwhile, for the watchdog.
    """
    command = [*launch.interpreter(), "-m", "otel_hostmetrics", "--resolve-only", *arguments]
    errors = os.memfd_create("reload-errors")
    settings: Settings | None = None
    try:
        settings = decode(child.output(command, os.environ, _TIMEOUT, alive, errors))
    except Unavailable as error:
        if error.reason is not Reason.UNREADABLE:  # an exit status: it has said why
            _log.error("reload: %s", error)
    except ValueError as error:
        _log.error("reload: %s", error)
    finally:
        for line in os.pread(errors, _MOST, 0).decode("utf-8", "backslashreplace").splitlines():
            _log.log(logging.WARNING if settings else logging.ERROR, "reload: %s", line.removeprefix("otel-hostmetrics: "))
        os.close(errors)
    return settings
