"""A connected socket, with TLS or without, that is waited for until a deadline or until somebody wants to end.

Deadlines are of time.monotonic().
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

CHUNK = 65_536
_MOST_PARTS = 1024  # IOV_MAX

Buffer = bytes | memoryview


class Cancelled(Exception):
    """The waker was woken."""


class Waker:
    """Ends all waiting, from any thread, for ever."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def wake(self) -> None:
        """May be called again."""
        os.eventfd_write(self.descriptor, 1)

    def __del__(self) -> None:
        os.close(self.descriptor)


def wait(sock: socket.socket, events: int, waker: Waker, deadline: float) -> None:
    """Until *sock* is ready for one of these events of poll(2), or has failed. Raises TimeoutError, Cancelled."""
    poll = select.poll()
    poll.register(sock, events)
    poll.register(waker.descriptor, select.POLLIN)
    ready = poll.poll(max(deadline - time.monotonic(), 0) * 1000)
    if any(descriptor == waker.descriptor for descriptor, _ in ready):
        raise Cancelled
    if not ready:
        raise TimeoutError


def _check(deadline: float) -> None:
    """A peer that never lets us wait must not keep us for ever, either."""
    if time.monotonic() >= deadline:
        raise TimeoutError


class Stream:
    """Bytes to and from a peer. Methods raise OSError, which TimeoutError is one of, and Cancelled."""

    # What to wait for after which error; 0: for what the operation is about.
    waits: ClassVar[Mapping[type[OSError], int]] = {BlockingIOError: 0}

    def __init__(self, sock: socket.socket, waker: Waker) -> None:
        """*sock* does not block."""
        self._socket = sock
        self._waker = waker
        self._would_block = tuple(self.waits)

    def send(self, parts: Sequence[Buffer], deadline: float) -> None:
        """All of them, one after the other."""
        left = [memoryview(part) for part in parts if part]
        while left:
            _check(deadline)
            try:
                sent = self._write(left)
            except self._would_block as error:
                self._wait(self.waits[type(error)] or select.POLLOUT, deadline)
                continue
            while sent:
                step = min(sent, len(left[0]))
                left[0] = left[0][step:]
                sent -= step
                if not left[0]:
                    del left[0]

    def _write(self, parts: Sequence[memoryview]) -> int:
        """Some of it, as far as that needs no waiting."""
        return self._socket.sendmsg(parts[:_MOST_PARTS])

    def receive(self, deadline: float, most: int = CHUNK) -> bytes:
        """Some bytes; none at the end."""
        _check(deadline)
        while (data := self.pending(most)) is None:
            self._wait(select.POLLIN, deadline)
        return data

    def pending(self, most: int = CHUNK) -> bytes | None:
        """Bytes that are there already; none at the end, None if there are none yet."""
        try:
            return self._socket.recv(most)
        except self._would_block:
            return None

    def _wait(self, events: int, deadline: float) -> None:
        wait(self._socket, events, self._waker, deadline)

    def close(self) -> None:
        """May be called again."""
        self._socket.close()
