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


def resolve(arguments: Sequence[str], alive: Callable[[], None]) -> Settings | None:
    """The new settings; None where they are wrong (the child says why on standard error) or do not come in time.

    *alive* is called every second meanwhile, for the watchdog.
    """
    command = [*launch.interpreter(), "-m", "otel_hostmetrics", "--resolve-only", *arguments]
    try:
        return decode(child.output(command, os.environ, _TIMEOUT, alive))
    except Unavailable as error:
        if error.reason is not Reason.UNREADABLE:  # an exit status: it has said why
            _log.error("reload: %s", error)
    except ValueError as error:
        _log.error("reload: %s", error)
    return None
