"""The variables of the OpenTelemetry specification."""

from __future__ import annotations

import pytest

from otel_hostmetrics.config import standard
from otel_hostmetrics.config.resolve import has_exit, resolve, with_exit
from otel_hostmetrics.config.schema import ConfigError, Given
from otel_hostmetrics.config.show import value_of
from otel_hostmetrics.export.otlp.channel import target

OTLP = "OTEL_EXPORTER_OTLP_"


def settings(environ, **flags):
    return resolve({key.replace("__", "."): Given(raw, "flag") for key, raw in flags.items()}, environ, None, tuple).settings


MATRIX = [
    (
        "ENDPOINT",
        "http://general:4317",
        "http://metrics:4317",
        "own:4317",
        "otlp.endpoint",
        "http://general:4317",
        "http://metrics:4317",
        "own:4317",
    ),
    ("INSECURE", "true", "FALSE", "true", "otlp.insecure", True, False, True),
    ("HEADERS", "a=1", "b=%202", "c=3", "otlp.headers", {"a": "1"}, {"b": " 2"}, {"b": " 2", "c": "3"}),
    ("TIMEOUT", "1500", "2500", "3s", "otlp.timeout", 1.5, 2.5, 3),
    ("COMPRESSION", "GZIP", "none", "gzip", "otlp.compression", "gzip", "none", "gzip"),
    ("CERTIFICATE", "/dev/null", "/dev/zero", "/dev/full", "otlp.ca_file", "/dev/null", "/dev/zero", "/dev/full"),
]


@pytest.mark.parametrize(("name", "general", "metrics", "own", "key", "as_general", "as_metrics", "as_own"), MATRIX)
def test_own_wins_over_metrics_wins_over_general(name, general, metrics, own, key, as_general, as_metrics, as_own):
    environ = {OTLP + name: general}
    assert value_of(settings(environ), key) == as_general
    environ[f"{OTLP}METRICS_{name}"] = ""
    assert value_of(settings(environ), key) == as_general, "an empty variable is an unset one"
    environ[f"{OTLP}METRICS_{name}"] = metrics
    assert value_of(settings(environ), key) == as_metrics
    environ[f"OTEL_HOSTMETRICS_{key.replace('.', '__').upper()}"] = own
    assert value_of(settings(environ), key) == as_own


def test_client_certificate_and_key_come_as_a_pair():
    found = settings({f"{OTLP}CLIENT_KEY": "/dev/null", f"{OTLP}METRICS_CLIENT_CERTIFICATE": "/dev/zero"}).otlp
    assert (found.key_file, found.cert_file) == ("/dev/null", "/dev/zero")


@pytest.mark.parametrize(
    ("endpoint", "environ", "tls"),
    [
        ("c:4317", {}, True),
        ("localhost:4317", {}, True),
        (" dns:///c ", {}, True),
        ("http://c:4317", {}, False),
        ("unix:///run/otlp.sock", {}, False),  # does not leave the host
        ("c:4317", {f"{OTLP}INSECURE": "true"}, False),
        ("c:4317", {"OTEL_HOSTMETRICS_OTLP__INSECURE": "true"}, False),
        ("c:4317", {"OTEL_HOSTMETRICS_OTLP__ENDPOINT": "own:4317"}, False),
    ],
)
@pytest.mark.parametrize("form", ["", "METRICS_"])
def test_a_standard_endpoint_without_a_scheme_means_tls(form, endpoint, environ, tls):
    """OTEL_EXPORTER_OTLP_INSECURE is false by default; our own flag and variable say: no scheme = plaintext."""
    assert target(settings({f"{OTLP}{form}ENDPOINT": endpoint} | environ).otlp).tls is tls


@pytest.mark.parametrize(
    ("text", "insecure", "told"), [("True", True, 0), ("false", False, 0), ("1", False, 1), ("yes", False, 1), ("on", False, 1)]
)
def test_only_true_is_true(text, insecure, told):
    """Metrics go out in plaintext for nothing else, in no SDK."""
    found = resolve({}, {f"{OTLP}ENDPOINT": "c:4317", f"{OTLP}INSECURE": text}, None, tuple)
    assert found.settings.otlp.insecure is insecure
    assert target(found.settings.otlp).tls is not insecure
    assert [line for line in found.notices if "is read as false" in line] == [
        f"{OTLP}INSECURE is read as false: OpenTelemetry has no word for true but true"
    ] * told


def test_a_flag_keeps_its_plaintext_beside_a_standard_endpoint():
    assert not target(settings({f"{OTLP}ENDPOINT": "c:4317"}, otlp__endpoint="localhost:4317").otlp).tls


@pytest.mark.parametrize(("text", "tls"), [("{insecure: true}", False), ("{insecure: }", True), ("{endpoint: weaker:1}", True)])
def test_the_file_may_say_that_a_standard_endpoint_is_plaintext(tmp_path, text, tls):
    path = tmp_path / "x.yaml"
    path.write_text(f"otlp: {text}")
    found = resolve({}, {f"{OTLP}ENDPOINT": "c:4317"}, str(path), tuple)
    assert target(found.settings.otlp).tls is tls
    assert found.origins["otlp.insecure"] == (f"environment {OTLP}ENDPOINT without a scheme" if tls else str(path))


@pytest.mark.parametrize("text", ["delta", "DELTA", "Delta"])
def test_temporality_in_any_case(text):
    assert settings({f"{OTLP}METRICS_TEMPORALITY_PREFERENCE": text}).otlp.temporality == "delta"


@pytest.mark.parametrize(
    ("environ", "name", "attributes"),
    [
        ({}, "otel-hostmetrics", {}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,k8s.node.name=n%2C1, x = y "}, "a", {"k8s.node.name": "n,1", "x": "y"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "b"}, "b", {}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=,x=y"}, "otel-hostmetrics", {"x": "y"}),  # as with the SDKs, none
    ],
)
def test_resource(environ, name, attributes):
    found = settings(environ).resource
    assert (found.service_name, found.attributes) == (name, attributes)


@pytest.mark.parametrize(
    ("text", "level"), [("DEBUG", "debug"), ("warn", "warning"), ("trace", "debug"), ("none", "error"), ("error", "error")]
)
def test_log_level(text, level):
    assert settings({"OTEL_LOG_LEVEL": text}).log.level == level


@pytest.mark.parametrize(
    ("environ", "endpoint", "listen"),
    [
        ({}, "", ""),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, "http://localhost:4317", ""),
        ({"OTEL_METRICS_EXPORTER": "otlp", f"{OTLP}ENDPOINT": "http://c:1"}, "http://c:1", ""),
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "", "localhost:9464"),
        ({"OTEL_METRICS_EXPORTER": "prometheus", f"{OTLP}ENDPOINT": "http://c:1"}, "", "localhost:9464"),
        ({"OTEL_METRICS_EXPORTER": "Prometheus, otlp"}, "http://localhost:4317", "localhost:9464"),
        ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_PORT": "9500"}, "", "localhost:9500"),
        ({"OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0"}, "", "0.0.0.0:9464"),
        ({"OTEL_EXPORTER_PROMETHEUS_HOST": "::", "OTEL_EXPORTER_PROMETHEUS_PORT": "1"}, "", "[::]:1"),
        ({"OTEL_METRICS_EXPORTER": "none", f"{OTLP}ENDPOINT": "http://c:1", "OTEL_EXPORTER_PROMETHEUS_PORT": "1"}, "", ""),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_HOSTMETRICS_PROMETHEUS__LISTEN": "1"}, "", "1"),
    ],
)
def test_which_exporters_run(environ, endpoint, listen):
    found = settings(environ)
    assert (found.otlp.endpoint, found.prometheus.listen) == (endpoint, listen)


def test_a_file_names_the_collector_that_the_selection_left_open(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("otlp: {endpoint: gateway:4317}")
    assert resolve({}, {"OTEL_METRICS_EXPORTER": "otlp"}, str(path), tuple).settings.otlp.endpoint == "gateway:4317"


def test_none_leaves_no_exit_although_prometheus_is_the_default():
    assert not has_exit(with_exit(resolve({}, {"OTEL_METRICS_EXPORTER": "none"}, None, tuple)).settings)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {f"{OTLP}PROTOCOL": "http/protobuf", f"{OTLP}ENDPOINT": "http://c:4318/v1/metrics"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc, the only protocol there is, got 'http/protobuf'",
        ),
        (
            {f"{OTLP}METRICS_PROTOCOL": "http/json", f"{OTLP}PROTOCOL": "grpc", "OTEL_METRICS_EXPORTER": "otlp"},
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL: expected grpc",
        ),
        (
            {f"{OTLP}TIMEOUT": "10s"},
            "otlp.timeout: expected a whole number of milliseconds, got '10s' (from environment OTEL_EXPORTER_OTLP_TIMEOUT)",
        ),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "-1"}, "general.interval: expected a whole number of milliseconds, got '-1'"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "general.interval: expected a duration"),
        ({f"{OTLP}COMPRESSION": "zstd"}, "otlp.compression: expected one of none, gzip, got 'zstd'"),
        ({f"{OTLP}HEADERS": "secret"}, "otlp.headers: expected NAME=VALUE,NAME=VALUE, percent-encoded, got ***"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=%ff"}, "resource.attributes: "),
        ({"OTEL_METRICS_EXPORTER": "otpl"}, "OTEL_METRICS_EXPORTER: expected otlp, prometheus or none, got 'otpl'"),
        (
            {"OTEL_LOG_LEVEL": "loud"},
            "log.level: expected one of debug, info, warning, error, got 'loud' (from environment OTEL_LOG_LEVEL)",
        ),
    ],
)
def test_a_mistake_names_the_variable(environ, message):
    with pytest.raises(ConfigError) as caught:
        settings(environ)
    assert str(caught.value).startswith(message)


def test_a_flag_that_names_the_endpoint_has_said_grpc():
    assert settings({f"{OTLP}PROTOCOL": "http/protobuf"}, otlp__endpoint="c:4317").otlp.endpoint == "c:4317"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_METRICS_EXPORTER": "prometheus", f"{OTLP}ENDPOINT": "http://c:4318"},
        {"OTEL_HOSTMETRICS_OTLP__ENDPOINT": "", f"{OTLP}ENDPOINT": "http://c:4318"},
    ],
)
def test_a_protocol_is_of_no_concern_where_nothing_goes_out_by_otlp(environ):
    """Many set it for all programs of a host."""
    assert settings({f"{OTLP}PROTOCOL": "http/protobuf"} | environ).otlp.endpoint == ""


def test_a_protocol_concerns_the_files_endpoint(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("otlp: {endpoint: gateway:4317}")
    with pytest.raises(ConfigError, match="expected grpc"):
        resolve({}, {f"{OTLP}PROTOCOL": "http/protobuf"}, str(path), tuple)


@pytest.mark.parametrize(("text", "told"), [("10", True), ("10000", False)])
def test_a_timeout_meant_in_seconds_is_pointed_out(text, told):
    assert bool(resolve({}, {f"{OTLP}TIMEOUT": text}, None, tuple).notices) == told


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("TRUE", True), ("1", False), ("", False), ("yes", False)])
def test_only_true_disables(text, expected):
    assert standard.disabled({"OTEL_SDK_DISABLED": text}) is expected
