"""Layers to Settings: flags > OTEL_HOSTMETRICS_* > RDMA_MON_* > OTEL_* > file > defaults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from otel_hostmetrics.config import environment, file, standard
from otel_hostmetrics.config.checks import check
from otel_hostmetrics.config.schema import KEYS, SECTIONS, Layer
from otel_hostmetrics.config.values import convert
from otel_hostmetrics.settings import Settings

DEFAULT = "default"
_SERVICE_NAME = "service.name"
_DEFAULT_EXIT = "default, no exporter is configured"


class Resolved(NamedTuple):
    """The settings, where each came from, and what the user should be told once."""

    settings: Settings
    origins: Mapping[str, str]  # by key
    notices: tuple[str, ...] = ()

    @property
    def defaulted_exit(self) -> bool:
        """Whether Prometheus is served only because nothing else was configured."""
        return self.origins["prometheus.listen"] == _DEFAULT_EXIT


def resolve(
    flags: Layer,
    environ: Mapping[str, str],
    path: str | None,
    sources: Callable[[], Collection[str]],
    plugins: Callable[[], Collection[str]] = tuple,
) -> Resolved:
    """Read every layer and check all of it, so that nothing starts half-configured.

    *path* is the YAML file, if any; *sources* and *plugins* give the names there are, and are only asked if some are named.
    Raises ConfigError.
    """
    own, notices = environment.read(environ)
    otel = standard.read(environ)
    layers = (otel.defaults, file.read(path) if path is not None else {}, otel.layer, own, flags)
    values, origins = _merged(layers)
    _secure(values, origins)
    settings = _built(values)
    if settings.otlp.endpoint and "otlp.endpoint" not in {*flags, *own}:  # a flag or variable of our own has said that it is gRPC
        standard.check_protocol(environ)
    check(settings, origins, sources, plugins)
    return Resolved(settings, origins, (*notices, *otel.notices))


def _merged(layers: tuple[Layer, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The weakest layer comes first. Every value is checked, also one that a stronger layer replaces.

    Mappings (headers, resource attributes) are merged name by name.
    """
    values: dict[str, Any] = {name: key.default for name, key in KEYS.items()}
    origins = dict.fromkeys(KEYS, DEFAULT)
    for layer in layers:
        for name, value, origin in _converted(layer):
            if isinstance(value, dict) and values[name]:
                values[name], origins[name] = values[name] | value, f"{origins[name]}, {origin}"
            else:
                values[name], origins[name] = value, origin
    return values, origins


def _converted(layer: Layer) -> Iterator[tuple[str, Any, str]]:
    """(key, value, origin). The attribute ``service.name`` is the key of that name, which wins over it within a layer only."""
    for name, given in layer.items():
        value: Any = convert(KEYS[name], given)
        if name == "resource.attributes" and _SERVICE_NAME in value:
            if "resource.service_name" not in layer and value[_SERVICE_NAME]:
                yield "resource.service_name", value[_SERVICE_NAME], given.origin
            value = {key: text for key, text in value.items() if key != _SERVICE_NAME}
        yield name, value, given.origin


def _secure(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Whether there is TLS, where the endpoint is a standard variable's and nobody has said."""
    endpoint, origin = values["otlp.endpoint"], origins["otlp.endpoint"]
    if values["otlp.insecure"] is None and standard.implies_tls(endpoint, origin):
        values["otlp.insecure"], origins["otlp.insecure"] = False, f"{origin} without a scheme"


def _built(values: Mapping[str, Any]) -> Settings:
    parts: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, value in values.items():
        section, _, field = name.partition(".")
        parts[section][field] = value
    sections: dict[str, Any] = {section: SECTIONS[section](**fields) for section, fields in parts.items()}
    return Settings(**sections)


def with_exit(resolved: Resolved) -> Resolved:
    """Serve Prometheus on localhost where no way out of the process is configured.

    Not so where OTEL_METRICS_EXPORTER has turned Prometheus off: the result then has no exit, see has_exit().
    """
    if has_exit(resolved.settings) or resolved.origins["prometheus.listen"] == standard.SELECTION:
        return resolved
    prometheus = msgspec.structs.replace(resolved.settings.prometheus, listen=standard.LISTEN)
    settings = msgspec.structs.replace(resolved.settings, prometheus=prometheus)
    return Resolved(settings, {**resolved.origins, "prometheus.listen": _DEFAULT_EXIT}, resolved.notices)


def has_exit(settings: Settings) -> bool:
    """Whether there is anywhere for a snapshot to go."""
    return bool(settings.otlp.endpoint or settings.prometheus.listen or settings.snapshots.directory)
