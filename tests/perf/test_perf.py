"""No target of the benchmarks is missed by far. The figures themselves: ``python -m tests.perf``."""

from __future__ import annotations

import os

import pytest

from tests.perf import agent, bpf, export, rapl, rdma, workloads
from tests.perf.measure import QUICK, Report

pytestmark = pytest.mark.perf


def _check(report: Report) -> None:
    for what in report.skipped:
        print("not measured:", what)
    assert [failure for each in report.results if (failure := each.failure())] == []


@pytest.fixture
def _root() -> None:
    if why := bpf.obstacle():
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


@pytest.mark.usefixtures("_root")
def test_reading_bpf_objects_costs_what_it_should() -> None:
    _check(bpf.run(QUICK))


def test_exporting_costs_what_it_should() -> None:
    _check(export.run(QUICK))


@pytest.mark.usefixtures("_root")
def test_the_agent_is_as_small_as_it_should_be() -> None:
    _check(agent.run(QUICK))


def test_energy_zones_cost_what_they_should() -> None:
    _check(rapl.run(QUICK))


def test_rdma_counters_cost_what_they_should() -> None:
    _check(rdma.run(QUICK))


@pytest.mark.usefixtures("_root")
def test_knowing_whose_points_are_costs_what_it_should() -> None:
    _check(workloads.run(QUICK))
