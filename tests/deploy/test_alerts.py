"""Alert rules: what promtool says of them, and whether their metrics are ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.catalogue.model import Kind
from otel_hostmetrics.export.prometheus.naming import label_name, metric_name
from otel_hostmetrics.kernel.bpf_names import MAP_TYPES
from tests.deploy.manifests import ROOT

_FOLDER = ROOT / "deploy/prometheus"
_METRICS = {metric_name(row.name, row.unit, row.kind): row for row in CATALOGUE if row.kind is not Kind.HISTOGRAM}
_WORDS = re.compile(r"\b((?:otel_hostmetrics|bpf)_\w+)\b")


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((_FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


_EACH = pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "install Debian's prometheus"
    return subprocess.run([program, *arguments], cwd=_FOLDER, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.system
@pytest.mark.parametrize(
    "arguments", [("check", "config", "scrape.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    """The rules' own tests say for each alert when it fires, with which text, and when it does not."""
    said = _promtool(*arguments)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "SUCCESS" in said.stdout


def test_every_alert_has_a_test_that_makes_it_fire() -> None:
    tests = yaml.safe_load((_FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == {rule["alert"] for rule in _rules()}


@_EACH
def test_it_waits_and_says_what_and_where(rule: dict[str, Any]) -> None:
    assert rule["for"]
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert "$labels.instance" in rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")


@_EACH
def test_its_metrics_and_labels_are_those_of_the_catalogue(rule: dict[str, Any]) -> None:
    rows = [_METRICS[word] for word in _WORDS.findall(rule["expr"]) if word in _METRICS]
    assert rows or rule["alert"] == "HostMetricsAgentDown"
    labels = {label_name(key) for row in rows for key in (*row.attributes, *row.optional)} | {"job", "instance"}
    assert set(_WORDS.findall(rule["expr"])) <= _METRICS.keys() | labels
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= labels


def test_the_maps_that_may_be_full_are_the_lru_maps() -> None:
    (rule,) = (rule for rule in _rules() if rule["alert"] == "BpfMapNearlyFull")
    pattern = re.search(r'bpf_map_type!~"(.*?)"', rule["expr"])
    assert pattern
    assert {name for name in MAP_TYPES if re.fullmatch(pattern[1], name)} == {"lru_hash", "lru_percpu_hash"}
