"""Tools beside the agent's cycles: programs of our own under their names, in a PATH of our own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Seconds
from otel_hostmetrics.sources.rdma import Rdma
from otel_hostmetrics.sources.rdma.tool import Tool
from tests.hosts.recorded import unpack
from tests.kernel.test_fabric_tools import COUNTERS, TOPOLOGY
from tests.sources.rdma_host import opened, values

OUR_GUID = "0002c90300fa4e00"  # of the recorded adapter


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


def test_topology_and_the_ports_at_the_other_end(path: Path, tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "host")
    topology = TOPOLOGY.replace("0000000000100000", OUR_GUID)
    program(path, "ibnetdiscover", f'[ "$*" = "-C mlx5_0 -P 1" ] || exit 3\n/bin/cat <<"E"\n{topology}\nE')
    extended = "PortXmitData:....................4294967296"
    program(
        path,
        "perfquery",
        f'echo "$*" >> {path}/asked\ncase "$*" in\n*-x\\ 2\\ 1) echo {extended};;\n*-x*) exit 1;;\n*) echo "{COUNTERS}";;\nesac',
    )
    with opened(tmp_path / "host", fabric=("ibnetdiscover", "perfquery")) as source:
        reading = settled(source, "rdma.fabric.stat")
    assert values(reading, "rdma.fabric.nodes") == {("mlx5_0", "switch", 1): 1, ("mlx5_0", "ca", 1): 2}
    assert values(reading, "rdma.fabric.links") == {("mlx5_0", 1): 3}
    assert values(reading, "rdma.fabric.stat")["mlx5_0", "0000000000200000", "Switch1", 2, 1, "LinkDownedCounter"] == 3
    assert values(reading, "rdma.fabric.stat")["mlx5_0", "0000000000200000", "Switch1", 2, 1, "PortXmitData"] == 2**32 - 1  # no more bits
    assert values(reading, "rdma.fabric.stat")["mlx5_0", "0000000000200000", "Switch1", 1, 1, "PortXmitData"] == 2**32
    # Port 1 of the adapter leads to port 1 of the switch, port 2 to port 2; the switch has lid 2.
    asked = (path / "asked").read_text().splitlines()
    assert asked == ["-C mlx5_0 -P 1 2 1", "-C mlx5_0 -P 1 -x 2 1", "-C mlx5_0 -P 1 2 2", "-C mlx5_0 -P 1 -x 2 2"]
    (nodes,) = reading.facts["fabric"].values()  # type: ignore[attr-defined]
    assert [node["name"] for node in nodes] == ["Switch1", "Hca2", "Hca1"]
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
