"""Modules of ports: read beside the cycles, and what becomes of each answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.module_access import Cages
from otel_hostmetrics.kernel.module_eeprom import A0, Eeprom
from otel_hostmetrics.model import Reading
from otel_hostmetrics.sources.rdma.devices import Owner
from otel_hostmetrics.sources.rdma.interfaces import Netdev
from otel_hostmetrics.sources.rdma.modules import Modules
from tests.hosts.recorded import unpack
from tests.kernel.links import Links
from tests.kernel.modules import QSFP28, SFP_COPPER, Memory
from tests.sources.rdma_host import opened, values

CAGES = {"eth0": Owner("mlx5_0", 1), "eth1": Owner("mlx5_1", 1), "eth2": Owner("mlx5_2", 1)}


class Shelf(Cages):
    """Modules of our own in the cages of interfaces."""

    def __init__(self, modules: Mapping[str, Memory | Unavailable], delay: float = 0) -> None:
        super().__init__()
        self.modules = modules
        self.delay = delay
        self.closed = False

    def open(self, name: str) -> Eeprom:
        time.sleep(self.delay)
        found = self.modules[name]
        if isinstance(found, Unavailable):
            raise found
        return found

    def close(self) -> None:
        super().close()
        self.closed = True


def reading(modules: Modules) -> Reading:
    """After the round that is under way."""
    for thread in threading.enumerate():
        if thread.name == "rdma-modules":
            thread.join(10)
    modules.step()
    return Reading(columns=dict(modules.columns()), problems=list(modules.problems()), facts=modules.facts())


def over(shelf: Shelf, interval: float = 3600) -> Modules:
    modules = Modules([Netdev(CAGES[name], name) for name in shelf.modules], interval, lambda: shelf)
    modules.step()
    return modules


def test_a_module_and_a_cable() -> None:
    shelf = Shelf({"eth0": Memory.of(QSFP28), "eth1": Memory.of(SFP_COPPER)})
    found = reading(over(shelf))
    assert shelf.closed
    assert values(found, "rdma.module.temperature") == {("eth0", "mlx5_0", 1): 41.25}
    assert values(found, "rdma.module.voltage") == {("eth0", "mlx5_0", 1): pytest.approx(3.295)}
    assert values(found, "rdma.module.cable.length") == {("eth0", "mlx5_0", 1): 10.0, ("eth1", "mlx5_1", 1): 3.0}
    power = values(found, "rdma.module.power")
    assert len(power) == 8
    assert power["eth0", "receive", "mlx5_0", 2, 1] == pytest.approx(800e-6)
    assert list(values(found, "rdma.module.bias").values()) == pytest.approx([3e-3] * 4)
    (info,) = [key for key in values(found, "rdma.module.info") if "eth1" in key]
    assert {"SFP", "passive copper", "Mellanox", "MCP2100-X003B", "MT1634VB00002", "copper pigtail"} <= set(info)
    facts = found.facts["transceivers"]
    assert isinstance(facts, dict)
    assert facts["mlx5_1/1"]["date"] == "2016-08-30"
    assert len(facts["mlx5_0/1"]["lanes"]) == 4
    assert found.problems == []


def test_one_cage_costs_itself_only() -> None:
    """A driver that knows no modules is no problem; a module that does not answer is one."""
    broken = Unavailable(Reason.UNREADABLE, "ethtool eth1", "Input/output error")
    shelf = Shelf({"eth0": Unavailable(Reason.UNSUPPORTED, "ethtool eth0"), "eth1": broken, "eth2": Memory.of(SFP_COPPER)})
    found = reading(over(shelf))
    assert found.problems == [broken]
    assert list(values(found, "rdma.module.cable.length").values()) == [3.0]


def test_half_a_module_is_a_problem_that_names_it() -> None:
    memory = Memory.of(QSFP28)
    memory.parts[A0, 0, 128] = b"\x11"
    (problem,) = reading(over(Shelf({"eth0": memory}))).problems
    assert (problem.reason, problem.what) == (Reason.MALFORMED, "module of eth0")


def test_a_cycle_does_not_wait_for_a_slow_module() -> None:
    shelf = Shelf({"eth0": Memory.of(SFP_COPPER)}, delay=0.3)
    begin = time.monotonic()
    modules = over(shelf)
    modules.step()
    assert list(modules.columns()) == []
    assert time.monotonic() - begin < 0.2
    assert values(reading(modules), "rdma.module.cable.length")


def test_rounds_have_their_own_pace() -> None:
    shelf = Shelf({"eth0": Memory.of(SFP_COPPER)})
    modules = over(shelf)
    reading(modules)
    shelf.modules = {"eth0": Unavailable(Reason.UNSUPPORTED, "ethtool eth0")}
    assert values(reading(modules), "rdma.module.cable.length"), "the next round is in an hour"
    often = over(Shelf({"eth0": Memory.of(SFP_COPPER)}), interval=1e-9)
    reading(often)  # takes the first round and starts the next
    assert reading(often).problems == []
    often.close()


def test_a_module_that_was_pulled_is_forgotten() -> None:
    shelf = Shelf({"eth0": Memory.of(SFP_COPPER)})
    modules = over(shelf, interval=1e-9)
    assert values(reading(modules), "rdma.module.info")
    shelf.modules = {"eth0": Unavailable(Reason.UNREADABLE, "ethtool eth0", "Input/output error")}
    reading(modules)
    found = reading(modules)
    assert (values(found, "rdma.module.info"), found.facts) == ({}, {})
    assert len(found.problems) == 1
    modules.close()


def test_closing_ends_the_thread_between_two_modules() -> None:
    shelf = Shelf({name: Memory.of(SFP_COPPER) for name in CAGES}, delay=0.2)
    modules = over(shelf)
    begin = time.monotonic()
    modules.close()
    modules.close()
    assert time.monotonic() - begin < 0.5
    assert shelf.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "rdma-modules"]


def test_the_running_kernels_virtual_interfaces_have_none() -> None:
    with Links() as links:
        links.veth("smod0", "smod1")
        modules = Modules([Netdev(Owner("rxe0", 1), "smod0"), Netdev(Owner("rxe1", 1), "gone0")], 3600)
        modules.step()
        found = reading(modules)
        modules.close()
    assert found.columns == {}
    assert [(problem.reason, problem.what) for problem in found.problems] == [(Reason.GONE, "ethtool gone0")]


def test_ports_of_a_recording_have_no_cages_here(tmp_path: Path) -> None:
    """Its interfaces may have namesakes in the running kernel. The rest of the source is as ever."""
    unpack("rdma-rxe", tmp_path)
    with opened(tmp_path, modules=True, facts=False) as source:
        source.read()
        found = source.read()
    assert (found.problems, found.facts) == ([], {})
    assert values(found, "rdma.module.info") == {}
    assert values(found, "rdma_up") == {(): 1}
