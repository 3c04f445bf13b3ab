"""What the client's Accept and Accept-Encoding headers ask for (RFC 9110, 12.4 and 12.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from otel_hostmetrics.export.prometheus.text import Format

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?", re.ASCII)
_VERSIONS = {"application/openmetrics-text": ("1.0.0", ""), "text/plain": ("0.0.4", "")}


@lru_cache(64)  # a handful of scrapers ask with the same headers every time
def page_format(accept: str) -> Format:
    """OpenMetrics if the client names it, in a version we write, and does not rank text/plain above it; else text 0.0.4."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for media, parameters, quality in _elements(accept):
        if parameters.get("version", "") in _VERSIONS.get(media, ()):
            best[media] = max(best[media], quality)
    openmetrics, text = best.values()
    return Format.OPENMETRICS if openmetrics > 0 and openmetrics >= text else Format.TEXT


@lru_cache(64)
def gzip_accepted(accept_encoding: str) -> bool:
    """Whether a gzip body may be sent: named with q above 0, or covered by ``*``."""
    qualities = {coding: quality for coding, _, quality in _elements(accept_encoding)}
    return qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0))) > 0


def _elements(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """(value, parameters, q) of each list element; one whose q is malformed counts as refused."""
    for element in header.split(","):
        value, *rest = (part.strip() for part in element.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip().lower(): text.strip().strip('"') for key, _, text in pairs}
        quality = parameters.pop("q", "1")
        yield value.lower(), parameters, float(quality) if _QUALITY.fullmatch(quality) else 0.0
