"""Endpoints, headers and certificates: what is refused, and that what is accepted connects."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics import __version__
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.otlp import channel, tls
from otel_hostmetrics.export.otlp.sender import Sender
from otel_hostmetrics.export.otlp.stream import Waker
from otel_hostmetrics.settings import Otlp, Seconds
from otel_hostmetrics.telemetry import Telemetry
from tests.export.otlp.build import batch, encoder, metric, series
from tests.export.otlp.certificates import Authority
from tests.export.otlp.collector import Tap, running


def _request(name="m", text="a"):
    row = metric(name)
    return encoder().encode(batch((row, series(row, text), [1])))


def _deliver(**settings):
    """One request with these settings; what deliver() says."""
    sender = Sender(Otlp(timeout=Seconds(3), **settings), Telemetry())
    try:
        return sender.deliver(_request(), 5)
    finally:
        sender.close(0)


@pytest.mark.parametrize(
    ("endpoint", "name", "tls"),
    [
        ("localhost:4317", "localhost:4317", False),
        ("otel_collector", "otel_collector:4317", False),
        (" 10.0.0.1:55680 ", "10.0.0.1:55680", False),
        ("[::1]:4317", "[::1]:4317", False),
        ("[fe80::1]", "[fe80::1]:4317", False),
        ("[10.0.0.1]:4317", "10.0.0.1:4317", False),
        ("http://host", "host:4317", False),
        ("http://host:80/", "host:80", False),
        ("https://host", "host:4317", True),
        ("HTTPS://[::1]:443", "[::1]:443", True),
        ("unix:/run/otlp.sock", "unix:/run/otlp.sock", False),
        ("unix:///run/otlp.sock", "unix:/run/otlp.sock", False),
        (f"unix:/{'x' * 106}", f"unix:/{'x' * 106}", False),
        ("dns:///collector", "dns:///collector:4317", False),
        ("dns:///collector:9", "dns:///collector:9", False),
    ],
)
def test_endpoints(endpoint, name, tls):
    assert channel.parse(endpoint) == (name, tls)


@pytest.mark.parametrize(
    ("endpoint", "insecure", "certificates", "tls"),
    [
        ("h", None, False, False),
        ("h", None, True, True),
        ("h", True, True, False),
        ("h", False, False, True),
        ("dns:///h", None, True, True),
        ("unix:/s", False, False, True),
        ("http://h", False, True, False),
        ("https://h", True, False, True),
    ],
)
def test_tls_is_decided_by_scheme_then_insecure_then_certificates(endpoint, insecure, certificates, tls):
    assert channel.parse(endpoint, insecure, certificates).tls is tls


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("", "HOST:PORT"),
        (":4317", "HOST:PORT"),
        ("host:", "HOST:PORT"),
        ("host:http", "HOST:PORT"),
        ("host:0", "not a port"),
        ("host:65536", "not a port"),
        ("::1", "brackets"),
        ("[::1", "brackets"),
        ("[nonsense]:1", "brackets"),
        ("[fe80::1%a\nb]:1", "brackets"),
        ("ho st", "HOST:PORT"),
        ("a\nb", "HOST:PORT"),
        ("http://", "HOST:PORT"),
        ("http://host:4318/v1/metrics", "no path"),
        ("ftp://host", "unknown scheme ftp"),
        ("unix:run/otlp.sock", "HOST:PORT"),
        ("unix://run/otlp.sock", "absolute path"),
        ("unix:/", "absolute path"),
        (f"unix:/{'x' * 107}", "107 bytes"),
        (f"unix:/{'é' * 54}", "107 bytes"),
        ("dns:///", "HOST:PORT"),
        ("dns:/host", "unknown scheme"),
        ("dns://10.0.0.53/collector:9", "as the host resolves"),
    ],
)
def test_garbage_is_refused_in_one_line(endpoint, says):
    with pytest.raises(ValueError, match=says) as error:
        channel.parse(endpoint)
    assert "\n" not in str(error.value)


@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_a_value_error(text):
    try:
        target = channel.parse(text)
    except ValueError as error:
        assert str(error).startswith("otlp.endpoint: ")  # noqa: PT017 - either outcome is right
    else:
        assert "\n" not in target.name


def test_a_password_in_the_endpoint_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="headers") as error:
        channel.parse("https://user:hunter2@host")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("headers", [{"bad key": "secret"}, {"": "secret"}, {"k": "sec\nret"}, {"k": "sécret"}, {"grpc-timeout": "secret"}])
def test_a_header_grpc_cannot_send_is_refused_by_its_key(headers):
    with pytest.raises(ValueError, match=r"otlp\.headers") as error:
        Sender(Otlp(endpoint="localhost", headers=headers), Telemetry())
    assert "ret" not in str(error.value)


@pytest.mark.parametrize("name", ["Connection", "content-length", "content-type", "host", "keep-alive", "te", "upgrade"])
def test_a_header_that_is_https_own_is_refused_by_its_key(name):
    """HTTP/2 would fail each call, with the value in its error, or the collector would."""
    with pytest.raises(ValueError, match=r"otlp\.headers") as error:
        Sender(Otlp(endpoint="localhost", headers={name: "hunter2"}), Telemetry())
    assert "hunter2" not in str(error.value)


def test_headers_and_user_agent_reach_the_collector():
    with running() as collector:
        assert _deliver(endpoint=f"127.0.0.1:{collector.port}", headers={"X-Api-Key": "k 1", "trace-bin": "raw"}) is None
        (metadata,) = collector.metadata
    assert (metadata["x-api-key"], metadata["trace-bin"]) == ("k 1", b"raw")
    assert metadata["user-agent"].startswith(f"otel-hostmetrics/{__version__} ")


@pytest.mark.parametrize(("compression", "smaller"), [("none", False), ("gzip", True)])
def test_gzip_saves_bytes_on_the_wire(compression, smaller):
    (request,) = _request(text="a" * 100_000)
    with running() as collector:
        tap = Tap(collector.port)
        sender = Sender(Otlp(endpoint=f"127.0.0.1:{tap.port}", compression=compression), Telemetry())
        assert sender.deliver([request], 5) is None
        sender.close(0)
        tap.close()
        assert collector.accepted[0].SerializeToString(deterministic=True)
    assert (tap.seen < 20_000) is smaller


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}"])
def test_unix_socket(tmp_path, form):
    path = tmp_path / "otlp.sock"
    with running(f"unix:{path}") as collector:
        assert _deliver(endpoint=form.format(path)) is None
        assert collector.names() == ["m"]


def test_round_robin_over_dns():
    with running("localhost:0") as collector:
        assert _deliver(endpoint=f"dns:///localhost:{collector.port}") is None


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


def _server(authority, clients=False):
    certificate, key = authority.issue("localhost")
    pair = [(key.read_bytes(), certificate.read_bytes())]
    return grpc.ssl_server_credentials(pair, authority.ca.read_bytes() if clients else None, clients)


@pytest.mark.parametrize("scheme", ["https://", ""])
def test_tls_with_a_private_ca(authority, scheme):
    with running("localhost:0", _server(authority)) as collector:
        assert _deliver(endpoint=f"{scheme}localhost:{collector.port}", ca_file=str(authority.ca)) is None
        assert collector.names() == ["m"]


def test_a_name_that_is_whole_is_that_of_the_certificate(authority):
    """With a dot at its end no search domain is tried; certificates are without."""
    with running("localhost:0", _server(authority)) as collector, socket.create_connection(("localhost", collector.port)) as sock:
        sock.setblocking(False)
        made = tls.context(Otlp(ca_file=str(authority.ca)))
        tls.TlsStream(sock, Waker(), made, "localhost.", time.monotonic() + 5).close()


def test_a_large_request_with_tls(authority):
    with running("localhost:0", _server(authority)) as collector:
        sender = Sender(Otlp(endpoint=f"https://localhost:{collector.port}", ca_file=str(authority.ca)), Telemetry())
        assert sender.deliver(_request(text="a" * 3_000_000), 5) is None
        assert len(collector.accepted[0].SerializeToString()) > 3_000_000
        sender.close(0)


def test_tls_without_the_ca_is_refused_in_one_line_that_says_what_to_do(authority):
    with running("localhost:0", _server(authority)) as collector:
        said = _deliver(endpoint=f"https://localhost:{collector.port}")
    assert "unavailable" in said
    assert "\n" not in said
    assert said.endswith("(otlp.ca_file: the PEM file of the CA that signed the collector's certificate)")


def test_a_certificate_of_another_name_says_so(authority):
    with running("127.0.0.1:0", _server(authority)) as collector:
        said = _deliver(endpoint=f"https://127.0.0.1:{collector.port}", ca_file=str(authority.ca))
    assert said.endswith("(the collector's certificate is for another name than that of otlp.endpoint)")


def test_tls_to_a_collector_without_says_so():
    with running() as collector:
        said = _deliver(endpoint=f"https://127.0.0.1:{collector.port}")
    assert said.endswith("(no TLS is spoken there: http:// is without)")


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no gRPC is spoken there: collectors take it on port 4317, HTTP on 4318"),
        (b"\x15\x03\x01\0\x02\x02\x46", "where TLS is spoken: https://"),
        (b"", "where TLS is spoken: https://"),
    ],
    ids=["OTLP over HTTP", "TLS of OpenSSL: an alert", "TLS of Go: nothing"],
)
def test_a_port_of_another_protocol_says_so(answer, hint):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        answering = threading.Thread(target=_answer, args=(server, answer))
        answering.start()
        said = _deliver(endpoint=f"127.0.0.1:{server.getsockname()[1]}")
        answering.join()
    assert said.endswith(f"({hint})")


def _answer(server, answer):
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answer)


def test_mtls_needs_the_clients_certificate(authority):
    certificate, key = map(str, authority.issue("agent"))
    with running("localhost:0", _server(authority, clients=True)) as collector:
        where = {"endpoint": f"https://localhost:{collector.port}", "ca_file": str(authority.ca)}
        assert "unavailable" in _deliver(**where)
        assert _deliver(**where, cert_file=certificate, key_file=key) is None
        assert collector.names() == ["m"]


@contextlib.contextmanager
def _wanting_certificates(authority, version):
    """A port of a server that does, in this version of TLS."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*authority.issue("localhost"))
    made.load_verify_locations(authority.ca)
    made.verify_mode = ssl.CERT_REQUIRED
    made.maximum_version = version
    made.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            sock, _ = listener.accept()
            with sock, contextlib.suppress(OSError):
                made.wrap_socket(sock, server_side=True)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def test_a_server_that_misses_the_clients_certificate_is_heard_out(authority):
    """With TLS 1.3 it says so after the handshake, when we are sending already."""
    with _wanting_certificates(authority, ssl.TLSVersion.TLSv1_3) as port:
        said = _deliver(endpoint=f"https://localhost:{port}", ca_file=str(authority.ca))
    assert said.endswith("CERTIFICATE_REQUIRED (otlp.cert_file, otlp.key_file: the collector wants a client's certificate)")


def test_a_server_of_tls_1_2_does_not_say_what_it_misses(authority):
    with _wanting_certificates(authority, ssl.TLSVersion.TLSv1_2) as port:
        said = _deliver(endpoint=f"https://localhost:{port}", ca_file=str(authority.ca))
    assert said.endswith("HANDSHAKE_FAILURE (otlp.cert_file, otlp.key_file: maybe the collector wants a client's certificate)")


@pytest.mark.parametrize("name", ["test CA", "another CA"])
def test_a_clients_certificate_of_another_authority_says_so(authority, tmp_path, name):
    certificate, key = map(str, Authority(tmp_path, name).issue("agent"))
    with _wanting_certificates(authority, ssl.TLSVersion.TLSv1_3) as port:
        said = _deliver(endpoint=f"https://localhost:{port}", ca_file=str(authority.ca), cert_file=certificate, key_file=key)
    assert said.endswith("(otlp.cert_file: the collector does not take this client's certificate)")


def test_a_renewed_certificate_is_read_when_the_connection_fails(authority, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority(tmp_path).ca.read_bytes())  # of another authority
    with running("localhost:0", _server(authority)) as collector:
        sender = Sender(Otlp(endpoint=f"https://localhost:{collector.port}", ca_file=str(ca)), Telemetry())
        assert "unavailable" in sender.deliver(_request(), 5)
        ca.write_bytes(authority.ca.read_bytes())
        sender.deliver(_request(), 5)  # fails on the old connection, or already succeeds
        assert sender.deliver(_request(), 5) is None
        sender.close(0)


@pytest.mark.parametrize("missing", ["cert_file", "key_file"])
def test_half_a_pair_is_refused(authority, missing):
    pair = dict(zip(("cert_file", "key_file"), map(str, authority.issue("agent")), strict=True)) | {missing: ""}
    with pytest.raises(ValueError, match="go together"):
        Sender(Otlp(endpoint="https://localhost", **pair), Telemetry())


def test_an_absent_certificate_file_is_named(tmp_path):
    with pytest.raises(Unavailable, match=r"ca\.pem: absent") as error:
        Sender(Otlp(endpoint="localhost", ca_file=str(tmp_path / "ca.pem")), Telemetry())
    assert error.value.reason is Reason.ABSENT
