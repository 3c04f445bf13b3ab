"""Calls over HTTP/2 to peers that answer in every way a peer may."""

from __future__ import annotations

import base64
import contextlib
import gc
import gzip
import os
import socket
import threading
import time
from collections.abc import Iterator

import h2.errors
import h2.settings
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otel_hostmetrics.export.otlp.client import Client, Outcome
from otel_hostmetrics.export.otlp.dial import Dialer
from otel_hostmetrics.export.otlp.response import PartialSuccess
from otel_hostmetrics.export.otlp.stream import Waker
from otel_hostmetrics.settings import Otlp
from tests.export.otlp.collector import black_hole
from tests.export.otlp.peer import EMPTY, OK, PAYLOAD, Link, client, outcome, speaking


def test_one_connection_for_many_calls_and_the_message_as_it_was() -> None:
    with speaking() as peer, client(peer.port) as made:
        assert [made.export(bytes((number,)) * number, 5).code for number in range(5)] == [""] * 5
        assert peer.bodies == [b"\0" + number.to_bytes(4, "big") + bytes((number,)) * number for number in range(5)]
        (link,) = peer.links
        assert (link.headers[":path"], link.headers["te"], link.headers["content-type"]) == (
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            "trailers",
            "application/grpc",
        )
        assert link.headers[":authority"] == f"127.0.0.1:{peer.port}"
        assert link.headers["grpc-timeout"] == "5000m"


@pytest.mark.parametrize("window", [1, 1000, 65_535, 1 << 20])
def test_a_message_larger_than_what_the_peer_takes_at_once(window: int) -> None:
    payload = os.urandom(3000 if window == 1 else 3_000_000)
    with speaking(settings={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}) as peer, client(peer.port) as made:
        assert made.export(payload, 30).code == ""
        assert peer.bodies[0][5:] == payload


def test_an_error_before_the_message_was_taken_whole() -> None:
    """The peer answers with an error as soon as it sees the headers, and takes nothing more."""

    def refuse(link: Link) -> None:
        link.h2.send_headers(1, [*OK, ("grpc-status", "8"), ("grpc-message", "too%20large")], end_stream=True)
        link.flush()

    with socket.create_server(("127.0.0.1", 0)) as listener, client(listener.getsockname()[1]) as made:
        done = threading.Event()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                link = Link(sock, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
                while not link.h2.open_inbound_streams:
                    link.h2.receive_data(sock.recv(65_536))
                refuse(link)
                done.wait(5)

        threading.Thread(target=serve, daemon=True).start()
        found = made.export(b"x" * 1000, 5)
        done.set()
    assert (found.code, found.detail) == ("resource_exhausted", "too large")


@pytest.mark.parametrize(
    ("status", "said", "code", "detail"),
    [
        ("0", "", "", ""),
        ("7", "no%20entry%3A %C3%A9", "permission_denied", "no entry: é"),
        ("14", "%zz%", "unavailable", "%zz%"),
        ("99", "", "unknown", ""),
        ("x", "", "unknown", ""),
    ],
)
def test_status_and_message(status: str, said: str, code: str, detail: str) -> None:
    found = outcome(lambda link, stream, _: link.answer(stream, status=status, grpc_message=said))
    assert (found.code, found.detail) == (code, detail)


def test_a_blank_at_the_end_of_what_the_server_says() -> None:
    """RFC 9113, 8.2.1, forbids it; servers in Go send an error's text as it is."""
    found = outcome(lambda link, stream, _: link.answer(stream, status="3", grpc_message=" no such metric: "))
    assert (found.code, found.detail, found.retryable) == ("invalid_argument", "no such metric:", False)


@pytest.mark.parametrize(
    ("status", "said", "retryable", "hinted"),
    [
        ("8", "grpc: received message larger than max (2944837 vs. 1048576)", False, True),
        ("8", "grpc: received message after decompression larger than max 1048576", False, True),
        ("11", "Error, decoded message length too large: found 2944837 bytes, the limit is: 1048576 bytes", False, True),
        ("11", "not yet", True, False),
    ],
    ids=["grpc-go", "grpc-go, compressed", "tonic", "of another range"],
)
def test_a_request_that_is_too_large_is_not_sent_again(status: str, said: str, retryable: bool, hinted: bool) -> None:
    """It would be as large the next time, and keep all others waiting."""
    found = outcome(lambda link, stream, _: link.answer(stream, status=status, grpc_message=said))
    assert found.retryable is retryable
    assert ("otlp.max_request_bytes" in str(found)) is hinted


def test_a_server_that_wants_a_token_is_told_with_the_cure() -> None:
    found = outcome(lambda link, stream, _: link.answer(stream, status="16", grpc_message="missing authorization metadata"))
    assert "(otlp.headers: " in str(found)


def test_trailers_only_with_a_delay() -> None:
    """google.rpc.Status with RetryInfo of 1.5 s, without the padding of base64."""
    duration = b"\x08\x01\x10\x80\xca\xb5\xee\x01"
    info = b"\x0a" + bytes((len(duration),)) + duration
    kind = b"type.googleapis.com/google.rpc.RetryInfo"
    detail = b"\x0a" + bytes((len(kind),)) + kind + b"\x12" + bytes((len(info),)) + info
    status = base64.b64encode(b"\x1a" + bytes((len(detail),)) + detail).rstrip(b"=").decode()

    def act(link: Link, stream: int, _: bytes) -> None:
        link.h2.send_headers(stream, [*OK, ("grpc-status", "8"), ("grpc-status-details-bin", status)], end_stream=True)

    found = outcome(act)
    assert (found.code, found.delay, found.retryable) == ("resource_exhausted", 1.5, True)


@pytest.mark.parametrize(
    ("http", "code"), [("404", "unimplemented"), ("401", "unauthenticated"), ("503", "unavailable"), ("418", "unknown")]
)
def test_a_server_that_is_none_of_grpc(http: str, code: str) -> None:
    def act(link: Link, stream: int, _: bytes) -> None:
        link.h2.send_headers(stream, [(":status", http), ("content-type", "text/html")])
        link.h2.send_data(stream, b"<html>", end_stream=True)

    found = outcome(act)
    assert (found.code, http in found.detail) == (code, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [("REFUSED_STREAM", "unavailable"), ("CANCEL", "cancelled"), ("INTERNAL_ERROR", "internal"), ("NO_ERROR", "internal")],
)
def test_a_call_that_is_cut_off(error: str, code: str) -> None:
    assert outcome(lambda link, stream, _: link.h2.reset_stream(stream, h2.errors.ErrorCodes[error])).code == code


def test_an_error_that_is_cut_off_behind_is_that_error() -> None:
    """As servers do that want nothing more of a request."""

    def act(link: Link, stream: int, _: bytes) -> None:
        link.h2.send_headers(stream, [*OK, ("grpc-status", "16")], end_stream=True)

    assert outcome(act).code == "unauthenticated"


def test_a_peer_that_never_falls_silent_does_not_hold_a_call() -> None:
    def act(link: Link, _stream: int, _: bytes) -> None:
        with contextlib.suppress(OSError):
            while True:
                link.h2.ping(b"12345678")
                link.flush()
                time.sleep(0.001)

    with speaking(act) as peer, client(peer.port) as made:
        began = time.monotonic()
        assert made.export(PAYLOAD, 0.5).code == "deadline_exceeded"
        assert time.monotonic() - began < 0.8


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\1\0\0\0\0", EMPTY + b"x", b"\0\0\0\0\2x"])
def test_an_answer_that_is_no_message(body: bytes) -> None:
    assert outcome(lambda link, stream, _: link.answer(stream, body)).code == "internal"


def test_an_endless_answer_ends() -> None:
    def act(link: Link, stream: int, _: bytes) -> None:
        link.h2.send_headers(stream, OK)
        for _round in range(600):
            if link.h2.local_flow_control_window(stream) < 16_384:
                link.flush()
                link.h2.receive_data(link.socket.recv(65_536))
            else:
                link.h2.send_data(stream, b"x" * 16_384)

    found = outcome(act)
    assert (found.code, "more than" in found.detail) == ("unavailable", True)


def test_a_connection_that_was_closed_meanwhile_costs_no_call() -> None:
    with speaking() as peer, client(peer.port) as made:
        assert made.export(PAYLOAD, 5).code == ""
        peer.links[0].socket.shutdown(socket.SHUT_RDWR)
        assert made.export(PAYLOAD, 5).code == ""
        assert len(peer.links) == 2


def test_a_peer_that_says_goodbye_is_left_for_a_new_connection() -> None:
    """GOAWAY after an answer: a server that is drained, or limits the age of connections."""

    def act(link: Link, stream: int, _: bytes) -> None:
        link.answer(stream)
        link.h2.close_connection(last_stream_id=stream)

    with speaking(act) as peer, client(peer.port) as made:
        assert [made.export(PAYLOAD, 5).code for _ in range(3)] == [""] * 3
        assert len(peer.links) == 3


def test_a_goodbye_that_comes_before_the_answer_does_not_cost_it() -> None:
    """As servers do that limit the age of connections: first of all streams there could be, then of those there are."""

    def act(link: Link, stream: int, _: bytes) -> None:
        for last in (2**31 - 1, stream):
            link.socket.sendall(b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + b"\0\0\0\0")
            time.sleep(0.02)
        link.answer(stream)

    with speaking(act) as peer, client(peer.port) as made:
        assert [made.export(PAYLOAD, 5) for _ in range(2)] == [Outcome()] * 2
        assert (len(peer.links), len(peer.bodies)) == (2, 2)


def test_goodbye_instead_of_an_answer_may_be_tried_again() -> None:
    def act(link: Link, _stream: int, _: bytes) -> None:
        link.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    found = outcome(act)
    assert (found.code, found.retryable) == ("unavailable", True)
    assert "enhance your calm" in found.detail


def test_a_goodbye_in_anger_behind_an_answer_does_not_cost_it() -> None:
    def act(link: Link, stream: int, _: bytes) -> None:
        link.answer(stream)
        link.h2.close_connection(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=stream)

    with speaking(act) as peer, client(peer.port) as made:
        assert [made.export(PAYLOAD, 5) for _ in range(2)] == [Outcome()] * 2
        assert (len(peer.links), len(peer.bodies)) == (2, 2)


def test_pings_between_calls_are_answered_with_the_next() -> None:
    with speaking() as peer, client(peer.port) as made:
        assert made.export(PAYLOAD, 5).code == ""
        peer.links[0].h2.ping(b"12345678")
        peer.links[0].flush()
        time.sleep(0.05)
        assert made.export(PAYLOAD, 5).code == ""
        assert [type(event).__name__ for event in peer.links[0].events].count("PingAckReceived") == 1


def test_a_connection_is_renewed_after_many_calls() -> None:
    with speaking() as peer, client(peer.port) as made:
        assert {made.export(PAYLOAD, 5).code for _ in range(1001)} == {""}
        assert len(peer.links) == 2


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_in_place_of_http2(garbage: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, client(listener.getsockname()[1]) as made:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65_536):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        found = made.export(PAYLOAD, 2)
        assert found.code == "unavailable"
        assert "\n" not in found.detail


def test_nobody_there_is_told() -> None:
    with black_hole() as port:
        pass
    with client(port) as made:
        assert str(made.export(PAYLOAD, 5)) == "unavailable: Connection refused"


def test_failed_attempts_leave_no_descriptor_behind() -> None:
    """Nor until the garbage collector comes."""
    with black_hole() as port:
        pass
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            with client(port) as made:
                assert made.export(PAYLOAD, 5).code == "unavailable"
        del made
        assert len(os.listdir("/proc/self/fd")) <= before
    finally:
        gc.enable()


def test_the_zone_of_an_address_is_this_hosts_only() -> None:
    """RFC 6874, 4: of no meaning to the server."""
    assert Dialer(Otlp(endpoint="[fe80::1%eth0]:1"), Waker(), {}).authority == "[fe80::1]:1"


def test_a_name_without_address() -> None:
    made = Client(Otlp(endpoint="nowhere.invalid:4317"))
    found = made.export(PAYLOAD, 5)
    made.close()
    assert (found.code, "not known" in found.detail or "resolution" in found.detail) == ("unavailable", True), found


@contextlib.contextmanager
def full() -> Iterator[int]:
    """A port whose queue of connections is full: another one is not even refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("hang", [full, black_hole])
def test_close_ends_a_call_wherever_it_waits(hang: object) -> None:
    with hang() as port:  # type: ignore[operator]
        made = Client(Otlp(endpoint=f"127.0.0.1:{port}"))
        found: list[Outcome] = []
        calling = threading.Thread(target=lambda: found.append(made.export(PAYLOAD, 30)))
        calling.start()
        time.sleep(0.1)
        began = time.monotonic()
        made.close()
        calling.join(5)
        assert time.monotonic() - began < 0.5
    assert (found[0].code, found[0].retryable) == ("cancelled", True)
    assert made.export(PAYLOAD, 5).code == "cancelled"


@pytest.mark.parametrize("hang", [full, black_hole])
def test_a_call_keeps_its_time_wherever_it_waits(hang: object) -> None:
    with hang() as port, client(port) as made:  # type: ignore[operator]
        began = time.monotonic()
        assert made.export(PAYLOAD, 0.3).code == "deadline_exceeded"
        assert 0.3 <= time.monotonic() - began < 0.6


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    """localhost is ::1 first; the peer listens on 127.0.0.1 only."""
    with speaking() as peer:
        made = Client(Otlp(endpoint=f"localhost:{peer.port}"))
        assert made.export(PAYLOAD, 5).code == ""
        made.close()


def test_returns_tells_of_lost_connections_only() -> None:
    with speaking() as peer, client(peer.port) as made:
        assert made.export(PAYLOAD, 5).code == ""
        assert not made.returns(1), "none is lost"
    with black_hole() as port:
        pass
    with client(port) as made:
        assert made.export(PAYLOAD, 5).code == "unavailable"
        assert not made.returns(0.2), "it is still away"


def test_a_server_that_says_controls_of_terminals_is_told_without() -> None:
    found = outcome(lambda link, stream, _: link.answer(stream, status="7", grpc_message="a%1B[31m%00b%0Ac"))
    assert found.detail == "a\ufffd[31m\ufffdb c"


def test_a_long_timeout_is_said_in_eight_digits() -> None:
    with speaking() as peer, client(peer.port) as made:
        assert made.export(PAYLOAD, 1e6).code == ""
        assert peer.links[0].headers["grpc-timeout"] == "99999999m"


def test_a_peer_that_never_falls_silent_does_not_hold_the_next_call() -> None:
    """Pings, without a pause, once there was an answer."""

    def act(link: Link, stream: int, _: bytes) -> None:
        link.answer(stream)
        link.flush()
        link.h2.ping(b"12345678")
        pings = link.h2.data_to_send() * 10_000
        with contextlib.suppress(OSError):
            while True:
                link.socket.sendall(pings)

    with speaking(act) as peer, client(peer.port) as made:
        assert made.export(PAYLOAD, 5).code == ""
        time.sleep(0.1)
        began = time.monotonic()
        made.export(PAYLOAD, 0.5)
        assert time.monotonic() - began < 1


def test_gzip_is_said_and_done() -> None:
    with speaking() as peer, client(peer.port, compression="gzip") as made:
        assert made.export(PAYLOAD * 1000, 5).code == ""
        assert peer.links[0].headers["grpc-encoding"] == "gzip"
        assert peer.bodies[0][0] == 1
        assert gzip.decompress(peer.bodies[0][5:]) == PAYLOAD * 1000


@pytest.mark.parametrize(
    ("encoding", "content", "found"),
    [
        ("gzip", gzip.compress(b""), Outcome()),
        ("gzip", gzip.compress(b"\x0a\x04\x08\x02\x12\0"), Outcome(partial=PartialSuccess(2))),
        ("gzip", gzip.compress(b"\0" * (5 << 20)), Outcome("internal", "an answer that is no message")),
        ("gzip", gzip.compress(b"")[:-1], Outcome("internal", "an answer that is no message")),
        ("gzip", b"x", Outcome("internal", "an answer that is no message")),
        ("zstd", gzip.compress(b""), Outcome("internal", "an answer that is no message")),
    ],
    ids=["empty", "partial success", "too large", "cut off", "garbage", "another compression"],
)
def test_an_answer_that_is_compressed_as_the_request_was(encoding: str, content: bytes, found: Outcome) -> None:
    """As servers in Go answer, asked or not."""

    def act(link: Link, stream: int, _: bytes) -> None:
        link.h2.send_headers(stream, [*OK, ("grpc-encoding", encoding)])
        link.h2.send_data(stream, b"\1" + len(content).to_bytes(4, "big") + content)
        link.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    with speaking(act) as peer, client(peer.port, compression="gzip") as made:
        assert made.export(PAYLOAD, 5) == found
