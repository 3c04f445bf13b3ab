"""The HTTP proxy that a connection is to go through: the variables that gRPC's libraries follow, and CONNECT (RFC 9110, 9.3.6)."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Mapping
from typing import NamedTuple

from otel_hostmetrics.export.otlp.stream import Stream

_log = logging.getLogger(__name__)

_NAMES = ("grpc_proxy", "https_proxy", "http_proxy")  # the first that is set
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
_URL = re.compile(r"(?:http://)?(?:(?P<user>[^@/]*)@)?(?P<host>\[[^\]]*\]|[^:/\[\]]+)(?::(?P<port>\d{1,5}))?/?")
_LOCAL = re.compile(r"localhost|127\..*|::1", re.IGNORECASE)
_HEAD_LIMIT = 16_384  # bytes of a proxy's answer


class Proxy(NamedTuple):
    """Where it is, and what it is to be told of its user."""

    host: str
    port: int
    user: str = ""  # user:password, percent-encoded

    def connect(self, stream: Stream, host: str, port: int, deadline: float) -> None:
        """Have *stream* lead on to a host. Raises OSError with the proxy's words."""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if self.user:
            plain = re.sub(rb"%([0-9a-fA-F]{2})", lambda it: bytes.fromhex(it[1].decode()), self.user.encode())
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(plain).decode()}")
        stream.send(["\r\n".join([*lines, "", ""]).encode("latin-1")], deadline)
        status = self._head(stream, deadline).partition(b"\r\n")[0]
        if not re.match(rb"HTTP/1\.[01] 2\d\d", status):
            raise ConnectionError(f"proxy {self.host}:{self.port}: {status[:100].decode('latin-1')!r}")

    def _head(self, stream: Stream, deadline: float) -> bytes:
        """Of its answer. Byte for byte: what follows is the collector's, whose settings may come with it."""
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            data = stream.receive(deadline, 1)
            if not data:
                raise ConnectionError(f"proxy {self.host}:{self.port} closed the connection")
            head += data
            if len(head) > _HEAD_LIMIT:
                raise ConnectionError(f"proxy {self.host}:{self.port}: an answer without end")
        return bytes(head)


def proxy_of(host: str, environ: Mapping[str, str]) -> Proxy | None:
    """For connections to *host*; None: no proxy, as to this host itself. A variable that cannot be meant is logged, without a password."""
    name = next((name for name in _NAMES if environ.get(name)), "")
    if not name or _LOCAL.fullmatch(host) or _excepted(host, next((environ[each] for each in _EXCEPTIONS if environ.get(each)), "")):
        return None
    found = _URL.fullmatch(environ[name].strip())
    if found is None:
        _log.warning("environment %s is ignored: not http://HOST:PORT", name)
        return None
    return Proxy(found["host"].strip("[]"), int(found["port"] or 80), found["user"] or "")


def _excepted(host: str, exceptions: str) -> bool:
    """As in gRPC: ends of names, or all with ``*``."""
    ends = [each.strip().lower() for each in exceptions.split(",")]
    return any(each == "*" or (each and (host.lower() == each or host.lower().endswith(f".{each.lstrip('.')}"))) for each in ends)
