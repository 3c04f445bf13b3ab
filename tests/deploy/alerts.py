"""What the tests of the alert rules read out of deploy/prometheus."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.dashboards.queries import Query
from tests.deploy.manifests import ROOT

FOLDER = ROOT / "deploy/prometheus"
GROUPS = ("agent", "bpf", "energy", "gpu", "rdma")  # each a file in alerts/, proved by one in alerts_test/

Rule = dict[str, Any]


def rules(*groups: str) -> list[Rule]:
    """Those of some files, or of all."""
    files = [yaml.safe_load((FOLDER / f"alerts/{name}.yml").read_text()) for name in groups or GROUPS]
    return [rule for content in files for group in content["groups"] for rule in group["rules"]]


def query(rule: Rule) -> Query:
    """The rule's expression, in the form in which panels' are examined."""
    return Query("alerts", rule["alert"], "", rule["expr"])


def metrics(rule: Rule) -> set[str]:
    """Names of all metrics the rule asks for, with a selector or without."""
    asked = query(rule)
    return {name for name, _ in asked.selectors} | asked.bare


def selectors(*groups: str) -> set[tuple[str, str]]:
    """(metric, matchers) of all rules, a pattern of alternatives as one selector for each: every one of them is to find something."""
    asked = [query(rule) for rule in rules(*groups)]
    found = {(name, matchers) for each in asked for name, matchers in each.selectors} | {(name, "") for each in asked for name in each.bare}
    return {(name, one) for name, matchers in found for one in _alternatives(matchers)}


def _alternatives(matchers: str) -> list[str]:
    pattern = re.search(r'=~"([\w|]+)"', matchers)
    return [matchers.replace(pattern[0], f'="{each}"') for each in pattern[1].split("|")] if pattern else [matchers]
