"""Alert rules: what promtool says of them, and whether their metrics are ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from otel_hostmetrics.catalogue import CATALOGUE, gpu, hardware, rdma, rdma_counters
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.export.prometheus.naming import label_name, metric_name
from otel_hostmetrics.kernel.bpf_names import MAP_TYPES
from otel_hostmetrics.sources.gpu.nvidia_rows import MEANINGS
from tests.deploy.manifests import ROOT

_FOLDER = ROOT / "deploy/prometheus"
_TESTS = ("alerts_test.yml", "alerts_hardware_test.yml")
_METRICS = {metric_name(row.name, row.unit, row.kind): row for row in CATALOGUE if row.kind is not Kind.HISTOGRAM}
_WORDS = re.compile(r"\b((?:otel_hostmetrics|bpf|rapl|hw|rdma|network|error)_\w+)\b")


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load((_FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


_EACH = pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program, "install Debian's prometheus"
    return subprocess.run([program, *arguments], cwd=_FOLDER, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.system
@pytest.mark.parametrize(
    "arguments", [("check", "config", "scrape.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", *_TESTS)], ids=" ".join
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    """The rules' own tests say for each alert when it fires, with which text, and when it does not."""
    said = _promtool(*arguments)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "SUCCESS" in said.stdout


def test_every_alert_has_a_test_that_makes_it_fire() -> None:
    tests = [test for name in _TESTS for test in yaml.safe_load((_FOLDER / name).read_text())["tests"]]
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
    words = set(_WORDS.findall(re.sub(r'".*?"', "", rule["expr"])))
    rows = [_METRICS[word] for word in words if word in _METRICS]
    assert rows or rule["alert"] == "HostMetricsAgentDown"
    labels = {label_name(key) for row in rows for key in (*row.attributes, *row.optional)} | {"job", "instance"}
    assert words <= _METRICS.keys() | labels
    assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= labels


def test_the_maps_that_may_be_full_are_the_lru_maps() -> None:
    (rule,) = (rule for rule in _rules() if rule["alert"] == "BpfMapNearlyFull")
    pattern = re.search(r'bpf_map_type!~"(.*?)"', rule["expr"])
    assert pattern
    assert {name for name in MAP_TYPES if re.fullmatch(pattern[1], name)} == {"lru_hash", "lru_percpu_hash"}


def _given(metric: Metric, key: str) -> set[str]:
    """The values that drivers' counters and NVML's give this attribute of the metric."""
    rdma = (each.attributes for each in rdma_counters.KNOWN.values() if each.metric is metric)
    nvidia = (each.attributes for some in MEANINGS.values() for each in some if each.metric is metric)
    return {str(attributes[key]) for attributes in (*rdma, *nvidia) if key in attributes}


@pytest.mark.parametrize(
    ("metric", "key"),
    [(gpu.THROTTLE_TIME, gpu.REASON), (hardware.STATUS, hardware.STATE), (rdma.TRANSPORT, "rdma.transport.event")],
    ids=str,
)
def test_the_values_asked_for_are_values_there_are(metric: Metric, key: str) -> None:
    asked = [value for rule in _rules() for value in re.findall(rf'{label_name(key)}=~?"(.*?)"', rule["expr"])]
    assert asked
    assert {each for value in asked for each in value.split("|")} <= _given(metric, key)
