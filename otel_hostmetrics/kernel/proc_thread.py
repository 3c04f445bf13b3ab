"""Which process a thread is of: Tgid in /proc/TID/status (proc_pid_status(5)).

What the kernel lists in /proc are processes, but each thread has a directory too that can be opened by its number.
"""

from __future__ import annotations

import os
import re
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_SIZE: Final = 1024  # bytes; it is in the fourth line
_TGID: Final = re.compile(rb"^Tgid:\t(\d+)$", re.MULTILINE)  # the name before it cannot have a line of its own: \n is escaped


def process_of(proc: str, tid: int) -> int:
    """The process of a thread below the procfs *proc*: 13 us. A process's own number is that of its first thread.

    Raises Unavailable: ABSENT or GONE when the thread has ended, MALFORMED.
    """
    path = f"{proc}/{tid}/status"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
    try:
        found = _TGID.search(os.read(fd, _SIZE))
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
    finally:
        os.close(fd)
    if found is None:
        raise Unavailable(Reason.MALFORMED, path, "no line Tgid")
    return int(found[1])
