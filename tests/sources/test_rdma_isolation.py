"""One bad file, port or device costs itself only, and a value that cannot be read is absent, never 0."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason
from tests.hosts.gentree import COUNTERS, HW_COUNTERS, generate
from tests.hosts.recorded import unpack
from tests.sources.rdma_host import opened, port, stats, values

EINVAL = "/sys/class/net/lo/speed"  # loopback has none: the running kernel refuses to tell it
WHOLE = len(COUNTERS) + len(HW_COUNTERS) - 1  # lifespan is no counter


def spoil(path: Path, how: str) -> None:
    path.unlink()
    if how == "EINVAL":
        path.symlink_to(EINVAL)
    elif how == "EIO":  # reading a directory is EISDIR: an errno that means nothing here
        path.mkdir()
    elif how == "EACCES":
        path.symlink_to(path)  # ELOOP
    else:
        path.write_text(how)


@pytest.mark.parametrize("how", ["EINVAL", "EIO", "EACCES", "N/A (no PMA)\n", "", "12 34\n", "-\n", "0x10\n", "\xff\n"])
@pytest.mark.parametrize(
    "name", ["counters/port_xmit_data", "counters/symbol_error", "hw_counters/out_of_buffer", "hw_counters/rx_write_requests"]
)
def test_a_bad_file_is_absent_and_costs_nothing_else(name: str, how: str, tmp_path: Path) -> None:
    generate(tmp_path, 2)
    spoil(port(tmp_path, "mlx5_0") / name, how)
    with opened(tmp_path) as source:
        for _ in range(3):
            reading = source.read()
            found = stats(reading)
            assert ("mlx5_0", "1", Path(name).name) not in found
            assert len(found) == 2 * WHOLE - 1
            assert len(reading.problems) == 1
            assert name in reading.problems[0].what
            assert values(reading, "rdma_up") == {(): 1}


def test_a_port_that_refuses_all_counters_keeps_its_hardware_counters(tmp_path: Path) -> None:
    """A restricted ConnectX-7 function: each file of counters/ is EINVAL."""
    unpack("rdma-mlx5-restricted", tmp_path)
    with opened(tmp_path) as source:
        reading = source.read()
    assert stats(reading)["mlx5_0", "1", "out_of_buffer"] == 2004
    assert not any(stat in COUNTERS for _, _, stat in stats(reading))
    assert {(problem.reason, problem.what.rsplit("/", 1)[1]) for problem in reading.problems} == {(Reason.UNSUPPORTED, "counters")}


def test_a_device_that_vanishes_takes_only_its_own_series(tmp_path: Path) -> None:
    generate(tmp_path, 3)
    with opened(tmp_path) as source:
        assert len(stats(source.read())) == 3 * WHOLE
        (tmp_path / "sys/class/infiniband/mlx5_1").unlink()
        shutil.rmtree(tmp_path / "sys/devices/pci0000:00/0000:11:00.0")
        found = stats(source.read())
        assert {device for device, _, _ in found} == {"mlx5_0", "mlx5_2"}
        assert len(found) == 2 * WHOLE


def test_a_device_that_is_added_is_there_in_the_next_cycle(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    with opened(tmp_path) as source:
        source.read()
        generate_again(tmp_path, 2)
        assert {device for device, _, _ in stats(source.read())} == {"mlx5_0", "mlx5_1"}


def test_all_devices_gone_is_a_failure_that_ends_when_one_is_back(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    with opened(tmp_path) as source:
        source.read()
        (tmp_path / "sys/class/infiniband/mlx5_0").rename(tmp_path / "away")
        reading = source.read()
        assert values(reading, "rdma_up") == {(): 0}
        assert [problem.reason for problem in reading.problems] == [Reason.GONE]
        assert not stats(reading)
        (tmp_path / "away").rename(tmp_path / "sys/class/infiniband/mlx5_0")
        reading = source.read()
        assert values(reading, "rdma_up") == {(): 1}
        assert len(stats(reading)) == WHOLE


def test_up_is_0_when_there_are_devices_and_no_counter_can_be_read(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    directory = port(tmp_path, "mlx5_0")
    for path in [*(directory / "counters").iterdir(), *(directory / "hw_counters").iterdir()]:
        spoil(path, "EINVAL")
    with opened(tmp_path) as source:
        reading = source.read()
        assert values(reading, "rdma_up") == {(): 0}
        assert values(reading, "rdma.port.state") == {("mlx5_0", 1): 4}
        assert values(source.read(), "rdma_up") == {(): 0}


def test_a_port_without_a_readable_state_has_failed_and_keeps_its_counters(tmp_path: Path) -> None:
    generate(tmp_path, 2)
    spoil(port(tmp_path, "mlx5_0") / "state", "EIO")
    with opened(tmp_path) as source:
        reading = source.read()
    status = {(device, state): value for (_, state, _, device, _), value in values(reading, "hw.status").items()}
    assert status["mlx5_0", "failed"] == 1
    assert status["mlx5_1", "ok"] == 1
    assert len(stats(reading)) == 2 * WHOLE
    assert set(values(reading, "hw.network.up")) == {("mlx5_1/1", "network", "mlx5_1", 1)}


def test_a_refusing_port_is_asked_less_and_less_often(tmp_path: Path) -> None:
    """After 1, 2, 4, ... cycles, and then one file only: opens are counted by moving the answer back."""
    generate(tmp_path, 1)
    file = port(tmp_path, "mlx5_0") / "counters/port_xmit_data"
    spoil(file, "EINVAL")
    with opened(tmp_path) as source:
        for _ in range(8):  # asked in cycles 1, 2, 4, 8
            source.read()
        file.unlink()
        file.write_text("5\n")
        back = [("mlx5_0", "1", "port_xmit_data") in stats(source.read()) for _ in range(8)]
    assert back == [False] * 7 + [True]


def test_a_file_that_is_back_is_found_among_others_that_never_are(tmp_path: Path) -> None:
    """Also where a file that never has a value comes before it, and fails for the same reason."""
    generate(tmp_path, 1)
    counters = port(tmp_path, "mlx5_0") / "counters"
    for name in ("multicast_rcv_packets", "multicast_xmit_packets", "unicast_xmit_packets"):
        spoil(counters / name, "EINVAL")
    with opened(tmp_path) as source:
        source.read()
        (counters / "unicast_xmit_packets").unlink()
        (counters / "unicast_xmit_packets").write_text("5\n")
        found = [("mlx5_0", "1", "unicast_xmit_packets") in stats(source.read()) for _ in range(16)]
    assert found[-1]


def test_a_transient_error_hides_a_value_for_one_cycle(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    file = port(tmp_path, "mlx5_0") / "counters/port_xmit_data"
    key = ("mlx5_0", "1", "port_xmit_data")
    with opened(tmp_path, descriptors=0) as source:
        before = stats(source.read())[key]
        content = file.read_text()
        file.write_text("")
        assert key not in stats(source.read())
        file.write_text(content)
        assert stats(source.read())[key] == before


def test_a_port_that_loses_its_counters_between_listing_and_opening_is_a_problem(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    directory = port(tmp_path, "mlx5_0") / "counters"
    os.symlink(tmp_path / "nowhere", directory / "dangling")
    with opened(tmp_path) as source:
        reading = source.read()
    assert len(stats(reading)) == WHOLE
    assert any("dangling" in problem.what for problem in reading.problems)


def generate_again(root: Path, devices: int) -> None:
    """Like generate(), for a host that has some of them already."""
    shutil.rmtree(root / "sys")
    generate(root, devices)
