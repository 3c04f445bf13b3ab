"""State, speed and changes of the link, from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_hostmetrics.settings import Seconds
from tests.hosts.gentree import generate
from tests.hosts.recorded import unpack
from tests.sources.rdma_host import opened, port, values

HW = ("mlx5_0/1", "network", "mlx5_0", 1)


def test_an_active_port(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    with opened(tmp_path) as source:
        reading = source.read()
    assert values(reading, "rdma.port.state") == {("mlx5_0", 1): 4}
    assert values(reading, "rdma.port.physical_state") == {("mlx5_0", 1): 5}
    assert values(reading, "hw.network.up") == {HW: 1}
    assert values(reading, "hw.network.bandwidth.limit") == {HW: 50_000_000_000}  # 400 Gb/s
    assert values(reading, "rdma.port.lanes") == {("mlx5_0", 1): 4}
    assert {state: value for (_, state, *_), value in values(reading, "hw.status").items()} == {"ok": 1, "degraded": 0, "failed": 0}


def test_a_port_that_is_down(tmp_path: Path) -> None:
    unpack("rdma-ib-down", tmp_path)
    with opened(tmp_path) as source:
        reading = source.read()
    assert set(values(reading, "hw.network.up").values()) == {0}
    assert {state: value for (_, state, *_), value in values(reading, "hw.status").items()}["ok"] == 1  # whatever the link


def test_lids_are_of_infiniband_only(tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "ib")
    generate(tmp_path / "roce", 1)
    with opened(tmp_path / "ib") as ib, opened(tmp_path / "roce") as roce:
        reading = ib.read()
        assert values(reading, "rdma.port.lid") == {("mlx5_0", 1): 17}
        assert values(reading, "rdma.port.sm_lid") == {("mlx5_0", 1): 1}
        assert values(roce.read(), "rdma.port.lid") == {}


def test_error_recovery_is_degraded(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    (port(tmp_path, "mlx5_0") / "phys_state").write_text("6: LinkErrorRecovery\n")
    with opened(tmp_path) as source:
        found = values(source.read(), "hw.status")
    assert {state: value for (_, state, *_), value in found.items()} == {"ok": 0, "degraded": 1, "failed": 0}


def test_flaps_are_counted_and_the_rate_is_read_again_after_one(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    directory = port(tmp_path, "mlx5_0")
    states = ["4: ACTIVE", "4: ACTIVE", "1: DOWN", "2: INIT", "4: ACTIVE", "5: ACTIVE_DEFER", "1: DOWN"]
    seen = []
    with opened(tmp_path, slow_interval=Seconds(3600)) as source:
        source.read()
        (directory / "rate").write_text("100 Gb/sec (4X EDR)\n")
        for state in states:
            (directory / "state").write_text(f"{state}\n")
            reading = source.read()
            events = values(reading, "rdma.link.events")
            up, down = events["mlx5_0", "port_up", 1], events["mlx5_0", "port_down", 1]
            seen.append((up, down, values(reading, "hw.network.bandwidth.limit")[HW] * 8 // 10**9))
    assert seen == [(0, 0, 400), (0, 0, 400), (0, 1, 100), (0, 1, 100), (1, 1, 100), (1, 1, 100), (1, 2, 100)]


def test_flaps_seen_are_kept_when_devices_come(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    generate(tmp_path / "more", 2)
    with opened(tmp_path) as source:
        source.read()
        (port(tmp_path, "mlx5_0") / "state").write_text("1: DOWN\n")
        source.read()
        (tmp_path / "sys/class/infiniband/mlx5_1").symlink_to((tmp_path / "more/sys/class/infiniband/mlx5_1").resolve())
        events = values(source.read(), "rdma.link.events")
    assert events["mlx5_0", "port_down", 1] == 1
    assert events["mlx5_1", "port_down", 1] == 0


def test_carrier_changes_of_the_interface_are_link_events(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    interface = tmp_path / "sys/class/net/ens0f0np0"
    interface.mkdir(parents=True)
    (interface / "device").symlink_to(tmp_path / "sys/class/infiniband/mlx5_0/device")
    (interface / "carrier_up_count").write_text("3\n")
    (interface / "carrier_down_count").write_text("2\n")
    with opened(tmp_path) as source:
        source.read()
        (interface / "carrier_down_count").write_text("4\n")
        events = values(source.read(), "rdma.link.events")
    assert (events["mlx5_0", "carrier_up", 1], events["mlx5_0", "carrier_down", 1]) == (3, 4)
    assert events["mlx5_0", "downed", 1] >= 0  # of counters/link_downed: one metric from two places


@pytest.mark.parametrize("content", ["", "garbage\n", "4\n", "\xff: \xff\n", "999999: X\n"])
def test_a_state_of_unknown_form_is_a_problem_and_no_value(content: str, tmp_path: Path) -> None:
    generate(tmp_path, 1)
    (port(tmp_path, "mlx5_0") / "state").write_text(content)
    with opened(tmp_path) as source:
        source.read()
        reading = source.read()
    assert values(reading, "rdma.port.state") == {}
    assert any(problem.what.endswith("/state") for problem in reading.problems)
