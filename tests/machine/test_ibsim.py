"""What the fabric's own programs print, on which the fabric group relies."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.machine import ibsim
from tests.machine.conftest import skip


@pytest.fixture(scope="module")
def fabric(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ibsim.Fabric]:
    skip(ibsim.missing())
    with ibsim.Fabric(tmp_path_factory.mktemp("fabric")) as fabric:
        yield fabric


def test_discovery_finds_both_ends_of_every_link(fabric: ibsim.Fabric) -> None:
    lines = fabric.run("ibnetdiscover").splitlines()
    nodes = [line.split()[:3] for line in lines if re.match(r"Switch|Ca", line)]
    assert nodes == [["Switch", "8", '"S-0000000000200000"'], ["Ca", "2", '"H-0000000000100003"'], ["Ca", "2", '"H-0000000000100000"']]
    assert len([line for line in lines if line.startswith("[")]) == 6
    assert '[4]\t"H-0000000000100003"[1](100004) \t\t# "Hca2" lid 4 4xSDR' in lines


def test_discovery_names_the_nodes(fabric: ibsim.Fabric) -> None:
    assert sorted(re.findall(r'ports 2 "(\w+)"', fabric.run("ibhosts"))) == ["Hca1", "Hca2"]
    assert re.findall(r'ports 8 "(\w+)"', fabric.run("ibswitches")) == ["Switch1"]


def test_port_counters_of_this_host(fabric: ibsim.Fabric) -> None:
    counters = dict(re.findall(r"^(\w+):\.+(\w+)$", fabric.run("perfquery"), re.MULTILINE))
    assert len(counters) == 21
    assert int(counters["PortXmitData"]) == 72 * int(counters["PortXmitPkts"]) > 0  # management datagrams of 288 bytes, in words
    assert counters["SymbolErrorCounter"] == "0"


def test_extended_port_counters(fabric: ibsim.Fabric) -> None:
    counters = dict(re.findall(r"^(\w+):\.+(\w+)$", fabric.run("perfquery", "-x"), re.MULTILINE))
    assert list(counters)[2:6] == ["PortXmitData", "PortRcvData", "PortXmitPkts", "PortRcvPkts"]


def test_counters_of_a_remote_port(fabric: ibsim.Fabric) -> None:
    answer = fabric.run("perfquery", "2", "4")
    assert answer.startswith("# Port counters: Lid 2 port 4 ")


def test_links_have_width_speed_and_state(fabric: ibsim.Fabric) -> None:
    lines = fabric.run("iblinkinfo", "-l").splitlines()
    up = [line for line in lines if "4X           2.5 Gbps Active/  LinkUp" in line]
    assert (len(up), len(lines)) == (6, 11)
