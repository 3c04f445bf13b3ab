"""One call to a collector, and the connection it goes over."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from otel_hostmetrics import settings
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.export.otlp import channel, response
from otel_hostmetrics.export.otlp.response import PartialSuccess

if TYPE_CHECKING:
    import grpc

_log = logging.getLogger(__name__)

_MAX_DETAIL = 300  # characters of a server's text in a log line


_CA = "otlp.ca_file: the PEM file of the CA that signed the collector's certificate"
_HINTS = (
    ("unable to get local issuer certificate", _CA),
    ("self signed certificate", _CA),
    ("Hostname Verification Check failed", "the collector's certificate is for another name than that of otlp.endpoint"),
    ("WRONG_VERSION_NUMBER", "no TLS is spoken there: http:// is without"),
    ("Failed parsing HTTP/2", "no gRPC is spoken there: collectors take it on port 4317, HTTP on 4318"),
)  # by words of gRPC and BoringSSL, which tell what happened but not what to do


class Outcome(NamedTuple):
    """How a call ended."""

    code: str = ""  # gRPC status in lower case; empty if the request was accepted
    detail: str = ""
    delay: float | None = None  # seconds the server asks us to wait
    partial: PartialSuccess = PartialSuccess()

    @property
    def retryable(self) -> bool:
        return response.retryable(self.code, self.delay)

    def __str__(self) -> str:
        hints = [hint for words, hint in _HINTS if words in self.detail]
        said = f"{self.code}: {self.detail}" if self.detail else self.code
        return f"{said} ({hints[0]})" if hints else said


class Client:
    """Sends encoded requests. Threads may share it; close() ends what is under way."""

    def __init__(self, settings: settings.Otlp) -> None:
        """Raises ValueError or Unavailable, in one line, if the settings cannot work. Does not connect yet."""
        self._settings = settings
        self._metadata = channel.metadata(settings.headers)
        self._files = channel.files(settings)
        self._lock = threading.Lock()
        self._closed = False
        self._channel = channel.connect(settings)
        self._export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(channel.EXPORT)  # bytes in, bytes out

    def export(self, payload: bytes, timeout: float) -> Outcome:
        """Send one request and wait for the answer, at most *timeout* seconds. Never raises."""
        import grpc

        try:
            answer = self._export(payload, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            outcome = _failed(error) if isinstance(error, grpc.Call) else Outcome("unknown", _one_line(str(error)))
            self._reconnect_if_stale(outcome.code)
            return outcome
        except Exception as error:  # the sending thread must live on; not the text, which may show metadata
            closed = isinstance(error, ValueError)  # what grpc raises on a channel that was closed meanwhile
            return Outcome("cancelled", "connection closed") if closed else Outcome("internal", type(error).__name__)
        try:
            rejected, message = response.partial_success(answer)
            return Outcome(partial=PartialSuccess(rejected, _one_line(message)))
        except Unavailable as error:
            return Outcome(partial=PartialSuccess(0, str(error)))  # accepted all the same

    @contextlib.contextmanager
    def watching(self, reconnected: Callable[[], None]) -> Iterator[None]:
        """Call *reconnected*, in a thread of gRPC, when a lost connection is up again; gRPC polls 5 times a second meanwhile."""
        import grpc

        watched, down = self._channel, False

        def changed(state: grpc.ChannelConnectivity) -> None:
            nonlocal down
            if down and state is grpc.ChannelConnectivity.READY:
                reconnected()
            down = state is not grpc.ChannelConnectivity.READY

        # Not try_to_connect: gRPC's polling thread would outlive close() by one round and fail. The channel tries by itself.
        watched.subscribe(changed)
        try:
            yield
        finally:
            watched.unsubscribe(changed)

    def close(self) -> None:
        """Close the connection; a call under way ends as cancelled. Takes 0.2 s if gRPC is polling. Safe to call twice."""
        with self._lock:
            self._closed = True
            self._channel.close()

    def _reconnect_if_stale(self, code: str) -> None:
        """Start over where the connection may be dead (no answer), or its certificates have been renewed."""
        renewed = code == "unavailable" and channel.files(self._settings) != self._files
        if not renewed and code != "deadline_exceeded":
            return
        with self._lock:
            if self._closed:
                return
            try:
                fresh = channel.connect(self._settings)
            except (ValueError, Unavailable) as error:  # half-written files: the next failure tries again
                _log.debug("OTLP connection not renewed: %s", error)
                return
            self._channel.close()
            self._channel, self._export = fresh, fresh.unary_unary(channel.EXPORT)
            self._files = channel.files(self._settings)


def _failed(call: object) -> Outcome:
    import grpc

    assert isinstance(call, grpc.Call)
    return Outcome(call.code().name.lower(), _one_line(call.details() or ""), response.retry_delay(call.trailing_metadata() or ()))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_DETAIL]
