"""Whether the processes a driver speaks of still live."""

from __future__ import annotations

import os

from otel_hostmetrics.kernel.hostfs import HostFS

_DEAD = b"ZXx"  # proc_pid_stat(5): zombie, dead


def alive(fs: HostFS, pid: int) -> bool:
    """Not for a zombie either: it uses no GPU, whatever the driver says."""
    try:
        descriptor = os.open(fs.proc(str(pid), "stat"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        state = os.read(descriptor, 512).rpartition(b") ")[2][:1]
    except OSError:  # ESRCH: it ends now
        return False
    finally:
        os.close(descriptor)
    return bool(state) and state not in _DEAD
