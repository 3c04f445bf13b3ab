"""Netlink (RFC 3549, Documentation/userspace-api/netlink/intro.rst): messages and attributes as bytes, and a socket for them.

Everything is in the machine's byte order; messages and attributes begin at multiples of four bytes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
import types
from collections.abc import Iterator
from typing import Final, Protocol, Self

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

REQUEST: Final = 0x1  # NLM_F_REQUEST
ACKNOWLEDGE: Final = 0x4  # NLM_F_ACK: an answer even where there is nothing to say
DUMP: Final = 0x300  # NLM_F_DUMP: all entries, in several messages
NESTED: Final = 0x8000  # NLA_F_NESTED: to be set in an attribute's type where a request has attributes in it

_MULTI: Final = 0x2  # NLM_F_MULTI: more messages follow, until DONE
_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3  # NLMSG_DONE
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: len, type, flags, seq, pid
_ATTRIBUTE: Final = struct.Struct("=HH")  # struct nlattr: len, type
_NUMBER: Final = struct.Struct("=i")
_TYPE: Final = 0x3FFF  # NLA_TYPE_MASK: without the flags "nested" and "network byte order"

_BUFFER: Final = 1 << 16  # bytes; the kernel fills at most 32 KiB of a dump into one datagram
_LIMIT: Final = 16 << 20  # bytes of one answer: 150,000 memory regions
_TIMEOUT: Final = 1.0  # seconds without a byte

# What is not in errors.py because elsewhere it means something else
_REASONS: Final = {
    errno.EPROTONOSUPPORT: (Reason.ABSENT, "no such netlink family"),
    errno.EAFNOSUPPORT: (Reason.ABSENT, "no netlink"),
    errno.EMSGSIZE: (Reason.UNSUPPORTED, "the answer does not fit into the kernel's buffer of one page"),
    errno.EAGAIN: (Reason.LATE, "no answer"),
    errno.ENOBUFS: (Reason.UNREADABLE, "messages were lost"),
}


class Asks(Protocol):
    """Who answers a request: the kernel through :class:`Socket`, or a recording."""

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]: ...

    def close(self) -> None: ...


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One message; *body* is a multiple of four bytes long."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, begin, end) of each attribute in a part of a message. Raises ValueError if one does not fit."""
    unpack = _ATTRIBUTE.unpack_from
    while end - at >= 4:
        length, kind = unpack(data, at)
        if length < 4 or length > end - at:
            raise ValueError(f"attribute of {length} bytes at {at}, {end - at} are left")
        yield kind & _TYPE, at + 4, at + length
        at += length + 3 & ~3


class Answer:
    """Collects what the kernel sends for one request, datagram by datagram."""

    __slots__ = ("bodies", "done", "sequence", "what")

    def __init__(self, sequence: int, what: str) -> None:
        self.sequence = sequence
        self.what = what
        self.bodies: list[bytes] = []  # of the messages so far
        self.done = False  # nothing comes after it

    def feed(self, datagram: bytes) -> None:
        """Take one datagram; messages of other requests (an earlier one that was given up) are passed over.

        Raises Unavailable: what the kernel refuses with, or MALFORMED.
        """
        at = 0
        while len(datagram) - at >= _HEADER.size:
            length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, at)
            if length < _HEADER.size or length > len(datagram) - at:
                raise Unavailable(Reason.MALFORMED, self.what, f"message of {length} bytes in a datagram of {len(datagram)}")
            if sequence == self.sequence:
                self._take(kind, flags, datagram[at + _HEADER.size : at + length])
            at += length + 3 & ~3

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind in (_ERROR, _DONE):  # both begin with an error number, 0 for none; before 4.14 DONE could be shorter
            code = -_NUMBER.unpack_from(body)[0] if len(body) >= 4 else 0
            self.done = True
            if code:
                raise refusal(OSError(code, os.strerror(code) if 0 < code < 4096 else f"error {code}"), self.what)
        elif kind > _DONE:
            self.bodies.append(body)
            self.done = not flags & _MULTI


def refusal(error: OSError, what: str) -> Unavailable:
    """Translate an errno of a netlink call."""
    known = _REASONS.get(error.errno or 0)
    return Unavailable(known[0], what, known[1]) if known else unavailable(error, what)


class Socket:
    """A conversation with the kernel on one netlink protocol. Not thread-safe.

    The kernel works while we send, so the answer is there when we begin to receive: the timeout is against a lost answer.
    A driver that hangs holds us in the call itself.
    """

    def __init__(self, protocol: int, what: str, timeout: float = _TIMEOUT, limit: int = _LIMIT) -> None:
        """*timeout* in seconds, *limit* in bytes of one answer. Raises Unavailable(ABSENT) if the kernel does not have *protocol*."""
        self._sequence = int(time.monotonic()) & 0xFFFFFF
        self._buffer = bytearray(_BUFFER)
        self._protocol = protocol
        self._what = what
        self._timeout = timeout
        self._limit = limit
        self._broken = False  # an answer was given up
        self._socket = self._opened()

    def _opened(self) -> socket.socket:
        try:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._protocol)
        except OSError as error:
            raise refusal(error, self._what) from None
        try:
            # A socket connected to the kernel (port 0) gets no messages from other processes.
            opened.connect((0, 0))
            # SO_RCVTIMEO, not settimeout: that would make two system calls of each receive.
            seconds = int(self._timeout)
            wait = struct.pack("@ll", seconds, int((self._timeout - seconds) * 1e6))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        except OSError as error:
            opened.close()
            raise refusal(error, self._what) from None
        return opened

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """The bodies of the messages the kernel answers with. Raises Unavailable; LATE after the timeout."""
        if self._broken:
            self._socket, self._broken = self._opened(), False
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        answer = Answer(self._sequence, what)
        try:
            self._receive(answer, message(kind, flags | REQUEST, self._sequence, body))
        except OSError as error:
            raise refusal(error, what) from None
        finally:
            if not answer.done:
                self._give_up()
        return answer.bodies

    def _receive(self, answer: Answer, request: bytes) -> None:
        received = 0
        self._socket.send(request)
        while not answer.done:
            count = self._socket.recv_into(self._buffer, 0, socket.MSG_TRUNC)
            received += count
            if count > _BUFFER or received > self._limit:
                raise Unavailable(Reason.MALFORMED, answer.what, f"answer of {received} bytes or more")
            answer.feed(bytes(memoryview(self._buffer)[:count]))

    def _give_up(self) -> None:
        """The kernel does not begin another dump on a socket (EBUSY) from which the rest of one was not fetched."""
        self._broken = self._socket.fileno() >= 0  # else it was closed by its user
        self._socket.close()

    def close(self) -> None:
        """May be called again; then ask() raises."""
        self._broken = False
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()


class Notifications:
    """Tells that the kernel announced something to a multicast group. Not thread-safe."""

    def __init__(self, protocol: int, group: int, what: str) -> None:
        """Raises Unavailable; a kernel that does not know *group* may accept it and stay silent."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
        except OSError as error:
            raise refusal(error, what) from None
        try:
            self._socket.connect((0, 0))
            self._socket.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
        except OSError as error:
            self._socket.close()
            raise refusal(error, what) from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def changed(self) -> bool:
        """Whether anything was announced since the last call. Never waits; what was lost for want of room counts too."""
        seen = False
        for _ in range(1024):  # a storm of events cannot hold us
            try:
                self._socket.recv(1)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more came than the buffer holds
                pass
            seen = True
        return seen

    def close(self) -> None:
        """May be called again."""
        self._socket.close()
