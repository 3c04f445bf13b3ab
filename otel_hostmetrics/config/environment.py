"""Our own variables, ``OTEL_HOSTMETRICS_<SECTION>__<KEY>``, and ``RDMA_MON_<SECTION>__<KEY>`` as their alias.

An empty value is a value here (``OTEL_HOSTMETRICS_OTLP__ENDPOINT=`` turns OTLP off); in the standard OTEL_* variables
it is the same as unset, as the OpenTelemetry specification has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from otel_hostmetrics.config.schema import RENAMED, Given, Key, Layer, known
from otel_hostmetrics.config.values import convert

PREFIX, ALIAS_PREFIX = "OTEL_HOSTMETRICS_", "RDMA_MON_"

_NOT_USED_YET = ("llm.", "dify.")
_SEED_PORT = "9090"  # the RDMA monitor's default
_SEED_SWITCH = Key("prometheus.enabled", bool, True, "")

# Kubernetes puts such variables into every container of a namespace that has a Service called otel-hostmetrics
# (service links): {NAME}_SERVICE_HOST, {NAME}_SERVICE_PORT[_NAME], {NAME}_PORT[_N_TCP[_ADDR|_PORT|_PROTO]].
_SERVICE_LINK = re.compile(r"(^|_)(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)$")


def read(environ: Mapping[str, str]) -> tuple[Layer, list[str]]:
    """The keys given, and what to tell the user. Raises ConfigError for a variable that names no key."""
    alias, notices = _alias(environ)
    return alias | {known(key, origin).name: Given(value, origin) for key, value, origin in _named(environ, PREFIX)}, notices


def _named(environ: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, origin) of each variable with the prefix."""
    for name in sorted(environ):
        rest = name.removeprefix(prefix)
        if rest != name and ("__" in rest or not _SERVICE_LINK.search(rest)):
            yield rest.lower().replace("__", ".", 1), environ[name], f"environment {name}"


def _alias(environ: Mapping[str, str]) -> tuple[Layer, list[str]]:
    given = {key: Given(value, origin) for key, value, origin in _named(environ, ALIAS_PREFIX)}
    unused = [key for key in given if key.startswith(_NOT_USED_YET)]
    used = {RENAMED.get(key, key): value for key, value in given.items() if key not in unused}
    layer = {known(key, value.origin).name: value for key, value in used.items()}
    if "prometheus.listen" in layer:
        layer["prometheus.listen"] = _listen(given)
    return layer, _notices(layer, [_variable(key, ALIAS_PREFIX) for key in unused])


def _listen(given: Layer) -> Given:
    """The seed has a port and a switch where this agent has one address."""
    own, port, enabled = (given.get(f"prometheus.{name}") for name in ("listen", "port", "enabled"))
    if own is not None:
        return own
    if enabled is not None:
        switch = convert(_SEED_SWITCH, enabled)
        return (port or Given(_SEED_PORT, enabled.origin)) if switch else Given("", enabled.origin)
    assert port is not None
    return port


def _notices(layer: Layer, unused: list[str]) -> list[str]:
    notices = []
    if layer:
        renamed = [f"{given.origin.removeprefix('environment ')} as {_variable(key, PREFIX)}" for key, given in layer.items()]
        notices.append(f"old variables are still read: {', '.join(renamed)}")
    if unused:
        notices.append(f"not used yet: {', '.join(unused)}")
    return notices


def _variable(key: str, prefix: str) -> str:
    return prefix + key.replace(".", "__", 1).upper()
