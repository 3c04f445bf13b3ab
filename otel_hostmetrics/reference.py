"""The catalogue for people and programs: ``otel-hostmetrics metrics``, METRICS.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.export.prometheus.naming import metric_name
from otel_hostmetrics.settings import General

_HEADER = "| Metric | Prometheus | Kind | Unit | Attributes | Description |\n|--|--|--|--|--|--|"


def selected(rows: Iterable[Metric], general: General) -> list[Metric]:
    """The rows that ``general.include`` and ``general.exclude`` leave, by their OpenTelemetry names."""
    return [row for row in rows if general.keeps(row.name)]


def text(rows: Sequence[Metric]) -> str:
    """One line per metric: name, kind, unit, description."""
    wide = max((len(row.name) for row in rows), default=0)
    return "".join(f"{row.name:<{wide}}  {row.kind.value:<13}  {row.unit or '-':<12}  {row.description}\n" for row in rows)


def as_json(rows: Sequence[Metric]) -> str:
    """An array of objects, one per metric, with all that the catalogue knows."""
    return json.dumps([_fields(row) for row in rows], indent=2, ensure_ascii=False) + "\n"


def markdown(rows: Sequence[Metric]) -> str:
    """A table per first word of the names, rows in the catalogue's order; what each reads stands below its table."""
    parts = []
    for namespace, group in groupby(sorted(rows, key=_namespace), key=_namespace):  # sorted() is stable
        members = list(group)
        parts.append(f"\n## {namespace}\n\n{_HEADER}\n" + "".join(map(_table_row, members)) + "\n" + "".join(map(_read_from, members)))
    return "".join(parts)


def _namespace(row: Metric) -> str:
    return row.name.replace("_", ".").partition(".")[0] if not row.name.startswith("otel_hostmetrics.") else "otel_hostmetrics"


def _table_row(row: Metric) -> str:
    attributes = ", ".join([*(f"`{name}`" for name in row.attributes), *(f"`{name}`?" for name in row.optional)])
    off = "" if row.enabled else " Off by default."
    cells = (f"`{row.name}`", f"`{prometheus_name(row)}`", row.kind.value, row.unit and f"`{row.unit}`", attributes, row.description + off)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _read_from(row: Metric) -> str:
    return f"- `{row.name}`: {row.reads} (name: {row.origin}, {row.stability})\n"


def prometheus_name(row: Metric) -> str:
    """The name of the metric's family on the scrape page, and of what Prometheus makes of the same metric by OTLP."""
    return metric_name(row.name, row.unit, row.kind)


def _fields(row: Metric) -> dict[str, object]:
    return {
        "name": row.name,
        "prometheus_name": prometheus_name(row),
        "kind": row.kind.value,
        "unit": row.unit,
        "description": row.description,
        "attributes": row.attributes,
        "optional_attributes": row.optional,
        "integer": row.integer,
        "boundaries": row.boundaries,
        "reads": row.reads,
        "origin": row.origin,
        "enabled": row.enabled,
        "stability": row.stability,
    }
