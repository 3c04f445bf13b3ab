"""State and physical state of a port through kept descriptors: /sys/class/infiniband/X/ports/N/{state,phys_state}.

For where netlink cannot be asked (nldev.py has both in one query of the driver).
"""

from __future__ import annotations

import os

from otel_hostmetrics.errors import Unavailable, unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.infiniband import State, parse_state, port_path

_SIZE = 128  # bytes


class PortState:
    """Two files of one port, opened at the first reading and read again and again. Not thread-safe."""

    def __init__(self, fs: HostFS, device: str, port: int) -> None:
        self._paths = [port_path(fs, device, port, name) for name in ("state", "phys_state")]
        self._descriptors: list[int] = []
        self._known: dict[bytes, State] = {}

    def read(self) -> tuple[State, State]:
        """Logical and physical state. Raises Unavailable; the next reading opens the files anew."""
        try:
            if not self._descriptors:
                self._open()
            state, physical = (self._parse(os.pread(fd, _SIZE, 0), path) for fd, path in zip(self._descriptors, self._paths, strict=True))
        except OSError as error:
            self.close()
            raise unavailable(error, self._paths[0], needs=self._paths[0]) from None
        except Unavailable:
            self.close()
            raise
        return state, physical

    def _open(self) -> None:
        for path in self._paths:
            self._descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def _parse(self, content: bytes, path: str) -> State:
        if content not in self._known:
            self._known = {**self._known, content: parse_state(content.strip().decode("ascii", "backslashreplace"), path)}
            while len(self._known) > 16:
                self._known.pop(next(iter(self._known)))
        return self._known[content]

    def close(self) -> None:
        """May be called again."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
