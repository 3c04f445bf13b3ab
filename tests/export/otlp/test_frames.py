"""HTTP/2 at its corners: frames in unusual forms, windows, and peers that hang up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable

import h2.errors
import h2.settings
import hpack
import pytest

from otel_hostmetrics.export.otlp.client import Outcome
from otel_hostmetrics.export.otlp.http2 import Connection
from otel_hostmetrics.export.otlp.stream import Stream, Waker
from tests.export.otlp.peer import EMPTY, OK, PAYLOAD, Link, client, outcome, speaking


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def test_an_answer_in_every_form_that_frames_may_have() -> None:
    """103 first; headers and trailers padded, with a priority, in several frames, Huffman-coded; data padded; frames of no known type."""

    def act(link: Link, stream: int, _: bytes) -> None:
        encoder = hpack.Encoder()
        hints, head, tail = (
            encoder.encode(each, huffman=True) for each in ([(":status", "103")], OK, [("grpc-status", "16"), ("grpc-message", "no")])
        )
        link.socket.sendall(
            _frame(1, 0x4, stream, hints)
            + _frame(0xFA, 0xFF, stream, b"unknown")
            + _frame(1, 0x28, stream, b"\x03\0\0\0\0\x0f" + head[:1] + b"\0\0\0")
            + b"".join(_frame(9, 0x4 * (at == len(head) - 1), stream, head[at : at + 1]) for at in range(1, len(head)))
            + _frame(0, 0x8, stream, b"\xff" + EMPTY[:2] + bytes(255))
            + _frame(0, 0, stream, b"")
            + _frame(0, 0, stream, EMPTY[2:])
            + _frame(1, 0xD, stream, b"\x05" + tail + bytes(5))
        )

    found = outcome(act)
    assert (found.code, found.detail) == ("unauthenticated", "no")


def test_a_peer_that_changes_its_mind_in_the_middle_of_a_message() -> None:
    """A smaller window than was used already is a negative one (RFC 9113, 6.9.2)."""
    codes = h2.settings.SettingCodes
    payload = os.urandom(400_000)

    with socket.create_server(("127.0.0.1", 0)) as listener, client(listener.getsockname()[1]) as made:
        bodies: list[bytes] = []

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                link = Link(sock, {codes.INITIAL_WINDOW_SIZE: 100_000})
                link.changes = [{codes.INITIAL_WINDOW_SIZE: 1_000}, {codes.INITIAL_WINDOW_SIZE: 30_000}]
                link.serve(lambda link, stream, body: (bodies.append(body), link.answer(stream))[1])

        threading.Thread(target=serve, daemon=True).start()
        assert made.export(payload, 5) == Outcome()
    assert bodies[0][5:] == payload


@pytest.mark.parametrize("frame", [_frame(8, 0, 1, b"\x7f\xff\xff\xff"), _frame(8, 0, 0, b"\x7f\xff\xff\xff"), _frame(8, 0, 0, bytes(4))])
def test_a_window_beyond_all_bounds_ends_the_call(frame: bytes) -> None:
    found = outcome(lambda link, _stream, _: link.socket.sendall(frame * 2))
    assert found.code in ("unavailable", "internal")


def test_a_peer_that_takes_no_calls_at_all_may_be_tried_again() -> None:
    with speaking(settings={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 0}) as peer, client(peer.port) as made:
        assert made.export(PAYLOAD, 5).retryable


def _hung_up_on(last: Callable[[Link], None]) -> Outcome:
    """A call to a peer that does *last* after the headers, and closes the connection with a reset while the message is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener, client(listener.getsockname()[1]) as made:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                link = Link(sock, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
                link.h2.increment_flow_control_window(2**31 - 1 - 65_535)
                link.flush()
                while not link.h2.open_inbound_streams:
                    link.h2.receive_data(sock.recv(256))
                time.sleep(0.1)  # what is sent does not fit in between by now
                last(link)
                link.flush()

        threading.Thread(target=serve, daemon=True).start()
        return made.export(b"x" * 50_000_000, 5)


def test_an_answer_of_a_peer_that_hangs_up_on_the_message_counts() -> None:
    """Else the same request would be tried again for ever."""
    found = _hung_up_on(lambda link: link.h2.send_headers(1, [(":status", "401")], end_stream=True))
    assert found.code == "unauthenticated"


def test_a_peer_that_hangs_up_on_the_message_is_heard_out() -> None:
    found = _hung_up_on(lambda link: link.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM))
    assert (found.code, found.detail) == ("unavailable", "the collector ends the connection: enhance your calm")


def test_a_peer_that_hangs_up_without_a_word() -> None:
    found = _hung_up_on(lambda link: None)
    assert (found.code, found.detail in ("Connection reset by peer", "Broken pipe")) == ("unavailable", True)


def test_a_connection_is_not_used_again_after_half_a_frame() -> None:
    """The peer answers, with more pings behind than it takes answers to, and reads nothing more."""
    near, far = socket.socketpair()
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)

    def serve() -> None:
        link = Link(far, {})
        while not link.h2.open_inbound_streams:
            link.h2.receive_data(far.recv(65_536))
        link.answer(1)
        for _ in range(3000):
            link.h2.ping(b"12345678")
        link.flush()

    with near, far:
        threading.Thread(target=serve, daemon=True).start()
        deadline = time.monotonic() + 0.5
        made = Connection(Stream(near, Waker()), deadline)
        headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"h")]
        assert made.call(headers, [EMPTY], deadline).trailers == {b"grpc-status": b"0"}
        assert not made.usable()
