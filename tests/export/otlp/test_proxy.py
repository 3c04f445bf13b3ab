"""Connections through an HTTP proxy: which, and what is said to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.export.otlp.client import Client
from otel_hostmetrics.export.otlp.proxy import proxy_of
from otel_hostmetrics.settings import Otlp
from tests.export.otlp.collector import Tap
from tests.export.otlp.peer import speaking


@pytest.mark.parametrize(
    ("environ", "host", "found"),
    [
        ({}, "h", None),
        ({"http_proxy": "http://proxy:3128"}, "h", ("proxy", 3128, "")),
        ({"http_proxy": "proxy"}, "h", ("proxy", 80, "")),
        ({"http_proxy": "http://[::1]:3128/"}, "h", ("::1", 3128, "")),
        ({"http_proxy": "http://user:pass@proxy:1"}, "h", ("proxy", 1, "user:pass")),
        ({"http_proxy": "a:1", "https_proxy": "b:2", "grpc_proxy": "c:3"}, "h", ("c", 3, "")),
        ({"http_proxy": "a:1", "https_proxy": "b:2"}, "h", ("b", 2, "")),
        ({"http_proxy": "a:1", "no_proxy": "other, h"}, "h", None),
        ({"http_proxy": "a:1", "no_proxy": ".example.net"}, "otel.example.net", None),
        ({"http_proxy": "a:1", "no_proxy": "example.net"}, "otel.EXAMPLE.net", None),
        ({"http_proxy": "a:1", "no_proxy": "example.net"}, "myexample.net", ("a", 1, "")),
        ({"http_proxy": "a:1", "no_proxy": "*"}, "h", None),
        ({"http_proxy": "a:1", "no_proxy": "", "no_grpc_proxy": "h"}, "h", None),
        ({"http_proxy": "a:1", "no_proxy": ","}, "h", ("a", 1, "")),
        ({"http_proxy": "a:1"}, "localhost", None),
        ({"http_proxy": "a:1"}, "127.0.0.53", None),
        ({"http_proxy": "a:1"}, "::1", None),
        ({"https_proxy": "https://a:1"}, "h", None),
    ],
)
def test_which_proxy(environ, host, found):
    assert proxy_of(host, environ) == found


@given(st.text(min_size=1, max_size=40))
def test_any_text_is_a_proxy_or_none(text):
    found = proxy_of("h", {"https_proxy": text})
    assert found is None or (found.host and found.port < 100_000)


def test_what_is_no_proxy_is_told_without_its_password(caplog):
    assert proxy_of("h", {"https_proxy": "socks5://user:hunter2@h:1"}) is None
    assert caplog.messages == ["environment https_proxy is ignored: not http://HOST:PORT"]


@contextmanager
def proxy(status: bytes, target: int, eager: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Answers CONNECT with *status*, if *eager* together with the target's first bytes; then what comes goes to the port *target*."""
    heads: list[bytes] = []
    tap = Tap(target)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            near, _ = listener.accept()
            heads.append(near.recv(4096))
            with suppress(OSError):  # who is refused leaves
                far = socket.create_connection(("127.0.0.1", tap.port))
                first = far.recv(65_536) if eager else b""
                near.sendall(b"HTTP/1.1 " + status + b"\r\nVia: test\r\n\r\n" + first)
                threading.Thread(target=_relay, args=(near, far), daemon=True).start()
                _relay(far, near)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], heads
    tap.close()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)


def _export(port: int, user: str, endpoint: str) -> str:
    made = Client(Otlp(endpoint=endpoint), {"https_proxy": f"http://{user}127.0.0.1:{port}"})
    found = str(made.export(b"payload", 5))
    made.close()
    return found


def test_through_a_proxy():
    with speaking() as peer, proxy(b"200 Connection established", peer.port) as (port, heads):
        assert _export(port, "me:p%40ss@", "collector.example.net:4317") == ""
        assert peer.bodies[0][5:] == b"payload"
    assert heads[0].split(b"\r\n") == [
        b"CONNECT collector.example.net:4317 HTTP/1.1", b"Host: collector.example.net:4317",
        b"Proxy-Authorization: Basic bWU6cEBzcw==", b"", b"",
    ]  # fmt: skip


def test_what_the_collector_says_first_may_come_with_the_proxys_answer():
    """Servers of gRPC send their settings at once."""
    with speaking() as peer, proxy(b"200 OK", peer.port, eager=True) as (port, _):
        assert _export(port, "", "h:1") == ""
        assert peer.bodies[0][5:] == b"payload"


def test_a_proxy_that_never_comes_to_an_end_is_told():
    with speaking() as peer, proxy(b"200 OK\r\nX: " + b"x" * 20_000, peer.port) as (port, _):
        assert _export(port, "", "h:1") == f"unavailable: proxy 127.0.0.1:{port}: an answer without end"


def test_a_proxy_that_refuses_is_told():
    with speaking() as peer, proxy(b"407 Proxy Authentication Required", peer.port) as (port, _):
        said = _export(port, "", "h:1")
    assert said == f"unavailable: proxy 127.0.0.1:{port}: 'HTTP/1.1 407 Proxy Authentication Required'"
