"""Files the kernel writes: /sys, /proc and what is mounted there. Small, changing, of no size; read whole, in one call."""

from __future__ import annotations

import os
import types
from typing import Self

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_SMALL = 128  # bytes: the longest single-value attribute we read, with room
_LINKS = 40  # symbolic links followed, as in the kernel (MAXSYMLINKS)
_LARGE = 1 << 20  # bytes: more than any file read through here; mountinfo of a crowded node is the longest


def in_first_pid_namespace() -> bool:
    """Whether we see all processes of the host: its first namespace has a fixed inode number, PROC_PID_INIT_INO [3.8]."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC
    except OSError:
        return False


def content(path: str, most: int) -> bytes:
    """The first *most* bytes of a file, in one read(2): 8 us below /proc/PID. Raises Unavailable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
    try:
        return os.read(fd, most)
    except OSError as error:
        raise unavailable(error, path, needs=path) from None
    finally:
        os.close(fd)


class CounterFile:
    """One integer the kernel keeps up to date, read again and again through one descriptor.

    Raises Unavailable: ABSENT or DENIED at first, later also GONE, UNREADABLE, or MALFORMED for what is no integer.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(error, path, needs=path) from None

    @property
    def descriptor(self) -> int:
        """For those who read many files at once, see counterfiles.sweep()."""
        return self._fd

    def read(self) -> int:
        """The value now. pread at 0 runs the attribute's show() again: a ninth of the CPU of open, read and close."""
        try:
            return int(os.pread(self._fd, _SMALL, 0))
        except OSError as error:
            raise unavailable(error, self.path, needs=self.path) from None
        except ValueError:
            raise Unavailable(Reason.MALFORMED, self.path, "not an integer") from None

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()


class HostFS:
    """The host's file trees: ``/`` on a host, ``/host`` in a container, a recording in a test.

    *procfs* and *sysfs* are where these two are mounted; empty = below *root*.
    """

    __slots__ = ("_procfs", "_sysfs", "root")

    def __init__(self, root: str = "/", procfs: str = "", sysfs: str = "") -> None:
        self.root = root
        self._procfs = procfs or os.path.join(root, "proc")
        self._sysfs = sysfs or os.path.join(root, "sys")

    def proc(self, *parts: str) -> str:
        """A path in procfs."""
        return "/".join((self._procfs, *parts))

    def sys(self, *parts: str) -> str:
        """A path in sysfs."""
        return "/".join((self._sysfs, *parts))

    def own_processes_only(self) -> bool:
        """Whether this procfs shows just the PID namespace we are in, and that is not the host's.

        In a procfs of another namespace than ours, ``self`` is another number than the one we know.
        """
        try:
            return not in_first_pid_namespace() and os.readlink(self.proc("self")) == str(os.getpid())
        except OSError:
            return False

    def path(self, *parts: str) -> str:
        """A path on the host: ``path("/run/x")`` and ``path("run", "x")`` are the same."""
        return os.path.join(self.root, *(part.lstrip("/") for part in parts))

    def resolved(self, path: str) -> str:
        """A *path* of the host without symbolic links, below the root: what they lead to is meant as the host sees it."""
        real, parts = "/", [*reversed(path.split("/"))]
        followed = 0
        while parts:
            step = os.path.normpath(os.path.join(real, parts.pop() or "."))
            try:
                target = os.readlink(self.path(step))
            except OSError:  # no link, or not there
                real = step
                continue
            followed += 1
            if followed > _LINKS:
                break
            real = "/" if target.startswith("/") else real
            parts += reversed(target.split("/"))
        return self.path(real)

    def text(self, path: str, most: int = _LARGE) -> str:
        """A file's content without surrounding white space; bytes that are not UTF-8 are shown as hex escapes.

        A FIFO is empty, and does not make who reads wait. Raises Unavailable; MALFORMED above *most* bytes.
        """
        try:
            with open(path, "rb", opener=_at_once) as file:
                content = file.read(most + 1)
        except OSError as error:
            raise unavailable(error, path, needs=path) from None
        if len(content) > most:
            raise Unavailable(Reason.MALFORMED, path, f"longer than {most} bytes")
        return content.strip().decode("utf-8", "backslashreplace")

    def integer(self, path: str) -> int:
        """A decimal number that is read once; nothing stays open. Raises Unavailable."""
        with CounterFile(path) as file:
            return file.read()

    def names(self, path: str) -> list[str]:
        """What a directory contains, sorted. Raises Unavailable."""
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            raise unavailable(error, path, needs=path) from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
