"""What the selectors of the RDMA alerts find: each value of a label that they name is one that some driver's page has.

Those of the energy and GPU alerts are asked where such hosts are made: tests/system/test_energy_dashboard.py, tests/gpu.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue import rdma_counters
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.model import State
from tests.dashboards.queries import matching
from tests.deploy.alerts import selectors
from tests.export.prometheus.batches import batch
from tests.hosts.recorded import unpack
from tests.sources.rdma_host import opened
from tests.system import recorded_rdma

_HOSTS = ("rdma-mlx5-ib", "rdma-ib", "rdma-irdma", "rdma-rxe", "rdma-efa")
_STATUS, _SATURATED = "otel_hostmetrics_source_status", "rdma_stat_saturated"


def _page(host: str, folder: Path) -> str:
    unpack(host, folder)
    with opened(folder) as source:
        return Page({}).render(batch(*source.read().columns.items()), Format.TEXT).decode()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = [_page(host, tmp_path_factory.mktemp(host)) for host in _HOSTS]
    return "".join([*found, recorded_rdma.page(tmp_path_factory.mktemp("netlink")).decode()])


@pytest.mark.parametrize(("name", "matchers"), sorted(each for each in selectors("rdma") if each[0] not in (_STATUS, _SATURATED)))
def test_some_driver_has_it(pages: str, name: str, matchers: str) -> None:
    assert matching(pages, name, matchers)


def _values(metric: str, label: str) -> set[str]:
    return {value for name, matchers in selectors("rdma") if name == metric for value in re.findall(rf'{label}="([^"]*)"', matchers)}


def test_counters_that_may_be_full_do_stop_at_a_value() -> None:
    names = _values(_SATURATED, "rdma_stat_name")
    assert len(names) == 4
    assert all(rdma_counters.saturates_at("counters", name) for name in names)
    assert names <= _values("hw_errors_total", "error_type"), "their growth is watched, too"


def test_a_port_counts_as_gone_in_every_state_in_which_the_adapters_were_looked_for() -> None:
    assert _values(_STATUS, "otel_hostmetrics_source_state") == {state.value for state in State} - {"failed", "late"}
