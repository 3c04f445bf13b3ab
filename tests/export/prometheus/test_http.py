"""The scrape endpoint over real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import h11
import pytest

from otel_hostmetrics.catalogue import agent
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.prometheus.http import Server
from otel_hostmetrics.export.prometheus.routes import Routes
from otel_hostmetrics.export.prometheus.text import Page
from otel_hostmetrics.model import Batch
from otel_hostmetrics.settings import Prometheus, Seconds
from otel_hostmetrics.telemetry import Telemetry
from tests.export.prometheus.batches import agent_batch, batch, column

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


class Running:
    """A server on a port of its own, and what it counted."""

    def __init__(self, scrape: Callable[[], Batch] = agent_batch, timeout: float = 5.0, connections: int = 8) -> None:
        self.telemetry = Telemetry()
        self.measured: list[dict[str, object]] = []
        settings = Prometheus(header_timeout=Seconds(timeout), idle_timeout=Seconds(timeout), max_connections=connections)
        self.server = Server(settings, ("localhost", 0), Routes(Page({}), scrape, lambda: None), self.telemetry)
        self.server.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.address, timeout=5)

    def rejected(self) -> dict[str, int]:
        columns, _ = self.telemetry.read()
        found = columns.get(agent.HTTP_REJECTED)
        return {one.attributes["error.type"]: value for one, value in zip(found.series, found.values, strict=True)} if found else {}

    def eventually(self, condition: Callable[[], bool]) -> None:
        limit = time.monotonic() + 3
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.005)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts servers; afterwards none has left a thread or a descriptor."""
    before = set(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:

        def one(**arguments) -> Running:
            running = Running(**arguments)
            stack.callback(running.server.close)
            return running

        yield one
    assert not [thread for thread in threading.enumerate() if thread.name == "prometheus"]
    assert set(os.listdir("/proc/self/fd")) <= before


def large() -> Batch:
    """A page larger than what socket buffers on loopback take (about 6 MB)."""
    metric = Metric("large", Kind.GAUGE, "", "", "x", ("id", "text"))
    return batch((metric, column(metric, *(({"id": str(i), "text": "x" * 1000}, i) for i in range(12_000)))))


class Client:
    """h11 on the other side."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.http = h11.Connection(h11.CLIENT)

    def ask(self, method: str = "GET", target: str = "/metrics", **headers: str) -> None:
        fields = [("Host", "x"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        data = self.http.send(h11.Request(method=method, target=target, headers=fields))
        self.sock.sendall(data + (self.http.send(h11.EndOfMessage()) if "Content_Length" not in headers else b""))

    def take(self) -> tuple[int, dict[str, str], bytes]:
        body = bytearray()
        response = None
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(self.sock.recv(65536))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage)
                assert response is not None
                if self.http.our_state is h11.DONE and self.http.their_state is h11.DONE:
                    self.http.start_next_cycle()
                return response.status_code, {name.decode(): value.decode() for name, value in response.headers}, bytes(body)


def test_one_connection_serves_many_requests(start):
    with start().connect() as sock:
        client = Client(sock)
        for path, status in (("/metrics", 200), ("/health", 200), ("/nothing", 404), ("/ready", 503), ("/", 200), ("/metrics", 200)):
            client.ask(target=path)
            assert client.take()[0] == status


def test_head_has_the_headers_of_get_and_no_body(start):
    with start().connect() as sock:
        client = Client(sock)
        client.ask("GET")
        _, get, body = client.take()
        client.ask("HEAD")
        status, head, nothing = client.take()
    assert (status, nothing) == (200, b"")
    assert head["content-length"] == get["content-length"] == str(len(body))
    assert head["x-content-type-options"] == "nosniff"
    assert head["date"].endswith(" GMT")


def test_gzip_over_the_wire(start):
    with start().connect() as sock:
        client = Client(sock)
        client.ask(Accept_Encoding="gzip", Accept="application/openmetrics-text")
        _, headers, body = client.take()
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert zlib.decompress(body, wbits=31).endswith(b"# EOF\n")


def test_pipelined_requests_are_answered_in_order(start):
    with start().connect() as sock:
        sock.sendall(HEALTH * 50 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got = read_all(sock)
    assert got.count(b"HTTP/1.1 200") == 51
    assert got.rstrip().endswith(b"</html>")


def test_a_request_that_comes_byte_by_byte_is_answered(start):
    with start().connect() as sock:
        for i in range(len(HEALTH)):
            sock.sendall(HEALTH[i : i + 1])
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def test_http_1_0_is_answered_and_closed(start):
    with start().connect() as sock:
        sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert read_all(sock).endswith(b"\r\n\r\nOK\n")


def test_a_client_that_closes_its_half_still_gets_its_answer(start):
    with start().connect() as sock:
        sock.sendall(HEALTH * 3)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).count(b"HTTP/1.1 200") == 3


def test_other_methods_get_405_and_the_connection_stays(start):
    with start().connect() as sock:
        client = Client(sock)
        client.ask("POST")
        status, headers, _ = client.take()
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        client.ask()
        assert client.take()[0] == 200


@pytest.mark.parametrize(("method", "status"), [("GET", 413), ("POST", 405)])
def test_a_request_body_is_refused_before_it_is_read(start, method, status):
    with start().connect() as sock:
        client = Client(sock)
        client.ask(method, Content_Length="1000000000")
        assert client.take()[0] == status
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"x" * 100_000)
        assert sock.recv(1) == b""


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506),  # TLS ClientHello
        b"\x00" * 64,
        b"hello\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",  # no Host
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"a" * 40_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000,
    ],
    ids=["binary", "TLS", "zeros", "words", "HTTP/0.9", "no host", "two lengths", "long line", "many headers"],
)
def test_what_is_not_http_gets_no_answer(start, data):
    running = start()
    with running.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
        running.eventually(lambda: running.rejected() == {"not_http": 1})


def test_a_slow_head_runs_into_the_timeout_however_often_it_sends(start):
    running = start(timeout=0.2)
    with running.connect() as sock:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 2:
                sock.sendall(b"G" if time.monotonic() < began + 0.01 else b"E")
                sock.settimeout(0.02)
                with contextlib.suppress(TimeoutError):
                    assert sock.recv(1) == b""
                    break
        assert 0.15 < time.monotonic() - began < 1
        running.eventually(lambda: running.rejected() == {"timeout": 1})


def test_an_idle_connection_is_closed_and_no_rejection(start):
    running = start(timeout=0.1)
    with running.connect() as sock:
        sock.sendall(HEALTH)
        assert read_all(sock).endswith(b"OK\n")
    assert running.rejected() == {}


def test_a_connection_that_says_nothing_is_a_timeout(start):
    running = start(timeout=0.05)
    with running.connect() as sock:
        assert sock.recv(1) == b""
    running.eventually(lambda: running.rejected() == {"timeout": 1})


def test_too_many_connections_are_closed_at_once_and_places_come_free(start):
    running = start(connections=2)
    with running.connect(), running.connect():  # neither has asked yet
        with running.connect() as third, contextlib.suppress(ConnectionError):
            assert third.recv(1) == b""
        assert running.rejected() == {"limit": 1}
    running.eventually(lambda: running.telemetry.read()[0][agent.HTTP_CONNECTIONS].values == [0])
    with running.connect() as later:
        later.sendall(HEALTH)
        assert later.recv(4096).endswith(b"OK\n")


def test_idle_connections_make_place_the_one_idle_longest_first(start):
    running = start(connections=2)
    clients = [Client(running.connect()) for _ in range(2)]
    for client in (clients[1], clients[0], clients[1]):
        client.ask()
        assert client.take()[0] == 200
    late = Client(running.connect())
    late.ask()
    assert late.take()[0] == 200
    clients[1].ask()
    assert clients[1].take()[0] == 200
    assert clients[0].sock.recv(1) == b""
    assert running.rejected() == {}


def test_a_slow_reader_of_a_large_page_does_not_delay_others(start):
    page = large()
    running = start(scrape=lambda: page)
    with running.connect() as slow, running.connect() as quick:
        slow.sendall(GET)
        slow.recv(100)  # it has begun, and stands still
        began = time.monotonic()
        client = Client(quick)
        client.ask()
        _, _, body = client.take()
        assert len(body) > 12_000_000
        assert time.monotonic() - began < 2
        rest = 0
        while rest < len(body):
            rest += len(slow.recv(1 << 20))


def test_a_reader_that_stands_still_is_dropped(start):
    page = large()
    running = start(scrape=lambda: page, timeout=0.3)
    with running.connect() as slow:
        slow.sendall(GET)
        running.eventually(lambda: running.rejected() == {"timeout": 1})


def test_a_client_that_goes_during_the_response_costs_only_itself(start):
    page = large()
    running = start(scrape=lambda: page)
    with running.connect() as gone:
        gone.sendall(GET)
        gone.recv(100)
    with running.connect() as sock:
        sock.sendall(HEALTH)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    assert running.rejected() == {}


def test_a_request_that_waits_for_a_long_scrape_is_not_late(start):
    entered = threading.Event()

    def scrape() -> Batch:
        entered.set()
        time.sleep(0.3)
        return agent_batch()

    running = start(scrape=scrape, timeout=0.2)
    with running.connect() as one, running.connect() as two:
        one.sendall(GET)
        assert entered.wait(2)
        two.sendall(HEALTH)
        assert two.recv(4096).startswith(b"HTTP/1.1 200")
        assert one.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_failing_scrape_is_a_500_and_the_server_lives_on(start):
    def scrape() -> Batch:
        raise RuntimeError("no")

    with start(scrape=scrape).connect() as sock:
        client = Client(sock)
        for path, status in (("/metrics", 500), ("/metrics", 500), ("/health", 200)):
            client.ask(target=path)
            assert client.take()[0] == status


def test_what_was_served_is_measured_by_route_never_by_the_clients_text(start):
    running = start()
    with running.connect() as sock:
        client = Client(sock)
        for method, path in (("GET", "/metrics?x"), ("GET", "/a/b"), ("BREW", "/health"), ("GET", "/health")):
            client.ask(method, path)
            client.take()
    running.server.close()  # the last one is measured after the client has it
    _, measured = running.telemetry.read()
    assert [tuple(one.series.attributes.values()) for one in measured if one.series.metric is agent.HTTP_DURATION] == [
        ("GET", "/metrics", 200),
        ("GET", "other", 404),
        ("_OTHER", "/health", 405),
        ("GET", "/health", 200),
    ]
    assert all(0 < one.value < 1 for one in measured)


def test_close_is_prompt_with_clients_connected_and_may_be_repeated(start):
    running = start()
    with running.connect() as sock:
        sock.sendall(HEALTH)
        sock.recv(4096)
        began = time.monotonic()
        running.server.close()
        running.server.close()
        assert time.monotonic() - began < 0.5
        assert sock.recv(1) == b""


def test_close_before_start_does_nothing():
    Server(Prometheus(), ("localhost", 0), Routes(Page({}), agent_batch, lambda: None), Telemetry()).close()


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [("203.0.113.1", 9464, "203.0.113.1:9464"), ("name.invalid", 1, "name.invalid:1"), ("2001:db8::1", 1, "[2001:db8::1]:1")],
)
def test_an_address_that_cannot_be_had_is_named(host, port, reason, start):
    server = Server(Prometheus(), (host, port), Routes(Page({}), agent_batch, lambda: None), Telemetry())
    with pytest.raises(Unavailable) as caught:
        server.start()
    assert f"listening on {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_port_in_use_is_named(start):
    host, port = start().server.address
    server = Server(Prometheus(), (host, port), Routes(Page({}), agent_batch, lambda: None), Telemetry())
    with pytest.raises(Unavailable, match="Address already in use") as caught:
        server.start()
    assert caught.value.reason is Reason.UNREADABLE


def test_ipv6(start):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    server = Server(Prometheus(), ("::1", 0), Routes(Page({}), agent_batch, lambda: None), Telemetry())
    server.start()
    try:
        with socket.create_connection(server.address, timeout=5) as sock:
            sock.sendall(HEALTH)
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        server.close()


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_request_seen_before_gets_the_same_answer_as_the_first_time(start, method):
    """On the same connection and on a new one: status, every header but the date, body."""
    running = start()
    request = method + b" /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
    first, second = running.connect(), running.connect()
    answers = []
    with first, second:
        for client in (first, first, second, first):
            client.sendall(request)
            head, _, body = _whole(client, method)
            answers.append(([line for line in head.split(b"\r\n") if not line.startswith(b"Date:")], body))
    assert answers[0][0][0] == b"HTTP/1.1 200 OK"
    assert all(answer == answers[0] for answer in answers)


def test_a_known_request_with_more_behind_it_is_two_requests(start):
    running = start()
    with running.connect() as client:
        for sent, wanted in ((GET, 1), (GET + HEALTH, 2), (GET, 1)):
            client.sendall(sent)
            for _ in range(wanted):
                assert _whole(client, b"GET")[0].startswith(b"HTTP/1.1 200")


def test_a_known_request_in_two_pieces_is_still_one(start):
    running = start()
    with running.connect() as client:
        client.sendall(GET)
        _whole(client, b"GET")
        client.sendall(GET[:20])
        time.sleep(0.05)
        client.sendall(GET[20:])
        assert _whole(client, b"GET")[0].startswith(b"HTTP/1.1 200")


def _whole(client: socket.socket, method: bytes) -> tuple[bytes, bytes, bytes]:
    """One response: head, blank line, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1)
    head, blank, body = data.partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")).split(b":")[1])
    while method != b"HEAD" and len(body) < length:
        body += client.recv(length - len(body))
    return head, blank, body
