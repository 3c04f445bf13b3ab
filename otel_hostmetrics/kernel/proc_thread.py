"""Which process a thread is of: Tgid in /proc/TID/status (proc_pid_status(5)).

What the kernel lists in /proc are processes, but each thread has a directory too that can be opened by its number.
"""

from __future__ import annotations

import re
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import content

_SIZE: Final = 1024  # bytes; it is in the fourth line
_TGID: Final = re.compile(rb"^Tgid:\t(\d+)$", re.MULTILINE)  # the name before it cannot have a line of its own: \n is escaped


def process_of(proc: str, tid: int) -> int:
    """The process of a thread below the procfs *proc*: 13 us. A process's own number is that of its first thread.

    Raises Unavailable: ABSENT or GONE when the thread has ended, MALFORMED.
    """
    path = f"{proc}/{tid}/status"
    found = _TGID.search(content(path, _SIZE))
    if found is None:
        raise Unavailable(Reason.MALFORMED, path, "no line Tgid")
    return int(found[1])
