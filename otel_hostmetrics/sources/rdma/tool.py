"""One run of a program beside the agent's cycles: it is started, looked after once a cycle, and never waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_MOST = 32 << 20  # bytes of output


class Tool:
    """Its output goes to memory, its messages nowhere. It has a process group of its own, which is killed at the time limit.

    Not a kernel.child.Child, whose pipe holds 64 KiB: a program that prints more would stand still between two cycles, and
    the topology of a large fabric is megabytes.
    """

    def __init__(self, command: Sequence[str], limit: float) -> None:
        """Start *command*; its first word is a path. *limit* in seconds. Raises Unavailable."""
        self._what = " ".join(command)
        self._limit = limit
        self._deadline = time.monotonic() + limit
        self._output = os.memfd_create("output", os.MFD_CLOEXEC)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self._output, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        try:
            self._pid = os.posix_spawn(command[0], list(command), os.environ, file_actions=actions, setpgroup=0, setsigmask=())
        except OSError as error:
            os.close(self._output)
            raise unavailable(error, self._what) from None

    def output(self) -> str | None:
        """What it printed, once it has ended well; None while it runs. Raises Unavailable: it failed, or took too long.

        Not to be called again after it gave or raised something.
        """
        done, status = os.waitpid(self._pid, os.WNOHANG)
        size = os.fstat(self._output).st_size
        if not done and time.monotonic() < self._deadline and size <= _MOST:
            return None
        if not done:
            self.close()
            why = f"printed more than {_MOST} bytes" if size > _MOST else f"took longer than {self._limit:g} s"
            raise Unavailable(Reason.LATE, self._what, why)
        content = os.pread(self._output, _MOST, 0)
        os.close(self._output)
        if code := os.waitstatus_to_exitcode(status):
            raise Unavailable(Reason.UNREADABLE, self._what, f"exit code {code}")
        return content.decode("utf-8", "backslashreplace")

    def close(self) -> None:
        """Kill it. Only for one that still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)  # SIGKILL leaves nothing to wait for but the kernel
        os.close(self._output)
