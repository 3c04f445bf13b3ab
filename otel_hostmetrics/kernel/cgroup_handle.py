"""From the id of a cgroup to its path, by open_by_handle_at(2).

The id, which BPF links carry, is the inode number of the directory, and with it the whole of the file handle that
kernfs understands: FILEID_KERNFS, fs/kernfs/mount.c [5.5]. Needs CAP_DAC_READ_SEARCH.
"""

from __future__ import annotations

import ctypes
import os

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import Mount, mounts

_KERNFS = 0xFE  # FILEID_KERNFS, include/linux/exportfs.h

_libc = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    """struct file_handle with the 64-bit id of a kernfs node."""

    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("id", ctypes.c_ulonglong))


class CgroupIds:
    """Paths of cgroup2 directories by id. Keeps no descriptor of a cgroup."""

    def __init__(self, fs: HostFS) -> None:
        """Raises Unavailable: ABSENT without cgroup2."""
        found = mounts(fs, "cgroup2")
        if not found:
            raise Unavailable(Reason.ABSENT, "cgroup2", "not mounted")
        self._mount: Mount = found[0]
        try:
            self._fd = os.open(self._mount.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(error, self._mount.path, needs=self._mount.path) from None

    def path(self, number: int) -> str:
        """As in /proc/PID/cgroup, ``/`` for the root. 8 us.

        Raises Unavailable: GONE for one that was removed, DENIED, or UNSUPPORTED before 5.5.
        """
        what = f"cgroup {number}"
        handle = _Handle(8, _KERNFS, number & (1 << 64) - 1)
        fd = _libc.open_by_handle_at(self._fd, ctypes.byref(handle), os.O_RDONLY | os.O_CLOEXEC)
        if fd < 0:
            error = ctypes.get_errno()
            raise unavailable(OSError(error, os.strerror(error)), what, "CAP_DAC_READ_SEARCH")
        try:
            seen = os.readlink(f"/proc/self/fd/{fd}")
        except OSError as failure:
            raise unavailable(failure, what) from None
        finally:
            os.close(fd)
        return self._mount.root.rstrip("/") + "/" + seen.removeprefix(self._mount.path).lstrip("/")

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
