"""Answers, without a socket."""

from __future__ import annotations

import json
import socket
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics import __version__
from otel_hostmetrics.export.prometheus.address import bind, parse_listen
from otel_hostmetrics.export.prometheus.routes import Request, Routes
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.model import Batch
from tests.export.prometheus.batches import agent_batch

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


def routes(latest: Batch | None = None) -> Routes:
    return Routes(Page({"service.name": "agent"}), agent_batch, lambda: latest)


def test_metrics_in_the_format_asked_for():
    text = routes().answer(Request("GET", "/metrics"))
    assert (text.status, text.content_type, text.route) == (200, Format.TEXT.value, "/metrics")
    openmetrics = routes().answer(Request("GET", "/metrics?x=1", accept=OPENMETRICS))
    assert openmetrics.content_type == Format.OPENMETRICS.value
    assert openmetrics.body.endswith(b"# EOF\n")
    assert ("Vary", "Accept, Accept-Encoding") in openmetrics.headers


def test_a_large_body_is_compressed_if_the_client_takes_it():
    plain = routes().answer(Request("GET", "/metrics"))
    packed = routes().answer(Request("GET", "/metrics", accept_encoding="gzip"))
    assert ("Content-Encoding", "gzip") in packed.headers
    assert zlib.decompress(packed.body, wbits=31) == plain.body
    assert ("Content-Encoding", "gzip") not in routes().answer(Request("GET", "/health", accept_encoding="gzip")).headers


@pytest.mark.parametrize("path", ["/-/healthy", "/health"])
def test_healthy_is_a_plain_ok(path):
    response = routes().answer(Request("GET", path))
    assert (response.status, response.body, response.route) == (200, b"OK\n", path)


@pytest.mark.parametrize("path", ["/-/ready", "/ready"])
def test_ready_after_the_first_cycle_and_says_how_each_source_fares(path):
    before = routes().answer(Request("GET", path))
    assert (before.status, json.loads(before.body)) == (503, {"ready": False, "sources": {}})
    after = routes(agent_batch()).answer(Request("GET", path))
    assert (after.status, after.content_type) == (200, "application/json")
    rdma = {"state": "failed", "reason": "denied", "detail": 'netlink <"rdma">', "needs": "CAP_NET_ADMIN"}
    assert json.loads(after.body) == {"ready": True, "sources": {"bpf": {"state": "ok"}, "rdma": rdma}}


def test_the_landing_page_names_version_links_and_sources_escaped():
    body = routes(agent_batch()).answer(Request("GET", "/")).body.decode()
    assert __version__ in body
    assert 'href="/metrics"' in body
    assert "<li>rdma is failed (netlink &lt;&quot;rdma&quot;&gt;); needs CAP_NET_ADMIN</li>" in body
    assert "<li>bpf is ok</li>" in body
    assert "no cycle yet" in routes().answer(Request("GET", "/")).body.decode()


@pytest.mark.parametrize(
    ("target", "route"), [("/metrics?a=/b", "/metrics"), ("http://h:1/metrics?a", "/metrics"), ("http://h", "/"), ("*", "/")]
)
def test_forms_of_a_target(target, route):
    assert routes().answer(Request("GET", target)).route == route


def test_unknown_paths_are_one_route():
    response = routes().answer(Request("GET", "/etc/passwd"))
    assert (response.status, response.route) == (404, "other")


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PRI"])
def test_other_methods_are_refused_with_what_is_allowed(method):
    response = routes().answer(Request(method, "/metrics"))
    assert (response.status, response.headers) == (405, (("Allow", "GET, HEAD"),))


def test_a_failed_scrape_is_a_500_reported_once_per_kind(caplog):
    errors = iter([KeyError("secret"), KeyError("b"), OSError("c")])

    def scrape() -> Batch:
        raise next(errors)

    failing = Routes(Page({}), scrape, agent_batch)
    answers = [failing.answer(Request("GET", "/metrics")) for _ in range(3)]
    assert [answer.status for answer in answers] == [500, 500, 500]
    assert answers[0].body == b"/metrics failed: KeyError, see the agent's log\n"
    assert len(caplog.records) == 2


@given(st.text(), st.text(), st.text(), st.text())
def test_any_request_has_an_answer(method, target, accept, accept_encoding):
    assert routes().answer(Request(method, target, accept, accept_encoding)).status in (200, 404, 405, 503)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9464", ("localhost", 9464)), ("0", ("localhost", 0)), ("0.0.0.0:9464", ("0.0.0.0", 9464)), ("[::1]:9464", ("::1", 9464)),
        ("[::]:1", ("::", 1)), ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)), ("node-1.example:80", ("node-1.example", 80)),
        (" 9464 ", ("localhost", 9464)), ("*:9464", ("*", 9464)), ("[10.0.0.1]:9464", ("10.0.0.1", 9464)),
    ],
)  # fmt: skip
def test_listen_addresses(text, expected):
    assert parse_listen(text) == expected


def test_every_address_is_of_either_version():
    with bind("*", 0) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", *(["::1"] if listener.family == socket.AF_INET6 else [])):
            socket.create_connection((address, port)).close()


@pytest.mark.parametrize(
    "text", ["", ":9464", "::1:9464", "host", "host:", "host:http", "1:2:3", "65536", "a b:1", "[::1]", "[]:1", "-1", "٣"]
)
def test_what_is_no_listen_address_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^expected \[HOST:\]PORT such as [^\n]*$"):
        parse_listen(text)
