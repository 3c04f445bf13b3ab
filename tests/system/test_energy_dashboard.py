"""The dashboard and the alerts of energy, asked of a page: recorded RAPL zones whose counters move, split by this kernel's cgroups."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.dashboards.queries import matching, queries
from tests.deploy.alerts import selectors
from tests.process import CLEAN, COMMAND, ROOT
from tests.sources.energy_hosts import drawing, host

pytestmark = pytest.mark.system

# Of a sensor that sees the whole host; and of workloads, where all processes are in the root's cgroup.
_ELSEWHERE = {"hw_host_power_watts", "workload_energy_joules_total", "workload_process_energy_joules_total"}
_CONTAINER = ("k8s_", "container_")  # matchers of workloads that test_energy_prometheus.py makes


def test_every_selector_of_the_dashboard_and_the_alerts_finds_points(tmp_path: Path) -> None:
    host("two-sockets", tmp_path)
    (tmp_path / "sys/fs").mkdir()
    (tmp_path / "sys/fs/cgroup").symlink_to("/sys/fs/cgroup")
    command = [*COMMAND, "--once", "--sources", "rapl", "--path.sysfs", str(tmp_path / "sys")]
    environ = CLEAN | {"OTEL_HOSTMETRICS_ATTRIBUTION__PROCESSES": "5"}
    with drawing(tmp_path, watts=20):
        page = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    asked = {selector for query in queries() if query.dashboard == "energy" for selector in query.selectors}
    asked = {(name, matchers) for name, matchers in asked if not any(each in matchers for each in _CONTAINER)}
    assert len(asked) > 8
    assert {name for name, matchers in asked if not matching(page, name, matchers)} <= _ELSEWHERE
    assert not [selector for selector in selectors("energy") if not matching(page, *selector)]
