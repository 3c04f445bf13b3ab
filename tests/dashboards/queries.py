"""What the tests of the dashboards read out of their JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parents[2] / "dashboards"
NAMES = ("ebpf", "rdma", "energy", "gpu", "agent")

_STRING = re.compile(r'"[^"]*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_BARE = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b(?!\s*[({])")
_LABEL = re.compile(r"\{\{(\w+)\}\}")
_OPERATORS = {"or", "and", "unless", "bool", "offset", "by", "on", "without", "ignoring", "group_left", "group_right"}


class Query(NamedTuple):
    """One query of one panel."""

    dashboard: str
    panel: str
    legend: str
    expr: str

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}: {self.legend or 'table'}"

    @property
    def selectors(self) -> list[tuple[str, str]]:
        """(metric, matchers) of each selector."""
        return _SELECTOR.findall(self.expr)

    @property
    def grouped_by(self) -> set[str]:
        """Labels that aggregations and matchings name."""
        return {label.strip() for labels in _GROUPING.findall(self.expr) for label in labels.split(",") if label.strip()}

    @property
    def bare(self) -> set[str]:
        """Metrics used without a selector."""
        rest = _GROUPING.sub("", _SELECTOR.sub("", _STRING.sub("", self.expr)))
        return set(_BARE.findall(re.sub(r"\[[^]]*\]|\$\w+", "", rest))) - _OPERATORS

    def line(self, labels: Mapping[str, str]) -> str:
        """The legend of a series, as Grafana writes it but for the spaces of labels it does not have."""
        return " ".join(_LABEL.sub(lambda match: labels.get(match[1], ""), self.legend).split())

    def substituted(self, interval: str) -> str:
        """As Grafana sends it with all jobs and instances chosen."""
        return self.expr.replace("$__rate_interval", interval).replace("$job", ".+").replace("$instance", ".+")


def board(name: str) -> dict[str, Any]:
    """The committed JSON."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def panels(name: str) -> list[dict[str, Any]]:
    """All panels but the titles of rows."""
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


def queries(*names: str) -> list[Query]:
    """Every query, in order."""
    return [
        Query(name, panel["title"], target.get("legendFormat", ""), target["expr"])
        for name in names or NAMES
        for panel in panels(name)
        for target in panel["targets"]
    ]


def matching(page: str, name: str, matchers: str) -> list[str]:
    """Lines of the page that a selector matches, but for job and instance, which a scrape adds."""
    wanted = [each for each in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers) if each[0] not in ("job", "instance")]
    found = []
    for line in re.findall(rf"^{name}(?:{{.*}})? ", page, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        fits = {
            "=": lambda have, want: have == want,
            "!=": lambda have, want: have != want,
            "=~": lambda have, want: re.fullmatch(want, have),
        }
        if all(fits[operator](labels.get(label, ""), want) for label, operator, want in wanted):
            found.append(line)
    return found
