"""OpenTelemetry names -> Prometheus names, by the rules Prometheus applies to OTLP it receives.

Source of every rule: github.com/prometheus/otlptranslator (metric_namer.go, unit_namer.go, label_namer.go), strategy
UnderscoreEscapingWithSuffixes, the default of Prometheus, Mimir and the Collector. A metric thus has one name whether it
is scraped from us or pushed through OTLP. The stock Python exporter differs in places (no ``_ratio``, unit text, leading
digits); tests/export/prometheus/test_naming.py lists each. Neither side changes the case of a name, but the stock SDK
lowers the names of instruments.
"""

from __future__ import annotations

import re
from functools import lru_cache

from otel_hostmetrics.catalogue.model import Kind

_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_WORD = re.compile(r"[a-zA-Z0-9:]+")
_NOT_LABEL = re.compile(r"[^a-zA-Z0-9]+")
_NOT_UNIT = re.compile(r"[^a-zA-Z0-9:]+")


def metric_name(name: str, unit: str, kind: Kind) -> str:
    """The name a metric has in Prometheus, with its unit and type suffixes.

    *unit* is UCUM. A counter ends in ``_total``, once; a gauge of unit "1" in ``_ratio``. A unit is added unless it is one
    of the name's words already. Raises ValueError if no usable character is left.
    """
    words = _WORD.findall(name)
    words += _missing(words, *_unit_parts(unit))
    if kind is Kind.COUNTER:
        words = [*(word for word in words if word != "total"), "total"]
    if kind is Kind.GAUGE and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    full = "_".join(words)
    if not full.strip("_"):
        raise ValueError(f"metric name {name!r} has no character Prometheus could keep")
    return f"_{full}" if full[0].isdigit() else full


def unit_name(unit: str) -> str:
    """The unit in words: ``By/s`` -> ``bytes_per_second``; empty for "1" and for annotations such as ``{packet}``."""
    name = "_".join(part for part in _unit_parts(unit) if part)
    return name.removeprefix("_").removesuffix("_")


@lru_cache(maxsize=1024)
def label_name(key: str) -> str:
    """The label an attribute becomes. ``__x__`` stays as it is (reserved). Raises ValueError if no usable character is left."""
    reserved = len(key) >= 4 and key.startswith("__") and key.endswith("__")
    name = f"__{_NOT_LABEL.sub('_', key[2:-2])}__" if reserved else _NOT_LABEL.sub("_", key)
    if not name.strip("_"):
        raise ValueError(f"attribute {key!r} has no character Prometheus could keep")
    return f"key_{name}" if name[0].isdigit() else name


def _missing(words: list[str], main: str, per: str) -> list[str]:
    """The unit's suffixes that are not among the name's words."""
    if main in words:
        main = ""
    per = "" if per == "per_" else per.removesuffix("_")
    if per in words:
        per = ""
    if per:
        main = main.removesuffix("_")
    return [suffix for suffix in (main, per) if suffix]


def _unit_parts(unit: str) -> tuple[str, str]:
    """``By/s`` -> ("bytes", "per_second"). A part with an ``{annotation}`` is dropped whole."""
    main, _, per = (part.strip() for part in unit.partition("/"))
    main = "" if "{" in main or "}" in main else _UNITS.get(main, main)
    per = "" if "{" in per or "}" in per else _PER.get(per, per)
    return _clean(main), _clean(f"per_{per}" if per else "")


def _clean(unit: str) -> str:
    return _NOT_UNIT.sub("_", unit).removeprefix("_")
