"""What the tests of the alert rules read out of deploy/prometheus."""

from __future__ import annotations

from typing import Any

import yaml

from tests.dashboards.queries import Query
from tests.deploy.manifests import ROOT

FOLDER = ROOT / "deploy/prometheus"
GROUPS = ("agent", "bpf")  # each a file in alerts/, proved by one in alerts_test/

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
