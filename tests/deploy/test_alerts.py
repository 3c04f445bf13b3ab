"""Alert rules: what promtool says of them, and whether their metrics are ours."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.catalogue.model import Kind
from otel_hostmetrics.export.prometheus.naming import label_name, metric_name
from otel_hostmetrics.kernel.bpf_names import MAP_TYPES
from tests.deploy.alerts import FOLDER, GROUPS, Rule, metrics, query, rules

_METRICS = {metric_name(row.name, row.unit, row.kind): row for row in CATALOGUE if row.kind is not Kind.HISTOGRAM}
_SCRAPED = "up"  # Prometheus' own
_TARGET = {"job", "instance"}
_EACH = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])


def _labels(*names: str) -> set[str]:
    """Those that series of these metrics can have."""
    rows = [_METRICS[name] for name in names if name != _SCRAPED]
    return {label_name(key) for row in rows for key in (*row.attributes, *row.optional)} | _TARGET


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "install Debian's prometheus"
    return subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.system
def test_promtool_finds_every_file_of_rules_by_the_configuration() -> None:
    said = _promtool("check", "config", "scrape.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert set(re.findall(r"Checking alerts/(\w+)\.yml\n  SUCCESS", said.stdout)) == set(GROUPS)


@pytest.mark.system
@pytest.mark.parametrize("name", GROUPS)
def test_promtool_is_content(name: str) -> None:
    """The rules' own tests say for each alert when it fires, with which text, and when it does not."""
    said = _promtool("test", "rules", f"alerts_test/{name}.yml")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "SUCCESS" in said.stdout


@pytest.mark.parametrize("name", GROUPS)
def test_every_alert_has_a_test_that_makes_it_fire_and_one_in_which_it_does_not(name: str) -> None:
    content = yaml.safe_load((FOLDER / f"alerts_test/{name}.yml").read_text())
    assert content["rule_files"] == [f"../alerts/{name}.yml"]
    named = {rule["alert"] for rule in rules(name)}
    cases = [(test, case) for test in content["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for _, case in cases if case.get("exp_alerts")} == named
    # Nothing is expected at all, or less than there are series.
    held = {case["alertname"] for test, case in cases if len(case.get("exp_alerts", ())) < len(test["input_series"])}
    assert held == named


def test_every_file_is_known_and_no_two_alerts_have_one_name() -> None:
    for folder in ("alerts", "alerts_test"):
        assert {path.stem for path in (FOLDER / folder).iterdir()} == set(GROUPS)
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)


@_EACH
def test_it_waits_and_says_what_and_where(rule: Rule) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert "$labels.instance" in rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


@_EACH
def test_its_metrics_and_labels_are_those_of_the_catalogue(rule: Rule) -> None:
    asked, names = query(rule), metrics(rule)
    assert names
    assert names <= {*_METRICS, _SCRAPED}
    for name, matchers in asked.selectors:
        assert set(re.findall(r"(\w+)\s*[=!]", re.sub(r'"[^"]*"', "", matchers))) <= _labels(name), name
    assert asked.grouped_by <= _labels(*names)
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= _labels(*names)


@_EACH
def test_it_does_not_depend_on_names_of_other_exporters(rule: Rule) -> None:
    """They are there for the dashboards of those, and say less: gpu_count alone has no other name."""
    assert {name for name in metrics(rule) - {_SCRAPED} if _METRICS[name].origin not in ("own", "semconv")} <= {"gpu_count"}


def test_the_maps_that_may_be_full_are_the_lru_maps() -> None:
    (rule,) = (rule for rule in rules("bpf") if rule["alert"] == "BpfMapNearlyFull")
    pattern = re.search(r'bpf_map_type!~"(.*?)"', rule["expr"])
    assert pattern
    assert {name for name in MAP_TYPES if re.fullmatch(pattern[1], name)} == {"lru_hash", "lru_percpu_hash"}
