"""The dashboards, by the rules of Grafana's dashboard-linter (docs/rules) and against the catalogue."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from otel_hostmetrics.catalogue import CATALOGUE, bpf
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.export.prometheus.naming import label_name, metric_name
from otel_hostmetrics.settings import Workloads
from tests.dashboards.queries import FOLDER, NAMES, Query, board, panels, queries

_UNITS = {
    "short",
    "none",
    "bytes",
    "s",
    "percentunit",
    "ops",
    "reqps",
    "cps",
    "bps",
    "Bps",
    "watt",
    "celsius",
    "hertz",
}  # of Grafana's valueFormats/categories.ts
_LEVELS = {metric_name(row.name, row.unit, row.kind) for row in bpf.SEED if row.kind is Kind.COUNTER}
_COUNTS = ("_total", "_bucket", "_count", "_sum")
_APART = {
    "hw_gpu_ecc_errors_total": "hw_gpu_ecc_retention",
    "hw_gpu_engine_utilization_ratio": "hw_gpu_engine",
    "hw_gpu_power_limit_watts": "hw_limit_type",
    "hw_gpu_profile_utilization_ratio": "hw_gpu_unit",
    "hw_gpu_throttle_active": "hw_gpu_throttle_reason",
    "hw_gpu_throttle_time_seconds_total": "hw_gpu_throttle_reason",
    "hw_gpu_utilization_ratio": "hw_gpu_task",
    "process_gpu_time_seconds_total": "hw_gpu_engine",
    "process_gpu_utilization_ratio": "hw_gpu_task",
}  # what tells apart points that overlap, or are of different things
_WORKLOAD = {label_name(key) for key in Workloads().labels}  # of points that have one
_TARGET = {"job", "instance", "le"}
_OF_UNIT = {
    "By": {"bytes"},
    "By/s": {"Bps", "bps"},
    "Cel": {"celsius"},
    "Hz": {"hertz"},
    "J/s": {"watt"},
    "W": {"watt"},
    "s": {"s"},
    "s/s": {"percentunit"},
}  # any other is a count of something


def _by_name() -> dict[str, Metric]:
    names: dict[str, Metric] = {}
    for row in CATALOGUE:
        name = metric_name(row.name, row.unit, row.kind)
        parts = ("_bucket", "_count", "_sum") if row.kind is Kind.HISTOGRAM else ("",)
        names.update({name + part: row for part in parts})
    return names


ROWS = _by_name()


def _labels(query: Query) -> set[str]:
    rows = [ROWS[name] for name, _ in query.selectors]
    return {label_name(key) for row in rows for key in (*row.attributes, *row.optional)} | _TARGET | _WORKLOAD


@pytest.mark.parametrize("name", NAMES)
def test_generating_again_gives_the_committed_json(name: str) -> None:
    assert generate.dashboards()[f"{name}.json"] == (FOLDER / f"{name}.json").read_text()


def test_generating_again_gives_the_committed_stack() -> None:
    """So its dashboards and rules are those of dashboards/ and deploy/prometheus."""
    text = generate.STACK.read_text()
    assert generate.stack(text) == text
    assert generate.stack(text.partition("---\n# Generated")[0]) == text, "the generated end does not depend on the old one"


def test_the_stack_has_the_dashboards_and_rules_unchanged() -> None:
    documents = yaml.safe_load_all(generate.STACK.read_text())
    maps = {document["metadata"]["name"]: document["data"] for document in documents if document["kind"] == "ConfigMap"}
    assert {name: json.loads(text) for name, text in maps["grafana-dashboards"].items()} == {f"{name}.json": board(name) for name in NAMES}
    assert maps["prometheus-rules"] == generate.alerts()


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_data_source_variable(name: str) -> None:
    variable = board(name)["templating"]["list"][0]
    assert (variable["name"], variable["label"]) == ("datasource", "Data source")
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("index", "variable_name"), [(1, "job"), (2, "instance")])
def test_job_and_instance_are_variables_of_many_values(name: str, index: int, variable_name: str) -> None:
    variable = board(name)["templating"]["list"][index]
    assert (variable["name"], variable["label"], variable["type"]) == (variable_name, variable_name.title(), "query")
    assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert variable["multi"]
    assert variable["includeAll"]
    assert variable["allValue"] == ".+"
    assert variable["refresh"] == 2, "on each change of the time range"
    found = re.fullmatch(r"label_values\((\w+)(\{job=~\"\$job\"\})?, (\w+)\)", variable["query"]["query"])
    assert found
    assert found[1] in ROWS
    assert found[3] == variable_name


@pytest.mark.parametrize("name", NAMES)
def test_it_is_not_editable_and_has_a_fixed_identity(name: str) -> None:
    dashboard = board(name)
    assert dashboard["editable"] is False
    assert dashboard["uid"] == f"otel-hostmetrics-{name}"
    assert dashboard["tags"] == ["otel-hostmetrics", name]
    assert dashboard["title"]
    assert dashboard["description"]
    assert "id" not in dashboard


@pytest.mark.parametrize("name", NAMES)
def test_each_panel_says_what_it_shows(name: str) -> None:
    for panel in panels(name):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS, panel["title"]
        assert panel["options"] is not None or panel["type"] == "timeseries", panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_each_panel_asks_the_chosen_data_source(name: str) -> None:
    for panel in panels(name):
        assert panel["targets"], panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_titles_and_places_of_their_own(name: str) -> None:
    everything = board(name)["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    titles = [panel["title"] for panel in everything if panel["type"] != "row"]
    assert len(set(titles)) == len(titles)
    for one, other in combinations([panel["gridPos"] for panel in everything], 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"], (one, other)
        assert one["x"] + one["w"] <= 24


@pytest.mark.parametrize("query", queries(), ids=str)
def test_every_selector_follows_job_and_instance(query: Query) -> None:
    assert query.selectors
    assert not query.bare
    for name, matchers in query.selectors:
        assert matchers.startswith('job=~"$job", instance=~"$instance"'), name


@pytest.mark.parametrize("query", queries(), ids=str)
def test_ranges_fit_the_scrape_interval_and_the_zoom(query: Query) -> None:
    assert set(re.findall(r"\[([^]]*)\]", query.expr)) <= {"$__rate_interval"}


@pytest.mark.parametrize("query", queries(), ids=str)
def test_counters_are_rated_except_the_levels_a_seed_calls_counters(query: Query) -> None:
    rated = set(re.findall(r"\b(?:rate|increase)\((\w+)\{[^}]*\}\[", query.expr))
    counters = {name for name, _ in query.selectors if name.endswith(_COUNTS) and ROWS[name].kind is not Kind.GAUGE}
    assert counters - _LEVELS == rated
    for level in counters & _LEVELS:
        assert query.expr.startswith(f"sum({level}{{"), "as the seed's dashboard has it"


@pytest.mark.parametrize("query", queries(), ids=str)
def test_every_metric_and_label_is_one_of_the_catalogue(query: Query) -> None:
    unknown = {name for name, _ in query.selectors} - ROWS.keys()
    assert not unknown
    assert query.grouped_by <= _labels(query)
    assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= _labels(query)
    assert {label for _, matchers in query.selectors for label in re.findall(r"(\w+)\s*[=!]", matchers)} <= _labels(query)


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_two_hosts_have_two_names(name: str) -> None:
    """The legend has every label by which the outermost aggregation keeps series apart."""
    for panel in panels(name):
        for target in panel["targets"] if panel["type"] == "timeseries" else ():
            kept = re.search(r"\bby \(([^)]*)\)", target["expr"])
            labels = set(kept[1].split(", ")) - {"job", "le"} if kept else set()
            assert labels <= set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])), (panel["title"], target["expr"])


@pytest.mark.parametrize("name", NAMES)
def test_units_are_those_of_the_metrics(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"] if panel["type"] in ("timeseries", "stat") else ():
            query = Query(name, panel["title"], target["legendFormat"], target["expr"])
            assert _shown_unit(panel, query) in _fitting_units(query), str(query)


def _shown_unit(panel: dict[str, Any], query: Query) -> str:
    found = [
        each["properties"] for each in panel["fieldConfig"]["overrides"] if each["matcher"] == {"id": "byName", "options": query.legend}
    ]
    return str(found[0][0]["value"] if found else panel["fieldConfig"]["defaults"]["unit"])


def _fitting_units(query: Query) -> set[str]:
    """Of what is divided: a share, a mean time, or a rate per time it was counted in."""
    if "avg_over_time(" in query.expr and not ROWS[query.selectors[0][0]].unit:  # of a state: how much of the time
        return {"percentunit"}
    if " / " in query.expr:
        return {"percentunit", "s", "ops"}
    if query.expr.startswith("count("):
        return {"short"}
    if query.selectors[0][0].endswith("_seconds_count"):  # how many there were
        return {"reqps"}
    if any(metric.endswith("_ratio") for metric, _ in query.selectors):
        return {"percentunit"}
    (unit,) = {ROWS[metric].unit for metric, _ in query.selectors}
    rated = "rate(" in query.expr and "quantile" not in query.expr
    return _OF_UNIT.get(unit + "/s" * rated, {"short", "none", "ops", "cps", "reqps"})


@pytest.mark.parametrize("query", [query for query in queries() if any(name in _APART for name, _ in query.selectors)], ids=str)
def test_what_overlaps_is_not_put_together(query: Query) -> None:
    for label, matchers in ((_APART[name], matchers) for name, matchers in query.selectors if name in _APART):
        assert label in query.grouped_by or label in matchers


@pytest.mark.parametrize("query", [query for query in queries() if "histogram_quantile" in query.expr], ids=str)
def test_quantiles_keep_the_bucket_limits(query: Query) -> None:
    assert re.search(r"histogram_quantile\(0\.\d+, sum by \([^)]*\ble\) \(rate\(\w+_bucket\{", query.expr)


@pytest.mark.parametrize("name", NAMES)
def test_the_columns_of_tables_are_labels_of_their_metric(name: str) -> None:
    for panel in panels(name):
        if panel["type"] == "table":
            query = Query(name, panel["title"], "", panel["targets"][0]["expr"])
            columns = set(panel["transformations"][0]["options"]["include"]["names"]) - {"Value"}
            assert columns <= _labels(query), panel["title"]
            assert query.grouped_by in (set(), columns), panel["title"]


def test_the_first_row_is_the_seeds_dashboard() -> None:
    """bpf-metrics-exporter's seven panels, under the same titles."""
    first = panels("ebpf")[:7]
    assert [panel["type"] for panel in first] == ["stat", "table", "table", "table", "timeseries", "timeseries", "timeseries"]
    assert [panel["title"] for panel in first[:4]] == ["Subsystem Entities", "Loaded Program Info", "Loaded Map Info", "Loaded Link Info"]
    asked = [re.sub(r"\{.*?\}", "", target["expr"]) for panel in first for target in panel["targets"]]
    assert asked == [
        "sum(bpf_program_info)", "sum(bpf_map_info)", "sum(bpf_link_info)", "bpf_program_info", "bpf_map_info", "bpf_link_info",
        "sum(bpf_program_verified_instructions_total)", "sum(bpf_program_size_translated_bytes_total)", "sum(bpf_program_mem_bytes_total)",
    ]  # fmt: skip


@pytest.mark.system
def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    """As recording rules, with promtool."""
    promtool = shutil.which("promtool")
    assert promtool, "install Debian's prometheus"
    rules = [{"record": f"query:{number}", "expr": query.substituted("5m")} for number, query in enumerate(queries())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout
