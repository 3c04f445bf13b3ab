"""One call to a collector, and the connection it goes over."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import h2
from hpack import NeverIndexedHeaderTuple

from otel_hostmetrics import __version__, settings
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.export.otlp import channel, response, status
from otel_hostmetrics.export.otlp.dial import Dialer
from otel_hostmetrics.export.otlp.http2 import Answer, Broken, Connection
from otel_hostmetrics.export.otlp.response import PartialSuccess
from otel_hostmetrics.export.otlp.stream import Cancelled, Waker

_LONGEST = 99_999_999  # of milliseconds: grpc-timeout has at most 8 digits
_MAX_DETAIL = 300  # characters of a server's text in a log line


_CA = "otlp.ca_file: the PEM file of the CA that signed the collector's certificate"
_CLIENT = "otlp.cert_file: the collector does not take this client's certificate"
_HTTPS = "where TLS is spoken: https://"
_SMALLER = "otlp.max_request_bytes: less than the collector's limit, max_recv_msg_size_mib"
_TOO_LARGE = ("larger than max", "message length too large")  # of servers in Go and C++, in Rust
_HINTS = (
    ("unable to get local issuer certificate", _CA),
    ("self-signed certificate", _CA),
    ("self signed certificate", _CA),
    ("mismatch, certificate is not valid", "the collector's certificate is for another name than that of otlp.endpoint"),
    ("CERTIFICATE_REQUIRED", "otlp.cert_file, otlp.key_file: the collector wants a client's certificate"),
    ("ALERT_HANDSHAKE_FAILURE", "otlp.cert_file, otlp.key_file: maybe the collector wants a client's certificate"),
    *((f"ALERT_{alert}", _CLIENT) for alert in ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "DECRYPT_ERROR")),
    ("WRONG_VERSION_NUMBER", "no TLS is spoken there: http:// is without"),
    ("what came back is TLS", _HTTPS),
    ("before a word of HTTP/2", _HTTPS),
    ("is not HTTP/2", "no gRPC is spoken there: collectors take it on port 4317, HTTP on 4318"),
    *((words, _SMALLER) for words in _TOO_LARGE),
    ("unauthenticated", "otlp.headers: what the collector wants to see, such as authorization"),
)  # by words of OpenSSL, http2.py and servers, which tell what happened but not what to do


class Outcome(NamedTuple):
    """How a call ended."""

    code: str = ""  # gRPC status in lower case; empty if the request was accepted
    detail: str = ""
    delay: float | None = None  # seconds the server asks us to wait
    partial: PartialSuccess = PartialSuccess()

    @property
    def retryable(self) -> bool:
        too_large = self.code == "out_of_range" and any(words in self.detail for words in _TOO_LARGE)  # it will not shrink
        return response.retryable(self.code, self.delay) and not too_large

    def __str__(self) -> str:
        said = f"{self.code}: {self.detail}" if self.detail else self.code
        hints = [hint for words, hint in _HINTS if words in said]
        return f"{said} ({hints[0]})" if hints else said


class Client:
    """Sends encoded requests, one at a time. Threads may share it; close() ends what is under way."""

    def __init__(self, settings: settings.Otlp, environ: Mapping[str, str] = os.environ) -> None:
        """Raises ValueError or Unavailable, in one line, if the settings cannot work. Does not connect yet."""
        self._waker = Waker()
        self._dialer = Dialer(settings, self._waker, environ)
        self._gzip = settings.compression == "gzip"
        self._headers = self._fixed_headers(channel.metadata(settings.headers))
        self._lock = threading.Lock()  # of all below
        self._connection: Connection | None = None
        self._closed = False

    def _fixed_headers(self, metadata: channel.Metadata) -> list[tuple[bytes, bytes]]:
        return [
            (b":method", b"POST"),
            (b":scheme", b"https" if self._dialer.target.tls else b"http"),
            (b":path", channel.EXPORT.encode()),
            (b":authority", self._dialer.authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", f"otel-hostmetrics/{__version__} h2/{h2.__version__}".encode()),
            *([(b"grpc-encoding", b"gzip")] if self._gzip else []),
            *(NeverIndexedHeaderTuple(*pair) for pair in status.encoded(metadata)),  # they may be secrets
        ]

    def export(self, payload: bytes, timeout: float) -> Outcome:
        """Send one request and wait for the answer, at most *timeout* seconds. Never raises."""
        deadline = time.monotonic() + timeout
        with self._lock:
            try:
                return _outcome(self._call(payload, timeout, deadline))
            except Cancelled:
                outcome = Outcome("cancelled", "connection closed")
            except TimeoutError:
                outcome = Outcome("deadline_exceeded", f"no answer within {timeout:g} s")
            except (OSError, Broken, Unavailable, ValueError) as error:
                outcome = Outcome("unavailable", _one_line(_why(error)))
            except Exception as error:  # the sending thread must live on; not the text, which may show metadata
                outcome = Outcome("internal", type(error).__name__)
            self._drop()
            return outcome

    def _call(self, payload: bytes, timeout: float, deadline: float) -> Answer:
        connection = self._connected(deadline)
        body = zlib.compress(payload, 6, status.GZIP) if self._gzip else payload
        headers = [*self._headers, (b"grpc-timeout", b"%dm" % min(max(timeout * 1000, 1), _LONGEST))]
        return connection.call(headers, [bytes((self._gzip,)) + len(body).to_bytes(4, "big"), body], deadline)

    def _connected(self, deadline: float) -> Connection:
        if self._closed:
            raise Cancelled
        if self._connection is None or not self._connection.usable():
            self._drop()
            self._connection = Connection(self._dialer.connect(deadline), deadline)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def returns(self, timeout: float) -> bool:
        """Whether a connection that was lost can be made again, tried for *timeout* seconds; False while none is lost."""
        with self._lock:
            if self._connection is not None:
                return False
            try:
                self._connected(time.monotonic() + timeout)
            except Exception:  # the sending thread must live on; export() will say what it is
                return False
            return True

    def close(self) -> None:
        """Close the connection; a call under way ends as cancelled. Safe to call twice."""
        self._closed = True
        self._waker.wake()
        with self._lock:
            self._drop()


def _outcome(answer: Answer) -> Outcome:
    code, said = status.status(answer)
    if code:
        return Outcome(code, _one_line(said), response.retry_delay(status.metadata(answer)))
    content = status.message(answer)
    if content is None:
        return Outcome("internal", "an answer that is no message")
    try:
        rejected, text = response.partial_success(content)
        return Outcome(partial=PartialSuccess(rejected, _one_line(text)))
    except Unavailable as error:
        return Outcome(partial=PartialSuccess(0, str(error)))  # accepted all the same


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _one_line(text: str) -> str:
    """Without what a terminal would obey."""
    words = " ".join(text.split())[:_MAX_DETAIL]
    return "".join(each if each.isprintable() else "\ufffd" for each in words)
