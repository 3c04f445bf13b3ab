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


def hidden(fs: HostFS, pid: int) -> bool:
    """Whether it lives and procfs does not show it: its mount option ``hidepid`` (proc(5)). For who is in the same PID namespace."""
    try:
        os.stat(fs.proc(str(pid), "stat"))
    except PermissionError:
        return True
    except OSError:
        return _exists(pid)
    return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):  # a driver's ghost may have any number
        return False
    return True
