"""Whether the processes a driver speaks of still live."""

from __future__ import annotations

import os

from otel_hostmetrics.kernel.hostfs import HostFS

_DEAD = b"ZXx"  # proc_pid_stat(5): zombie, dead
_START = 19  # place behind the state


def living(fs: HostFS, pid: int) -> tuple[bytes, ...] | None:
    """Its name and start, which tell it from others with that pid. None also for a zombie: it uses no GPU, whatever the driver says."""
    try:
        descriptor = os.open(fs.proc(str(pid), "stat"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        name, _, rest = os.read(descriptor, 512).rpartition(b") ")
    except OSError:  # ESRCH: it ends now
        return None
    finally:
        os.close(descriptor)
    fields = rest.split()
    return (name, *fields[_START : _START + 1]) if fields and fields[0] not in _DEAD else None
