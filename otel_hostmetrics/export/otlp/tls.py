"""TLS over a stream. Importing ssl costs 5 MB resident, so this is only imported where there is TLS."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from otel_hostmetrics.errors import unavailable
from otel_hostmetrics.export.otlp.stream import CHUNK, Stream, Waker
from otel_hostmetrics.settings import Otlp

_ALPN = "h2"
_RECORD = 16_384  # bytes in a record of TLS at most


def context(settings: Otlp) -> ssl.SSLContext:
    """From the configured files; with the system's roots where there is no CA. Raises Unavailable, or ValueError for what is no PEM."""
    for name in (settings.ca_file, settings.cert_file, settings.key_file):
        _check_readable(name)
    try:
        made = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.cert_file:
            made.load_cert_chain(settings.cert_file, settings.key_file, password="")  # none: else it would be asked for
    except (ssl.SSLError, ValueError) as error:
        files = ", ".join(name for name in (settings.ca_file, settings.cert_file, settings.key_file) if name)
        raise ValueError(f"otlp: not the PEM files of a certificate and its key: {files}: {_said(error)}") from None
    made.set_alpn_protocols([_ALPN])
    return made


def _check_readable(name: str) -> None:
    if name:
        try:
            with open(name, "rb"):
                pass
        except OSError as error:
            raise unavailable(error, name, needs=name) from error


class TlsStream(Stream):
    """The same with TLS."""

    waits: ClassVar[Mapping[type[OSError], int]] = {ssl.SSLWantReadError: select.POLLIN, ssl.SSLWantWriteError: select.POLLOUT}

    def __init__(self, sock: socket.socket, waker: Waker, made: ssl.SSLContext, host: str, deadline: float) -> None:
        """Shake hands. Raises OSError with what is wrong with the peer, TimeoutError, Cancelled."""
        name = host.partition("%")[0].rstrip(".")  # as it is in certificates: without zone and root
        wrapped = made.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
        super().__init__(wrapped, waker)
        try:
            self._shake_hands(wrapped, deadline)
        except BaseException:
            wrapped.close()
            raise

    def _write(self, parts: Sequence[memoryview]) -> int:
        """Small parts in one record."""
        if len(parts[0]) >= _RECORD:
            with _told():
                return self._socket.send(parts[0])
        begin, size = [], 0
        for part in parts:
            begin.append(part[: _RECORD - size])
            size += len(begin[-1])
            if size == _RECORD:
                break
        with _told():
            return self._socket.send(b"".join(begin))

    def pending(self, most: int = CHUNK) -> bytes | None:
        """The same; raises ConnectionError with what the peer says is wrong."""
        with _told():
            return super().pending(most)

    def _shake_hands(self, wrapped: ssl.SSLSocket, deadline: float) -> None:
        while True:
            try:
                wrapped.do_handshake()
                break
            except self._would_block as error:
                self._wait(self.waits[type(error)], deadline)
            except (ssl.SSLError, ssl.CertificateError) as error:
                raise ConnectionError(f"TLS: {_said(error)}") from None
        if wrapped.selected_alpn_protocol() != _ALPN:
            raise ConnectionError("TLS: the server does not speak HTTP/2")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What is wrong, and not where in OpenSSL's source."""
    try:
        yield
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise
    except ssl.SSLError as error:
        raise ConnectionError(f"TLS: {_said(error)}") from None


def _said(error: Exception) -> str:
    """Without the place in OpenSSL's source."""
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return str(reason)
