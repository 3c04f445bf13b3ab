"""Attributes -> the label part of a sample line."""

from __future__ import annotations

import logging
from functools import lru_cache

import msgspec

from otel_hostmetrics.catalogue.model import Attributes, AttributeValue
from otel_hostmetrics.export.prometheus.naming import label_name

_log = logging.getLogger(__name__)
_VALUE_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def braced(attributes: Attributes, resource: Attributes | None = None, le: bool = False) -> bytes:
    """``{cpu="0",mode="user"}`` in UTF-8, sorted by name; empty if there is none.

    *resource* is added, an attribute of the same key wins. Keys that become one label have their values joined with ``;``
    in the order of the keys (OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility", metric attributes).
    With *le* the label ``le`` is the histogram's own, so an attribute of that name becomes ``exported_le``.
    """
    merged = {**resource, **attributes} if resource else attributes
    values: dict[str, str] = {}
    for key in sorted(merged):
        name = _usable(key)
        if le and name == "le":
            name = "exported_le"
        if name:
            text = _text(merged[key])
            values[name] = f"{values[name]};{text}" if name in values else text
    if not values:
        return b""
    pairs = (f'{name}="{values[name].translate(_VALUE_ESCAPES)}"' for name in sorted(values))
    return f"{{{','.join(pairs)}}}".encode("utf-8", "replace")  # lone surrogates come from undecodable kernel strings


def _text(value: AttributeValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):  # image tags; the specification wants JSON
        return msgspec.json.encode(value).decode()
    return value if isinstance(value, str) else repr(value)


@lru_cache(maxsize=1024)  # also keeps the warning to one per key
def _usable(key: str) -> str:
    """label_name(), or empty for what a page cannot carry: ``__x__`` belongs to Prometheus, and it refuses a second ``__name__``."""
    try:
        name = label_name(key)
    except ValueError as error:
        _log.warning("left off the Prometheus page: %s", error)
        return ""
    if name.startswith("__"):
        _log.warning("left off the Prometheus page: attribute %r is a name Prometheus reserves", key)
        return ""
    return name
