"""The sender against a real collector that refuses, vanishes, stalls and comes back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import grpc
import pytest

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.export.otlp.sender import Sender
from otel_hostmetrics.settings import Otlp, Seconds
from otel_hostmetrics.telemetry import Telemetry
from tests.export.otlp.build import batch, encoder, metric, series
from tests.export.otlp.collector import Tap, black_hole, fail, partial, retry_in, running


def _request(name="m", points=1, width=1):
    row = metric(name)
    (request,) = encoder().encode(batch((row, series(row, *(f"{i:0{width}}" for i in range(points))), [1] * points)))
    return request


@contextlib.contextmanager
def _sender(port, telemetry=None, **settings):
    sender = Sender(Otlp(endpoint=f"127.0.0.1:{port}", **settings), telemetry or Telemetry())
    try:
        yield sender
    finally:
        sender.close(0)


def _free_port():
    with running() as collector:
        return collector.port


def _counts(telemetry):
    """Values by (row, error.type)."""
    columns, measured = telemetry.read()
    found = {
        (row, one.attributes.get(rows.ERROR_TYPE, "")): value
        for row, column in columns.items()
        for one, value in zip(column.series, column.values, strict=True)
    }
    for each in measured:
        key = (each.series.metric, each.series.attributes.get(rows.ERROR_TYPE, ""))
        found[key] = found.get(key, 0) + 1
    return found


def _drained(sender):
    """Flush until done; each flush cuts one back-off short."""
    return any(sender.flush(0.2) for _ in range(30))


def _thread_ends():
    """Whether the sender's thread ends by itself, soon."""
    deadline = time.monotonic() + 2
    while any(thread.name.startswith("otlp") for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _lines(caplog, level=logging.INFO):
    return [record.getMessage() for record in caplog.records if record.name.startswith("otel_hostmetrics") and record.levelno >= level]


def test_requests_arrive_in_order_and_are_counted():
    telemetry = Telemetry()
    with running() as collector, _sender(collector.port, telemetry, queue_bytes=70_000) as sender:
        for i in range(5):
            sender.submit([_request(f"a{i}"), _request(f"b{i}", points=2)])
        assert sender.flush(5)
        assert collector.names() == [f"{side}{i}" for i in range(5) for side in "ab"]
        counts = _counts(telemetry)
    assert counts == {
        (rows.EXPORT_QUEUE_CAPACITY, ""): 70_000,
        (rows.EXPORT_QUEUE_SIZE, ""): 0,
        (rows.EXPORT_REQUESTS, ""): 10,
        (rows.EXPORT_POINTS, ""): 15,
        (rows.EXPORT_DURATION, ""): 10,
    }


def test_unavailable_is_tried_again_and_told_once(caplog):
    caplog.set_level(logging.INFO)
    telemetry = Telemetry()
    with running() as collector, _sender(collector.port, telemetry) as sender:
        collector.answers += [fail(grpc.StatusCode.UNAVAILABLE), fail(grpc.StatusCode.ABORTED)]
        sender.submit([_request("first"), _request("second")])
        collector.wait(1)
        assert _drained(sender)
        assert collector.names() == ["first", "second"]
        where = f"OTLP export to 127.0.0.1:{collector.port}"
    counts = _counts(telemetry)
    assert counts[rows.EXPORT_REQUESTS, "unavailable"] == counts[rows.EXPORT_DURATION, "aborted"] == 1
    assert counts[rows.EXPORT_POINTS, ""] == 2
    assert not [key for key in counts if key[0] is rows.EXPORT_DROPPED]
    first, last = _lines(caplog)
    assert first == f"{where} fails: unavailable: on purpose; retrying"
    assert last.startswith(f"{where} works again after ")
    assert last.endswith("lost 0 requests (0 points)")


def test_the_servers_delay_is_kept_even_by_a_flush():
    with running() as collector, _sender(collector.port) as sender:
        collector.answers.append(retry_in(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.6))
        sender.submit([_request()])
        collector.wait(1)
        assert sender.flush(5)
        assert 0.6 <= collector.times[1] - collector.times[0] < 1.5


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_final_error_loses_that_request_only(caplog, code):
    caplog.set_level(logging.INFO)
    telemetry = Telemetry()
    with running() as collector, _sender(collector.port, telemetry) as sender:
        for _ in range(3):  # cycles, each with one bad request
            collector.answers.append(fail(code))
            sender.submit([_request("bad", points=3), _request("good")])
            assert sender.flush(5)
        sender.submit([_request("fine")])
        assert sender.flush(5)
        assert collector.names() == ["good"] * 3 + ["fine"]
    name = code.name.lower()
    counts = _counts(telemetry)
    assert counts[rows.EXPORT_DROPPED, name] == counts[rows.EXPORT_REQUESTS, name] == 3
    assert (counts[rows.EXPORT_POINTS, name], counts[rows.EXPORT_POINTS, ""]) == (9, 4)
    first, last = _lines(caplog)
    assert f"{name}: on purpose; such requests are dropped" in first
    assert last.endswith("lost 3 requests (9 points)")


def test_partial_success_is_counted_and_each_message_told_once(caplog):
    telemetry = Telemetry()
    with running() as collector, _sender(collector.port, telemetry) as sender:
        collector.answers += [
            partial(2, "too old"),
            partial(1, "too old"),
            partial(1, "too\nnew"),
            partial(0, "be careful"),
            partial(0, "be careful"),
            partial(99, "too old"),
            partial(1, "be careful"),
        ]
        for _ in range(7):
            sender.submit([_request(points=3)])
        assert sender.flush(5)
    counts = _counts(telemetry)
    assert counts[rows.EXPORT_POINTS, "rejected"] == 2 + 1 + 1 + 0 + 0 + 3 + 1  # no more than there were
    assert counts[rows.EXPORT_POINTS, ""] == 21 - 8
    assert [line.split(f":{collector.port} ")[1] for line in _lines(caplog)] == [
        "rejected 2 of 3 points: too old", "rejected 1 of 3 points: too new", "warns: be careful", "rejected 1 of 3 points: be careful",
    ]  # fmt: skip


def test_an_answer_that_is_not_protobuf_counts_as_accepted(caplog):
    telemetry = Telemetry()
    garbage = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\xff", None, None)
    server = grpc.server(__import__("concurrent.futures").futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("opentelemetry.proto.collector.metrics.v1.MetricsService", {"Export": garbage}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with _sender(port, telemetry) as sender:
        assert sender.deliver([_request()], 5) is None
    server.stop(None).wait()
    assert _counts(telemetry)[rows.EXPORT_POINTS, ""] == 1
    assert "malformed" in _lines(caplog)[0]


def test_an_outage_loses_nothing_that_fits_the_queue_and_ends_soon(caplog):
    caplog.set_level(logging.INFO)
    port = _free_port()
    with _sender(port) as sender:
        sender._failures = 9  # as after a long outage: the next delay is up to 30 s
        for i in range(20):
            sender.submit([_request(f"m{i}")])
        time.sleep(1.2)  # gRPC's own back-off has grown
        with running(f"127.0.0.1:{port}") as collector:
            began = time.monotonic()
            collector.wait(20)
            assert time.monotonic() - began < 3.5  # 1 s of gRPC's, 1 s of spreading, and slack
            assert sender.flush(5)
            assert collector.names() == [f"m{i}" for i in range(20)]
    assert len(_lines(caplog)) == 2  # it fails; it works again


def test_the_queue_drops_the_oldest_beyond_its_bytes(caplog):
    caplog.set_level(logging.INFO)
    telemetry = Telemetry()
    size = len(_request("m00", width=20_000).payload)
    port = _free_port()
    with _sender(port, telemetry, queue_bytes=4 * size + 10) as sender:
        for i in range(10):
            sender.submit([_request(f"m{i:02}", width=20_000)])
        counts = _counts(telemetry)
        assert 0 < counts[rows.EXPORT_QUEUE_SIZE, ""] <= 4 * size + 10
        assert counts[rows.EXPORT_DROPPED, "queue_full"] >= 5
        with running(f"127.0.0.1:{port}") as collector:
            assert sender.flush(8)
            assert collector.names()[-3:] == ["m07", "m08", "m09"]
            assert collector.names() == sorted(collector.names())
    counts = _counts(telemetry)
    lost = counts[rows.EXPORT_DROPPED, "queue_full"]
    assert lost + len(collector.names()) == 10
    assert counts[rows.EXPORT_POINTS, "queue_full"] == lost
    assert counts[rows.EXPORT_QUEUE_SIZE, ""] == 0
    assert len([line for line in _lines(caplog) if "full" in line]) == 1
    assert f"lost {lost} requests" in _lines(caplog)[-1]


def test_a_request_larger_than_the_queue_is_sent_all_the_same():
    with running() as collector, _sender(collector.port, queue_bytes=65_536) as sender:
        sender.submit([_request(width=100_000)])
        assert sender.flush(5)
        assert collector.names() == ["m"]


def test_submit_does_not_wait_for_a_collector_that_stalls():
    with black_hole() as port, _sender(port) as sender:
        requests = [_request()]
        began = time.monotonic()
        for _ in range(200):
            sender.submit(requests)
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("timeout", [0.2, 2.0])
def test_close_keeps_its_time_with_a_collector_that_stalls(timeout, caplog):
    telemetry = Telemetry()
    with black_hole() as port:
        sender = Sender(Otlp(endpoint=f"127.0.0.1:{port}"), telemetry)
        sender.submit([_request(), _request(points=2)])
        time.sleep(0.1)  # the first is under way
        began = time.monotonic()
        sender.close(timeout)
        assert time.monotonic() - began < timeout + 0.2
        assert _thread_ends()
    counts = _counts(telemetry)
    assert (counts[rows.EXPORT_DROPPED, "shutdown"], counts[rows.EXPORT_POINTS, "shutdown"]) == (2, 3)
    assert counts[rows.EXPORT_QUEUE_SIZE, ""] == 0
    assert "2 requests (3 points) undelivered" in _lines(caplog)[-1]


def test_close_keeps_its_time_with_no_collector_at_all():
    sender = Sender(Otlp(endpoint=f"127.0.0.1:{_free_port()}"), Telemetry())
    sender.submit([_request()])
    began = time.monotonic()
    sender.close(0.6)
    assert time.monotonic() - began < 0.7
    assert _thread_ends()


def test_close_delivers_what_is_queued_and_may_be_called_again():
    telemetry = Telemetry()
    with running() as collector:
        sender = Sender(Otlp(endpoint=f"127.0.0.1:{collector.port}"), telemetry)
        sender.submit([_request(f"m{i}") for i in range(50)])
        sender.close(5)
        sender.close(5)
        assert len(collector.accepted) == 50
        sender.submit([_request()])  # too late: counted, not raised
    assert _counts(telemetry)[rows.EXPORT_DROPPED, "shutdown"] == 1


def test_a_connection_that_went_dead_is_replaced():
    with running() as collector:
        tap = Tap(collector.port)
        with _sender(tap.port, timeout=Seconds(0.3)) as sender:
            sender.submit([_request("before")])
            assert sender.flush(5)
            tap.plugged = True  # as when a firewall forgot the connection: nothing passes, nobody closes it
            sender.submit([_request("after")])
            time.sleep(0.1)
            tap.plugged = False  # for new connections
            collector.wait(2)
            assert sender.flush(5)
            assert collector.names() == ["before", "after"]
            assert tap.connections >= 2
        tap.close()


def test_deliver_says_what_went_wrong_in_one_line():
    telemetry = Telemetry()
    with running() as collector, _sender(collector.port, telemetry) as sender:
        where = f"127.0.0.1:{collector.port}"
        assert sender.deliver([_request("a"), _request("b")], 5) is None
        collector.answers.append(fail(grpc.StatusCode.PERMISSION_DENIED, "no\nkey"))
        assert sender.deliver([_request("c")], 5) == f"OTLP export to {where} failed: permission_denied: no key"
        collector.answers.append(partial(1, "too old"))
        assert sender.deliver([_request("d"), _request("e")], 5) == f"collector {where} rejected 1 points: too old"
        assert collector.names() == ["a", "b", "d", "e"]
        assert "otlp" not in [thread.name for thread in threading.enumerate()]
    assert _counts(telemetry)[rows.EXPORT_POINTS, "permission_denied"] == 1


def test_deliver_keeps_its_time():
    with black_hole() as port, _sender(port) as sender:
        began = time.monotonic()
        assert "deadline_exceeded" in sender.deliver([_request()], 0.3)
        assert time.monotonic() - began < 0.6


def test_headers_are_never_logged(caplog):
    caplog.set_level(logging.DEBUG)
    with running() as collector, _sender(collector.port, headers={"authorization": "Bearer hunter2"}) as sender:
        collector.answers += [fail(grpc.StatusCode.UNAVAILABLE), fail(grpc.StatusCode.UNAUTHENTICATED), partial(1, "x")]
        sender.submit([_request(), _request()])
        collector.wait(1)
        assert _drained(sender)
        assert collector.metadata[0]["authorization"] == "Bearer hunter2"
    assert caplog.records
    assert "hunter2" not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("hpack", "h2"))], "whole blocks of headers"
