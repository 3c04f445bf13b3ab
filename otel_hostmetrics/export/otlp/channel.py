"""Where a collector is, and with which metadata: what the settings say, checked and in gRPC's terms."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import NamedTuple

from otel_hostmetrics import settings

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_PORT = 4317
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[(?P<literal>[!-\\^-~]*)\])(?::(?P<port>[0-9]{1,5}))?")
_HEADER = re.compile(r"[0-9a-z_.-]+")  # gRPC over HTTP/2, "Custom-Metadata"
_OF_HTTP = frozenset(
    {"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"}
)  # RFC 9113, 8.2.2, and what gRPC says itself
_PRINTABLE = re.compile(r"[ -~]*")
_LONGEST_PATH = 107  # bytes: sun_path of unix(7), without its end
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|:(?=/))(.*)", re.DOTALL)


Metadata = tuple[tuple[str, str | bytes], ...]


class Target(NamedTuple):
    """Where to connect, as gRPC names it, and whether with TLS."""

    name: str
    tls: bool


def parse(endpoint: str, insecure: bool | None = None, certificates: bool = False) -> Target:
    """Read ``HOST[:PORT]``, ``http://``, ``https://``, ``unix:`` or ``dns:///``.

    Without http or https it is *insecure* that decides, and if that is None, whether there are *certificates*.
    Raises ValueError; its text never holds the endpoint's user or password.
    """
    tls = certificates if insecure is None else not insecure
    found = _SCHEME.fullmatch(endpoint.strip())
    if found is None:
        return Target(_host_port(endpoint.strip()), tls)
    scheme, rest = found[1].lower(), found[3]
    if scheme in ("http", "https") and found[2] == "://":
        host, _, path = rest.partition("/")
        if path:
            raise ValueError("otlp.endpoint: OTLP over gRPC has no path; is this an OTLP/HTTP endpoint (port 4318)?")
        return Target(_host_port(host), scheme == "https")
    if scheme == "unix":
        return Target(f"unix:{_socket_path(rest)}", tls)
    if scheme == "dns" and found[2] == "://":
        authority, _, name = rest.rpartition("/")
        if authority:
            raise ValueError("otlp.endpoint: names are resolved as the host resolves them; use dns:///HOST:PORT")
        return Target(f"dns:///{_host_port(name)}", tls)
    raise ValueError(f"otlp.endpoint: unknown scheme {found[1]}; use HOST:PORT, http://, https://, unix: or dns:///")


def target(settings: settings.Otlp) -> Target:
    """Where these settings lead. Raises ValueError."""
    return parse(settings.endpoint, settings.insecure, bool(settings.ca_file or settings.cert_file))


def _socket_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError("otlp.endpoint: unix: needs the absolute path of a socket, such as unix:///run/otlp.sock")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ValueError(f"otlp.endpoint: the path of a socket has at most {_LONGEST_PATH} bytes")
    return path


def _host_port(text: str) -> str:
    if "@" in text:
        raise ValueError("otlp.endpoint: a user or password does not belong here; use otlp.headers")
    found = _HOST_PORT.fullmatch(text)
    if found is None or (found["literal"] is not None and not _is_address(found["literal"])):
        raise ValueError(f"otlp.endpoint: {text!r} is not HOST:PORT; an IPv6 address needs [brackets]")
    port = found["port"] or str(_PORT)
    if not 0 < int(port) < 65_536:
        raise ValueError(f"otlp.endpoint: {port} is not a port, 1 to 65535")
    literal = found["literal"]
    host = literal if literal and ":" not in literal else found["host"]
    return f"{host}:{port}"


def _is_address(text: str) -> bool:
    """Of either version: a manifest that has brackets around whatever a node's address is works on all clusters."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def metadata(headers: dict[str, str]) -> Metadata:
    """Headers as gRPC metadata, keys in lower case. Raises ValueError that names the key, never the value."""
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in headers.items():
        name = key.strip().lower()
        if not _HEADER.fullmatch(name) or name.startswith("grpc-") or name in _OF_HTTP:
            raise ValueError(f"otlp.headers: {key!r} is not a header gRPC can send")
        if not _PRINTABLE.fullmatch(value):
            raise ValueError(f"otlp.headers: the value of {key!r} is not printable ASCII")
        pairs.append((name, value.encode() if name.endswith("-bin") else value))
    return tuple(pairs)
