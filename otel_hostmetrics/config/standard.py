"""The variables OpenTelemetry defines for every SDK, as far as they concern a program that exports metrics.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and ../protocol/exporter/.
An empty variable is the same as an unset one, and the form for metrics wins over the general one.

Durations are milliseconds, as the specification says. (The Python SDK reads OTEL_EXPORTER_OTLP_TIMEOUT as seconds,
opentelemetry-python issue 4044: a value that can only be meant so is pointed out.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from otel_hostmetrics.config.schema import ConfigError, Given, Layer

ENDPOINT = "http://localhost:4317"  # the specification's default for OTLP over gRPC
LISTEN = "localhost:9464"  # and for the Prometheus exporter
SELECTION = "environment OTEL_METRICS_EXPORTER"

_OTLP = (
    ("ENDPOINT", "otlp.endpoint"),
    ("INSECURE", "otlp.insecure"),
    ("HEADERS", "otlp.headers"),
    ("TIMEOUT", "otlp.timeout"),
    ("COMPRESSION", "otlp.compression"),
    ("CERTIFICATE", "otlp.ca_file"),
    ("CLIENT_KEY", "otlp.key_file"),
    ("CLIENT_CERTIFICATE", "otlp.cert_file"),
)
_LEVELS = {"trace": "debug", "warn": "warning", "fatal": "error", "none": "error"}  # beside our own names
_TRUE, _FALSE = "true", "false"  # in any case; nothing else means true, says the specification ("Boolean value")
_SUSPECT_MS = 100  # nobody gives a collector less; a Python SDK's user means seconds


class Standard(NamedTuple):
    """What the standard variables ask for."""

    layer: Layer
    defaults: Layer  # addresses of exporters that were asked for by name only: weaker than the file
    notices: list[str]


def disabled(environ: Mapping[str, str]) -> bool:
    """Whether OTEL_SDK_DISABLED is ``true``, in any case; nothing else means true."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == _TRUE


def read(environ: Mapping[str, str]) -> Standard:
    """Translate to this program's keys. Raises ConfigError for what cannot be meant: a duration that is no number, an unknown exporter."""
    variables = _variables(environ)
    layer = _otlp(variables) | _resource(variables) | _agent(variables)
    layer |= _prometheus(variables)
    chosen, notices = _chosen(variables)
    defaults = _select(chosen, layer)
    return Standard(layer, defaults, [*notices, *_suspect(layer), *_unclear(variables)])


def check_protocol(environ: Mapping[str, str]) -> None:
    """Raise ConfigError if the variables ask for another protocol than gRPC."""
    found = _first(_variables(environ), "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if found and found[1].lower() != "grpc":
        raise ConfigError(found[0], f"expected grpc, the only protocol there is, got {found[1][:60]!r}", "environment")


def implies_tls(endpoint: str, origin: str) -> bool:
    """Whether an endpoint of this *origin* is one of the standard variables' for TLS: OTEL_EXPORTER_OTLP_INSECURE is false by default.

    The variable concerns endpoints without http and https. A unix: socket does not leave the host, so it stays as it is (as in Go's SDK).
    """
    return origin.startswith("environment OTEL_EXPORTER_OTLP_") and not endpoint.lower().startswith(("http://", "https://", "unix:/"))


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: text.strip() for name, text in environ.items() if name.startswith("OTEL_") and text.strip()}


def _first(variables: Mapping[str, str], *names: str) -> tuple[str, str] | None:
    return next(((name, variables[name]) for name in names if name in variables), None)


def _otlp(variables: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for suffix, key in _OTLP:
        found = _first(variables, f"OTEL_EXPORTER_OTLP_METRICS_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}")
        if found:
            layer[key] = Given(_spelled(key, *found), f"environment {found[0]}")
    preference = _first(variables, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE")
    if preference:
        layer["otlp.temporality"] = Given(preference[1].lower(), f"environment {preference[0]}")
    return layer


def _spelled(key: str, name: str, text: str) -> str:
    if key == "otlp.timeout":
        return _milliseconds(key, name, text)
    if key == "otlp.insecure":
        return str(text.lower() == _TRUE)
    return text.lower() if key == "otlp.compression" else text


def _milliseconds(key: str, name: str, text: str) -> str:
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(key, f"expected a whole number of milliseconds, got {text[:60]!r}", f"environment {name}")
    return f"{text}ms"


def _resource(variables: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    if "OTEL_RESOURCE_ATTRIBUTES" in variables:
        layer["resource.attributes"] = Given(variables["OTEL_RESOURCE_ATTRIBUTES"], "environment OTEL_RESOURCE_ATTRIBUTES")
    if "OTEL_SERVICE_NAME" in variables:
        layer["resource.service_name"] = Given(variables["OTEL_SERVICE_NAME"], "environment OTEL_SERVICE_NAME")
    return layer


def _agent(variables: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for name, key in (("OTEL_METRIC_EXPORT_INTERVAL", "general.interval"),):
        if name in variables:
            layer[key] = Given(_milliseconds(key, name, variables[name]), f"environment {name}")
    if "OTEL_LOG_LEVEL" in variables:
        level = variables["OTEL_LOG_LEVEL"].lower()
        layer["log.level"] = Given(_LEVELS.get(level, level), "environment OTEL_LOG_LEVEL")
    return layer


def _prometheus(variables: Mapping[str, str]) -> Layer:
    """As with OTLP's endpoint, an address is enough to turn the exporter on."""
    host, port = variables.get("OTEL_EXPORTER_PROMETHEUS_HOST"), variables.get("OTEL_EXPORTER_PROMETHEUS_PORT")
    if host is None and port is None:
        return {}
    name, default_host, default_port = "OTEL_EXPORTER_PROMETHEUS_" + ("PORT" if port else "HOST"), *LISTEN.split(":")
    host = host or default_host
    address = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return {"prometheus.listen": Given(f"{address}:{port or default_port}", f"environment {name}")}


def _chosen(variables: Mapping[str, str]) -> tuple[set[str] | None, list[str]]:
    """The exporters OTEL_METRICS_EXPORTER names, None if it is not set."""
    text = variables.get("OTEL_METRICS_EXPORTER")
    if text is None:
        return None, []
    chosen = {name.strip().lower() for name in text.split(",") if name.strip()}
    wrong = chosen - {"otlp", "prometheus", "console", "none"}
    if wrong:
        raise ConfigError("OTEL_METRICS_EXPORTER", f"expected otlp, prometheus or none, got {min(wrong)[:60]!r}", "environment")
    notices = ["OTEL_METRICS_EXPORTER: there is no console exporter, --once prints a snapshot"] if "console" in chosen else []
    return chosen, notices


def _select(chosen: set[str] | None, layer: Layer) -> Layer:
    """Turn off what was not chosen; the addresses of what was chosen without one."""
    defaults: Layer = {}
    if chosen is not None:
        for name, key, address in (("otlp", "otlp.endpoint", ENDPOINT), ("prometheus", "prometheus.listen", LISTEN)):
            if name in chosen:
                defaults[key] = Given(address, SELECTION)
            else:
                layer[key] = Given("", SELECTION)
    return defaults


def _suspect(layer: Layer) -> list[str]:
    timeout = layer.get("otlp.timeout")
    if timeout is None or int(str(timeout.raw).removesuffix("ms")[:9]) > _SUSPECT_MS:
        return []
    return [f"{timeout.origin.removeprefix('environment ')} is read as {timeout.raw}: OpenTelemetry defines it in milliseconds"]


def _unclear(variables: Mapping[str, str]) -> list[str]:
    found = _first(variables, "OTEL_EXPORTER_OTLP_METRICS_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")
    if found is None or found[1].lower() in (_TRUE, _FALSE):
        return []
    return [f"{found[0]} is read as false: OpenTelemetry has no word for true but true"]
