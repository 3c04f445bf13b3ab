"""The daemons of a node that know names, as far as they are asked: real servers on real sockets, with answers from the test."""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc

from otel_hostmetrics.export.otlp.wire import delimited

Answer = bytes | tuple[grpc.StatusCode, str]


@contextlib.contextmanager
def grpc_server(socket: Path, answers: Mapping[str, Answer]) -> Iterator[list[str]]:
    """A server that knows the methods of *answers*; gives the methods that were called."""
    called: list[str] = []

    class Methods(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
            called.append(details.method)
            return grpc.unary_unary_rpc_method_handler(_answering(answers[details.method])) if details.method in answers else None

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Methods()])
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        yield called
    finally:
        server.stop(0).wait()


def _answering(answer: Answer) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def method(_: bytes, context: grpc.ServicerContext) -> bytes:
        return answer if isinstance(answer, bytes) else context.abort(*answer)  # type: ignore[func-returns-value]

    return method


class _Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: _Answers = self.server  # type: ignore[assignment]
        server.seen.append((self.path, dict(self.headers)))
        status, body = server.answers.get(self.path, (404, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def address_string(self) -> str:
        return ""


class _Answers:
    answers: dict[str, tuple[int, bytes]]
    seen: list[tuple[str, dict[str, str]]]


class _Local(_Answers, socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Tls(_Answers, ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that does not trust the certificate hangs up."""


@contextlib.contextmanager
def local_server(socket: Path, answers: dict[str, tuple[int, bytes]]) -> Iterator[list[tuple[str, dict[str, str]]]]:
    """HTTP over a socket of this host; gives the requests it saw."""
    with _serving(_Local(str(socket), _Web), answers) as server:
        yield server.seen


@contextlib.contextmanager
def tls_server(
    certificate: Path, key: Path, answers: dict[str, tuple[int, bytes]]
) -> Iterator[tuple[int, list[tuple[str, dict[str, str]]]]]:
    """HTTPS on a port of its own; gives the port and the requests it saw."""
    server = _Tls(("127.0.0.1", 0), _Web)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with _serving(server, answers):
        yield server.server_port, server.seen


@contextlib.contextmanager
def _serving(server: _Local | _Tls, answers: dict[str, tuple[int, bytes]]) -> Iterator[_Local | _Tls]:
    server.answers, server.seen = answers, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def message(*fields: tuple[int, str | bytes | Mapping[str, str]]) -> bytes:
    """A protobuf message of strings, messages and ``map<string, string>``."""
    parts = []
    for number, value in fields:
        if isinstance(value, Mapping):
            parts += [delimited(number, message((1, key), (2, each))) for key, each in value.items()]
        else:
            parts.append(delimited(number, value.encode() if isinstance(value, str) else value))
    return b"".join(parts)
