"""Debian's Prometheus, which scrapes pages every second and answers what dashboards ask."""

from __future__ import annotations

import json
import math
import shutil
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.dashboards.queries import Query
from tests.system.processes import ROOT, Processes, free_port, get, until

_ALERTS = ROOT / "deploy/prometheus/alerts/*.yml"
_PATIENCE = 40.0  # s: until a query must have an answer; counted from the first, so all of them are bounded


def missing() -> list[str]:
    """What it needs and this machine lacks."""
    return [name for name in ("prometheus", "promtool") if shutil.which(name) is None]


class Prometheus:
    """A running one."""

    def __init__(self, port: int) -> None:
        self._api = f"http://127.0.0.1:{port}/api/v1"
        self._give_up = time.monotonic() + _PATIENCE

    def ask(self, path: str, **parameters: str) -> Any:
        return json.loads(get(f"{self._api}/{path}?{urllib.parse.urlencode(parameters)}"))["data"]

    def series(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each, waiting until there is one that is a number."""
        while True:
            found = [(each["metric"], float(each["value"][1])) for each in self.ask("query", query=expr)["result"]]
            if any(math.isfinite(value) for _, value in found) or time.monotonic() > self._give_up:
                return found
            time.sleep(0.5)

    def values(self, expr: str) -> list[float]:
        return [value for _, value in self.series(expr)]

    def answer(self, query: Query, window: str = "30s") -> dict[str, float]:
        """What a panel shows for *query*, by line or row. Fails without any number, and where two lines look the same."""
        found = self.series(query.substituted(window))
        assert any(math.isfinite(value) for _, value in found), f"{query.expr} -> {found}"
        shown = {query.line(labels) if query.legend else str(labels): value for labels, value in found}
        assert len(shown) == len(found), f"{query.legend} -> {found}"
        return shown


def start(processes: Processes, folder: Path, targets: Mapping[str, Sequence[int]]) -> Prometheus:
    """*targets* are ports by job. With our alerts, and files in *folder*."""
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{each}" for each in ports]}]} for job, ports in targets.items()]
    every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config, port = folder / "prometheus.yml", free_port()
    config.write_text(yaml.safe_dump({"global": every, "rule_files": [str(_ALERTS)], "scrape_configs": jobs}))
    options = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}")
    processes.start("prometheus", *options, log=folder / "prometheus.log")
    until(f"http://127.0.0.1:{port}/-/ready")
    return Prometheus(port)
