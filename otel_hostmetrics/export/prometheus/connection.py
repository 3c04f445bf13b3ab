"""One client of the scrape endpoint: h11 does HTTP/1.1, this does the socket. Never blocks."""

from __future__ import annotations

import functools
import select
import socket
import time
from collections.abc import Callable

import h11

from otel_hostmetrics.export.prometheus.routes import Request, Response

_HEAD_LIMIT = 16_384  # bytes of a request's line and headers; also what is read at once
_LINGER = 1.0  # seconds for the client to take the last response and close
_KNOWN = 64  # requests remembered, each below _HEAD_LIMIT
_REASONS = {
    200: b"OK",
    404: b"Not Found",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_FIXED = (("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "default-src 'none'"))  # headers of every response
_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))


class Closed(Exception):
    """The connection is over. *cause* says what was wrong with it, empty if nothing."""

    def __init__(self, cause: str = "") -> None:
        super().__init__(cause)
        self.cause = cause


class Connection:
    """Call turn() whenever the socket is ready, to read or, if ``writing``, to write; close after ``deadline``.

    A turn answers one request at most, so that a client that pipelines does not keep the others waiting.

    A scraper sends the very same bytes every time. *known* maps such bytes to what h11 made of them before, shared by all
    connections: a request that is found there needs no parsing, nor its response h11.
    """

    def __init__(
        self,
        client: socket.socket,
        answer: Callable[[Request], Response],
        measure: Callable[[str, str, int], Callable[[float], None]],
        known: dict[bytes, Request],
        timeout: float,
        idle: float,
    ) -> None:
        self.socket = client
        self.deadline = time.monotonic() + timeout
        self.watched = select.EPOLLIN  # what the server waits for
        self._answer = answer
        self._measure = measure
        self._known = known
        self._timeout = timeout
        self._idle_timeout = idle
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_LIMIT)
        self._fresh = True  # h11 is at the beginning of a request and holds no bytes
        self._piece = b""  # the last request, if it came alone and in one piece
        self._request = Request("", "")
        self._out: bytes | memoryview = b""  # what is still to be sent
        self._hungry = True  # h11 needs more bytes to go on
        self._idle = False  # between two requests
        self._leaving = False  # all is sent, the client is to close
        self._began_ns = 0
        self._served = ("", "", 0)  # method, route, status
        self._record: Callable[[float], None] = _nobody  # how long it took to serve such

    @property
    def writing(self) -> bool:
        """Wait to write, not to read. A request that is here already needs a turn as well, and writing needs no waiting."""
        return not self._leaving and (len(self._out) > 0 or not self._hungry)

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self._idle

    @property
    def overdue(self) -> str:
        """What passing the deadline means: nothing between two requests or after the last, else a ``timeout``."""
        return "" if self._idle or self._leaving else "timeout"

    def turn(self) -> None:
        """Do what can be done without waiting. Raises Closed at the end."""
        try:
            if self._out:
                self._send()
            elif self._hungry:
                self._receive()
            if not self._out and not self._leaving and not self._fresh:
                self._read_request()
        except BlockingIOError:
            return
        except OSError:
            raise Closed from None  # the client went

    def _receive(self) -> None:
        data = self.socket.recv(_HEAD_LIMIT)
        if not data:
            raise Closed
        if self._leaving:
            return  # unread bytes would turn our close into a reset that takes the response with it
        if self._fresh and (request := self._known.get(data)) is not None:
            self._began_ns = time.monotonic_ns()
            response = self._answer(request)
            self._write(request, response, _head(response) + (response.body if request.method != "HEAD" else b""))
            return
        if self._idle:
            self._idle = False
            self.deadline = time.monotonic() + self._timeout
        self._piece = data if self._fresh else b""
        self._fresh = False
        self._http.receive_data(data)

    def _read_request(self) -> None:
        try:
            event = self._http.next_event()
            self._hungry = event is h11.NEED_DATA
            if self._hungry:
                return
            if not isinstance(event, h11.Request):
                raise Closed
            whole = isinstance(self._http.next_event(), h11.EndOfMessage)
        except h11.RemoteProtocolError:
            raise Closed("not_http") from None
        self._respond(event, whole)

    def _respond(self, event: h11.Request, whole: bool) -> None:
        """No route takes a body: a request that has one is answered before it has been read, and is the connection's last."""
        self._began_ns = time.monotonic_ns()
        request = _request(event)
        response = self._answer(request)
        if not whole and response.status < 400:
            response = Response(413, "text/plain; charset=utf-8", b"no request body is taken here\n", response.route)
        if not whole or self._http.trailing_data[0]:
            self._piece = b""
        self._request = request
        self._write(request, response, self._bytes(response, with_body=request.method != "HEAD", last=not whole))

    def _write(self, request: Request, response: Response, out: bytes) -> None:
        method = request.method if request.method in _METHODS else "_OTHER"
        served = (method, response.route, response.status)
        if served != self._served:
            self._served, self._record = served, self._measure(*served)
        self._out = out
        self._send()

    def _bytes(self, response: Response, with_body: bool, last: bool) -> bytes:
        headers = [*_headers(response), *([("Connection", "close")] if last else [])]
        parts = [self._http.send(h11.Response(status_code=response.status, headers=headers, reason=_REASONS.get(response.status, b"")))]
        if with_body:
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    def _send(self) -> None:
        """What the socket takes; mostly that is all at once."""
        out = self._out
        try:
            sent = self.socket.send(out)
        except BlockingIOError:
            sent = 0
        if sent == len(out):
            self._out = b""
            self._finish()
            return
        self._out = memoryview(out)[sent:]
        if not isinstance(out, memoryview):  # the first time
            self._idle = False
            self.deadline = time.monotonic() + self._timeout

    def _remember(self) -> None:
        """The connection goes on, so these bytes are a complete request that asks for no more than it says."""
        if self._piece and self._served[2] == 200 and len(self._known) < _KNOWN:
            self._known[self._piece] = self._request

    def _finish(self) -> None:
        """The response is out: measure it, then wait for the next request or for the end."""
        self._record((time.monotonic_ns() - self._began_ns) / 1e9)
        if self._fresh:  # h11 had no part in it
            self._idle = True
            self.deadline = time.monotonic() + self._idle_timeout
        elif self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._remember()
            self._http.start_next_cycle()
            self._hungry = self._fresh = self._idle = not self._http.trailing_data[0]
            self.deadline = time.monotonic() + (self._idle_timeout if self._idle else self._timeout)
        else:
            self.socket.shutdown(socket.SHUT_WR)
            self._leaving = self._hungry = True
            self.deadline = time.monotonic() + min(_LINGER, self._timeout)


def _nobody(_: float) -> None:
    pass


def _headers(response: Response) -> list[tuple[str, str]]:
    return [
        ("Content-Type", response.content_type),
        *_FIXED,
        *response.headers,
        ("Date", _date().decode()),
        ("Content-Length", str(len(response.body))),
    ]


def _head(response: Response) -> bytes:
    """What h11 would write of _headers() for a response that is not the connection's last."""
    start = _start(response.status, response.content_type, response.headers)
    return b"%bDate: %b\r\nContent-Length: %d\r\n\r\n" % (start, _date(), len(response.body))


@functools.lru_cache(64)
def _start(status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """All that is the same in each response of a kind."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in (("Content-Type", content_type), *_FIXED, *headers))
    return b"HTTP/1.1 %d %b\r\n%b" % (status, _REASONS.get(status, b""), fields.encode("latin-1"))


def _date() -> bytes:
    """Now, as RFC 9110 (5.6.7) wants it."""
    now = int(time.time())
    return b"%b %02d:%02d:%02d GMT" % (_day(now // 86400), now // 3600 % 24, now // 60 % 60, now % 60)


@functools.lru_cache(1)
def _day(number: int) -> bytes:
    """Of the Unix epoch. strftime(3) for each response takes 8 us with cold caches."""
    return time.strftime("%a, %d %b %Y", time.gmtime(number * 86400)).encode()


def _request(event: h11.Request) -> Request:
    """Field values of one name are joined by commas (RFC 9110, 5.3)."""
    accept, coding = (
        ",".join(value.decode("latin-1") for name, value in event.headers if name == wanted) for wanted in (b"accept", b"accept-encoding")
    )
    return Request(event.method.decode("latin-1"), event.target.decode("latin-1"), accept, coding)
