"""Tools beside the agent's cycles: programs of our own under their names, in a PATH of our own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue.model import Number
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Seconds
from otel_hostmetrics.sources.rdma import Rdma
from otel_hostmetrics.sources.rdma.tool import Tool
from tests.hosts.gentree import generate
from tests.hosts.recorded import unpack
from tests.kernel.test_fabric_tools import COUNTERS, TOPOLOGY
from tests.process import eventually
from tests.sources.rdma_host import opened, port, values

OUR_GUID = "0002c90300fa4e00"  # of the recorded adapter
TWO_ADAPTERS = TOPOLOGY.replace("0000000000100000", "9c63c00300aa0000").replace("0000000000100003", "9c63c00300aa0001")


def two_adapters(root: Path) -> None:
    """Those of TWO_ADAPTERS."""
    generate(root, 2)
    for device in ("mlx5_0", "mlx5_1"):
        (port(root, device) / "link_layer").write_text("InfiniBand\n")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs; the shell is found, no other tool is."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


def program(path: Path, name: str, script: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def settled(source: Rdma, name: str, reading: Reading | None = None) -> Reading:
    """Cycles until a metric is there; each must be short, whatever runs beside it."""
    for _ in range(200):
        begin = time.monotonic()
        reading = source.read()
        assert time.monotonic() - begin < 0.5
        if values(reading, name):
            return reading
        time.sleep(0.02)
    raise AssertionError(f"no {name}; problems: {reading and reading.problems}")


def test_topology_and_the_port_at_the_other_end(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    topology = TOPOLOGY.replace("0000000000100000", OUR_GUID)
    program(path, "ibnetdiscover", f'[ "$*" = "-C mlx5_0 -P 1" ] || exit 3\n/bin/cat <<"E"\n{topology}\nE')
    extended = "PortXmitData:....................4294967296"
    program(path, "perfquery", f'echo "$*" >> {path}/asked\ncase "$*" in\n*-x*) echo {extended};;\n*) echo "{COUNTERS}";;\nesac')
    with opened(tmp_path / "host", fabric=("ibnetdiscover", "perfquery")) as source:
        reading = settled(source, "rdma.fabric.stat")
    assert values(reading, "rdma.fabric.nodes") == {("mlx5_0", "switch", 1): 1, ("mlx5_0", "ca", 1): 2}
    assert values(reading, "rdma.fabric.links") == {("mlx5_0", 1): 3}
    there = ("mlx5_0", "0000000000200000", "Switch1", 1, 1)
    assert values(reading, "rdma.fabric.stat") == {
        (*there, "SymbolErrorCounter"): 0, (*there, "LinkDownedCounter"): 3, (*there, "PortXmitData"): 2**32,
    }  # fmt: skip
    # Port 1 leads to port 1 of the switch, which has lid 2; port 2 of the adapter is another port, or nobody's whom we serve.
    assert (path / "asked").read_text().splitlines() == ["-C mlx5_0 -P 1 2 1", "-C mlx5_0 -P 1 -x 2 1"]
    (nodes,) = reading.facts["fabric"].values()  # type: ignore[attr-defined]
    assert [node["name"] for node in nodes] == ["Switch1", "Hca2", "Hca1"]
    assert reading.problems == []


def test_each_adapter_of_a_host_has_its_own_cable(path: Path, tmp_path: Path) -> None:
    """Both see the whole fabric, and so each other's links."""
    two_adapters(tmp_path / "host")
    program(path, "ibnetdiscover", f'/bin/cat <<"E"\n{TWO_ADAPTERS}\nE')
    program(path, "perfquery", f'echo "$*" >> {path}/asked\necho "{COUNTERS}"')
    with opened(tmp_path / "host", fabric=("ibnetdiscover", "perfquery")) as source:
        reading = settled(source, "rdma.fabric.stat")
    found = {labels[:5] for labels in values(reading, "rdma.fabric.stat")}
    switch = ("0000000000200000", "Switch1")
    assert found == {("mlx5_0", *switch, 1, 1), ("mlx5_1", *switch, 4, 1)}
    assert len((path / "asked").read_text().splitlines()) == 4


def test_a_counter_is_never_told_in_another_width(path: Path, tmp_path: Path) -> None:
    """While nobody answers with 64 bits, those of 32 do not stand in for them."""
    unpack("rdma-mlx5-ib", tmp_path / "host")
    program(path, "ibnetdiscover", f'/bin/cat <<"E"\n{TOPOLOGY.replace("0000000000100000", OUR_GUID)}\nE')
    extended = f"[ -e {path}/lost ] && exit 1; echo PortXmitData:....................9000000000000"
    program(path, "perfquery", f'case "$*" in\n*-x*) {extended};;\n*) echo "{COUNTERS}";;\nesac')
    with opened(tmp_path / "host", fabric=("ibnetdiscover", "perfquery"), fabric_interval=Seconds(0.1)) as source:

        def told() -> dict[object, Number]:
            return {labels[-1]: value for labels, value in values(source.read(), "rdma.fabric.stat").items()}

        (path / "lost").touch()
        problem = eventually(lambda: source.read().problems)[0]
        assert (problem.reason, "-x" in problem.what) == (Reason.UNREADABLE, True)
        assert told() == {}  # which of them it has in 64 bits is not known yet
        (path / "lost").unlink()
        whole = {"SymbolErrorCounter": 0, "LinkDownedCounter": 3, "PortXmitData": 9 * 10**12}
        eventually(lambda: told() == whole)
        (path / "lost").touch()
        eventually(lambda: told() != whole)
        assert told() == {"SymbolErrorCounter": 0, "LinkDownedCounter": 3}
        (path / "lost").unlink()
        eventually(lambda: told() == whole)


def test_a_port_that_says_it_has_no_extended_counters_is_not_asked_for_them(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    program(path, "ibnetdiscover", f'/bin/cat <<"E"\n{TOPOLOGY.replace("0000000000100000", OUR_GUID)}\nE')
    program(path, "perfquery", f'echo "$*" >> {path}/asked\necho "{COUNTERS.replace("0x1200", "0x1000")}"')
    with opened(tmp_path / "host", fabric=("ibnetdiscover", "perfquery")) as source:
        reading = settled(source, "rdma.fabric.stat")
    assert values(reading, "rdma.fabric.stat")["mlx5_0", "0000000000200000", "Switch1", 1, 1, "PortXmitData"] == 2**32 - 1
    assert (path / "asked").read_text().splitlines() == ["-C mlx5_0 -P 1 2 1"]
    assert reading.problems == []


def test_a_tool_that_hangs_is_killed_at_its_limit_and_costs_no_cycle(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    program(path, "ibnetdiscover", f"echo $$ > {path}/pid\nexec /bin/sleep 60")
    with opened(tmp_path / "host", fabric=("ibnetdiscover",), fabric_timeout=Seconds(0.3)) as source:
        begin = time.monotonic()
        while not (problems := source.read().problems):
            assert time.monotonic() - begin < 5
            time.sleep(0.02)
        assert [problem.reason for problem in problems] == [Reason.LATE]
        assert not running(path / "pid")


def test_closing_the_source_ends_what_runs(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    program(path, "ibnetdiscover", f"echo $$ > {path}/pid\n/bin/sleep 60")
    before = os.listdir("/proc/self/fd")
    with opened(tmp_path / "host", fabric=("ibnetdiscover",)) as source:
        source.read()
        while not (path / "pid").exists() or not (path / "pid").read_text():
            time.sleep(0.01)
    assert not running(path / "pid")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def running(pid: Path) -> bool:
    return Path("/proc", pid.read_text().strip()).exists()


def test_a_tool_that_is_not_installed_is_named_with_its_package(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    with opened(tmp_path / "host", fabric=("ibnetdiscover",)) as source:
        (problem,) = source.read().problems
    assert (problem.reason, problem.what) == (Reason.ABSENT, "ibnetdiscover")
    assert "infiniband-diags" in problem.detail


def test_a_tool_that_fails_is_a_problem_with_its_exit_code(path: Path, tmp_path: Path) -> None:
    program(path, "ibnetdiscover", "exit 7")
    tool = Tool((str(path / "ibnetdiscover"),), 5)
    time.sleep(0.3)
    with pytest.raises(Unavailable, match="exit code 7"):
        tool.output()


def test_nothing_is_run_unless_asked_for(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    program(path, "ibnetdiscover", f"echo $$ > {path}/pid")
    with opened(tmp_path / "host") as source:
        source.read()
        time.sleep(0.1)
        source.read()
    assert not (path / "pid").exists()
