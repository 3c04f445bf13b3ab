"""The address of the scrape endpoint."""

from __future__ import annotations

import re
import socket

from otel_hostmetrics.errors import unavailable

_LISTEN = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]]+):)?(?P<port>[0-9]{1,5})", re.ASCII)
_BACKLOG = 64


def parse_listen(text: str) -> tuple[str, int]:
    """``[HOST:]PORT`` -> (host, port); an IPv6 literal stands in brackets. Without a host: ``localhost``, as OpenTelemetry asks.

    ``*`` is every address of either version. Raises ValueError, in one line. ``:9464`` is refused: half of the world reads it as
    "every address", half as the default.
    """
    match = _LISTEN.fullmatch(text.strip())
    if match is None or int(match["port"]) > 65_535:
        raise ValueError(f"expected [HOST:]PORT such as 9464, 0.0.0.0:9464 or *:9464, got {text!r}")
    return (match["host"] or "localhost").strip("[]"), int(match["port"])


def literal(host: str) -> str:
    """``localhost`` is 127.0.0.1, whatever the host's resolver says: one listener, the same on every host.

    ``*`` is [::], which takes IPv4 as well, or 0.0.0.0 where the kernel has no IPv6. Other names stay.
    """
    if host == "*":
        return "::" if _has_ipv6() else "0.0.0.0"  # noqa: S104 - asked for
    return "127.0.0.1" if host == "localhost" else host


def bind(host: str, port: int) -> socket.socket:
    """A non-blocking socket that listens there; port 0 lets the kernel choose. Raises Unavailable, which names the address."""
    try:
        found = socket.getaddrinfo(literal(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what it accepts on Linux
            if family == socket.AF_INET6 and where[0] == "::":
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # whatever net.ipv6.bindv6only says
            listener.bind(where)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:  # gaierror is one too
        raise unavailable(error, f"listening on {_shown(host)}:{port} (prometheus.listen)", "CAP_NET_BIND_SERVICE") from None
    return listener


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_ipv6() -> bool:
    """Also not where it was switched off at boot (ipv6.disable=1)."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
