"""From settings to a gRPC channel. Importing grpc costs 21 MB, so it is done in here, when OTLP is on."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from otel_hostmetrics import __version__, settings
from otel_hostmetrics.errors import unavailable

if TYPE_CHECKING:
    import grpc

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_PORT = 4317
_HOST_PORT = re.compile(r"(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[(?P<literal>[^\]]*)\])(?::(?P<port>[0-9]{1,5}))?")
_HEADER = re.compile(r"[0-9a-z_.-]+")  # gRPC over HTTP/2, "Custom-Metadata"
_PRINTABLE = re.compile(r"[ -~]*")
_ROUND_ROBIN = '{"loadBalancingConfig":[{"round_robin":{}}]}'
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(://|:(?=/))(.*)", re.DOTALL)


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
        return Target(f"dns://{_host_port(authority, 53) if authority else ''}/{_host_port(name)}", tls)
    raise ValueError(f"otlp.endpoint: unknown scheme {found[1]}; use HOST:PORT, http://, https://, unix: or dns:///")


def target(settings: settings.Otlp) -> Target:
    """Where these settings lead. Raises ValueError."""
    return parse(settings.endpoint, settings.insecure, bool(settings.ca_file or settings.cert_file))


def _socket_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError("otlp.endpoint: unix: needs the absolute path of a socket, such as unix:///run/otlp.sock")
    return path


def _host_port(text: str, default: int = _PORT) -> str:
    if "@" in text:
        raise ValueError("otlp.endpoint: a user or password does not belong here; use otlp.headers")
    found = _HOST_PORT.fullmatch(text)
    if found is None or (found["literal"] is not None and not _is_address(found["literal"])):
        raise ValueError(f"otlp.endpoint: {text!r} is not HOST:PORT; an IPv6 address needs [brackets]")
    port = found["port"] or str(default)
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


def metadata(headers: dict[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    """Headers as gRPC metadata, keys in lower case. Raises ValueError that names the key, never the value."""
    pairs: list[tuple[str, str | bytes]] = []
    for key, value in headers.items():
        name = key.strip().lower()
        if not _HEADER.fullmatch(name) or name.startswith("grpc-"):
            raise ValueError(f"otlp.headers: {key!r} is not a header gRPC can send")
        if not _PRINTABLE.fullmatch(value):
            raise ValueError(f"otlp.headers: the value of {key!r} is not printable ASCII")
        pairs.append((name, value.encode() if name.endswith("-bin") else value))
    return tuple(pairs)


def files(settings: settings.Otlp) -> tuple[tuple[str, int], ...]:
    """Certificate files and when they last changed, to see that they were renewed."""
    return tuple((name, _changed_ns(name)) for name in (settings.ca_file, settings.cert_file, settings.key_file) if name)


def _changed_ns(name: str) -> int:
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return 0  # being replaced; connect() says what is wrong with it


def connect(settings: settings.Otlp) -> grpc.Channel:
    """Make a channel; it connects with the first call. Raises ValueError (settings) or Unavailable (a file)."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else its remarks on connections go to stderr, past our log
    _import_grpc()
    import grpc

    where = target(settings)
    options = _options(where)
    compression = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
    if not where.tls:
        return grpc.insecure_channel(where.name, options, compression)
    return grpc.secure_channel(where.name, credentials(settings), options, compression)


def _import_grpc() -> None:
    """Import grpc without grpc.aio and, for the asyncio below it, without ssl: 45 -> 38 MB resident (measured).

    gRPC has TLS of its own. Whoever needs these two can import them afterwards.
    """
    if "grpc" in sys.modules:
        return
    stand_ins = {"grpc.aio": ModuleType("grpc.aio"), "ssl": None}
    missing = [name for name in stand_ins if name not in sys.modules]
    sys.modules.update({name: stand_ins[name] for name in missing})  # type: ignore[misc] # None: "not installed"
    try:
        import grpc
    finally:
        for name in missing:
            del sys.modules[name]
    if "grpc.aio" in missing:
        del grpc.aio


def credentials(settings: settings.Otlp) -> grpc.ChannelCredentials:
    """TLS from the configured files, the system's roots without a CA. Raises as connect() does."""
    import grpc

    if bool(settings.cert_file) != bool(settings.key_file):
        raise ValueError("otlp: cert_file and key_file go together; only one of them is set")
    return grpc.ssl_channel_credentials(_pem(settings.ca_file), _pem(settings.key_file), _pem(settings.cert_file))


def _options(where: Target) -> list[tuple[str, str | int]]:
    options: list[tuple[str, str | int]] = [
        ("grpc.primary_user_agent", f"otel-hostmetrics/{__version__}"),
        # A peer that vanished is noticed while a call waits. No pings between calls: servers refuse those more often
        # than every 5 minutes (gRPC A8, A9).
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        # gRPC's own back-off would grow to 2 minutes; ours is in sender.py.
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if where.name.startswith("dns:"):
        options.append(("grpc.service_config", _ROUND_ROBIN))
    return options


def _pem(name: str) -> bytes | None:
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise unavailable(error, name, needs=name) from error
