"""A peer that speaks HTTP/2 as told: what no well-behaved collector does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from otel_hostmetrics.export.otlp.client import Client, Outcome
from otel_hostmetrics.settings import Otlp

OK = ((":status", "200"), ("content-type", "application/grpc"))
EMPTY = b"\0\0\0\0\0"  # an answer without any field
PAYLOAD = b"payload"
_AS_TOLD = h2.config.H2Configuration(
    client_side=False, header_encoding="ascii", normalize_outbound_headers=False, validate_outbound_headers=False
)
Act = Callable[["Link", int, bytes], None]  # on a whole request: the connection, its stream, what came


class Link:
    """One connection to it. *settings* are HTTP/2's."""

    def __init__(self, sock: socket.socket, settings: dict[int, int]) -> None:
        self.socket = sock
        self.h2 = h2.connection.H2Connection(_AS_TOLD)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.h2.initiate_connection()
        self.flush()
        self.events: list[h2.events.Event] = []
        self.headers: dict[str, str] = {}
        self.changes: list[dict[int, int]] = []  # settings it goes over to, one after the other, while a request comes in

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def serve(self, act: Act) -> None:
        bodies: dict[int, bytearray] = {}
        while data := self.socket.recv(65_536):
            for event in self.h2.receive_data(data):
                self.events.append(event)
                if isinstance(event, h2.events.RequestReceived):
                    self.headers = dict(event.headers)  # type: ignore[arg-type]
                    bodies[event.stream_id] = bytearray()
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    if self.changes:
                        self.h2.update_settings(self.changes.pop(0))
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    act(self, event.stream_id, bytes(bodies.pop(event.stream_id)))
            self.flush()

    def answer(self, stream: int, body: bytes = EMPTY, status: str = "0", **more: str) -> None:
        """Headers, a message, trailers."""
        self.h2.send_headers(stream, OK)
        self.h2.send_data(stream, body)
        self.h2.send_headers(stream, [("grpc-status", status), *((name.replace("_", "-"), value) for name, value in more.items())], True)


class Peer:
    """Listens on ``port``; ``links`` are the connections so far, ``bodies`` what came in whole requests."""

    def __init__(self, act: Act, settings: dict[int, int]) -> None:
        self.links: list[Link] = []
        self.bodies: list[bytes] = []
        self._act = act
        self._settings = settings
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.links.append(Link(sock, self._settings))
                threading.Thread(target=self._serve, args=(self.links[-1],), daemon=True).start()

    def _serve(self, link: Link) -> None:
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError), link.socket:
            link.serve(self._take)

    def _take(self, link: Link, stream: int, body: bytes) -> None:
        self.bodies.append(body)
        self._act(link, stream, body)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self.links:
            with contextlib.suppress(OSError):
                link.socket.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def speaking(act: Act = lambda link, stream, _: link.answer(stream), settings: dict[int, int] | None = None) -> Iterator[Peer]:
    made = Peer(act, settings or {})
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def client(port: int, **settings: object) -> Iterator[Client]:
    made = Client(Otlp(endpoint=f"127.0.0.1:{port}", **settings))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def outcome(act: Act) -> Outcome:
    """Of one call to a peer that does this."""
    with speaking(act) as peer, client(peer.port) as made:
        return made.export(PAYLOAD, 5)
