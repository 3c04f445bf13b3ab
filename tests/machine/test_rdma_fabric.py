"""The opt-in fabric group with infiniband-diags' own programs, over a simulated fabric."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_hostmetrics.kernel.infiniband import Device as Record
from otel_hostmetrics.kernel.infiniband import State
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.devices import Device, Owner, Port
from otel_hostmetrics.sources.rdma.fabric import Fabric
from tests.machine import ibsim
from tests.machine.conftest import skip
from tests.sources.rdma_host import values

# As the programs see it: ibsim has no sysfs of which the source could learn this.
_HCA1 = Record("ibsim0", None, None, None, None, State(1, "CA"), "0000:0000:0010:0000", None, None, None, ())
_PORT1 = Port(Owner("ibsim0", 1), "InfiniBand", "infiniband", ())


@pytest.fixture
def fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ibsim.Fabric]:
    skip(ibsim.missing())
    with ibsim.Fabric(tmp_path) as simulated:
        for name, value in simulated.environment.items():
            monkeypatch.setenv(name, value)  # for the programs that are started
        yield simulated


@pytest.mark.usefixtures("fabric")
def test_the_whole_fabric_and_the_switch_port_our_cable_leads_to() -> None:
    group = Fabric(Rdma(fabric=("ibnetdiscover", "perfquery")), [Device("ibsim0", _HCA1, (_PORT1,), None)])
    try:
        deadline = time.monotonic() + 20
        while not values(reading := Reading(dict(group.columns())), "rdma.fabric.stat"):
            assert time.monotonic() < deadline, group.problems()
            group.step()
            time.sleep(0.02)
    finally:
        group.close()
    assert values(reading, "rdma.fabric.nodes") == {("ibsim0", "switch", 1): 1, ("ibsim0", "ca", 1): 2}
    assert values(reading, "rdma.fabric.links") == {("ibsim0", 1): 3}
    stats = values(reading, "rdma.fabric.stat")
    switch = ("ibsim0", "0000000000200000", "Switch1")
    assert stats[*switch, 1, 1, "PortXmitData"] > 0
    assert {(name, port) for _, _, name, port, _, _ in stats} == {("Switch1", 1)}  # port 2 of the adapter is not among ours
    assert group.problems() == []
