"""The catalogue as text, JSON and Markdown."""

from __future__ import annotations

import json

from otel_hostmetrics import reference
from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.settings import General

ENERGY = Metric("hw.energy", Kind.COUNTER, "J", "Energy | used.", "energy_uj", ("hw.id",), ("hw.parent",), integer=False, enabled=False)
PORT = Metric("rdma_port_state", Kind.GAUGE, "", "State.", "state", ("device",), origin="gpu_exporter")


def test_json_has_every_field_of_every_row():
    rows = json.loads(reference.as_json(CATALOGUE))
    assert len(rows) == len(CATALOGUE)
    fields = {"name", "kind", "unit", "description", "reads", "attributes", "origin", "integer", "boundaries", "enabled", "stability"}
    assert all(fields < row.keys() for row in rows)
    assert json.loads(reference.as_json([ENERGY]))[0]["prometheus_name"] == "hw_energy_joules_total"


def test_markdown_has_a_table_per_namespace_and_escapes():
    text = reference.markdown([PORT, ENERGY])
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## hw", "## rdma"]
    row = "| `hw.energy` | `hw_energy_joules_total` | counter | `J` | `hw.id`, `hw.parent`? | Energy \\| used. Off by default. |"
    assert row in text.splitlines()
    assert "- `rdma_port_state`: state (name: gpu_exporter, development)" in text


def test_text_is_one_line_per_metric():
    assert reference.text([ENERGY, PORT]).splitlines()[1].split(maxsplit=3) == ["rdma_port_state", "gauge", "-", "State."]
    assert reference.text([]) == ""


def test_include_and_exclude_are_patterns_on_names():
    rows = [ENERGY, PORT]
    assert reference.selected(rows, General()) == rows
    assert reference.selected(rows, General(include=("hw.*",))) == [ENERGY]
    assert reference.selected(rows, General(include=("*",), exclude=("hw.*", "x"))) == [PORT]
