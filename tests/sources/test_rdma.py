"""The RDMA source on recorded hosts: the seed's page byte for byte, typed metrics, facts, steady series."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.model import Batch, Family, Reading, Snapshot
from tests.hosts.gentree import COUNTERS, HW_COUNTERS, generate
from tests.hosts.recorded import HOSTS, unpack
from tests.sources.rdma_host import opened, port, stats, values

RECORDED = sorted(path.name for path in HOSTS.iterdir() if path.name.startswith("rdma-") and (path / "tree.txt").exists())

# What prometheus-rdma-exporter shows of the same files by the example in its README, in its names, labels and words.
SEED_PAGE = """\
# HELP rdma_port_stat_total RDMA port statistics.
# TYPE rdma_port_stat_total counter
rdma_port_stat_total{device="mlx5_0",port="1",stat="port_rcv_data"} 1234567000
rdma_port_stat_total{device="mlx5_0",port="1",stat="port_rcv_packets"} 1234567
rdma_port_stat_total{device="mlx5_0",port="1",stat="port_xmit_data"} 987654300
rdma_port_stat_total{device="mlx5_0",port="1",stat="port_xmit_packets"} 987654
# HELP rdma_up Was the last scrape of RDMA statistics successful.
# TYPE rdma_up gauge
rdma_up 1
"""
SEED_VALUES = {"port_rcv_data": 1234567000, "port_rcv_packets": 1234567, "port_xmit_data": 987654300, "port_xmit_packets": 987654}


@pytest.fixture(autouse=True)
def _no_descriptor_left():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


def page(reading: Reading, *metrics: object) -> str:
    families = tuple(Family(row, ((1, reading.columns[row]),)) for row in reading.columns if not metrics or row in metrics)
    return Page({}).render(Batch(Snapshot(1, 1, 1, {}, {}), families), Format.TEXT).decode()


def test_the_seeds_page_byte_for_byte(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    directory = port(tmp_path, "mlx5_0")
    for path in [*(directory / "counters").iterdir(), *(directory / "hw_counters").iterdir()]:
        path.unlink()
    for name, value in SEED_VALUES.items():
        (directory / "counters" / name).write_text(f"{value}\n")
    with opened(tmp_path) as source:
        assert page(source.read(), rows.PORT_STAT, rows.UP) == SEED_PAGE


def test_the_seeds_duration_is_the_time_of_the_reading(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    with opened(tmp_path) as source:
        (seconds,) = values(source.read(), "rdma_scrape_duration_seconds").values()
    assert 0 < seconds < 1


@pytest.mark.parametrize("host", RECORDED)
def test_every_counter_file_is_a_point_with_its_own_value(host: str, tmp_path: Path) -> None:
    """Against a plain reading of the tree: all files of counters/ and hw_counters/ but the levels among them."""
    unpack(host, tmp_path)
    expected = {}
    for path in (tmp_path / "sys/devices").rglob("*counters/*"):
        where = path.parent.parent
        device, number = (where.parents[1].name, where.name) if where.parent.name == "ports" else (where.name, "0")
        if path.name != "lifespan" and (value := number_in(path)) is not None:
            expected[device, number, path.name] = value
    with opened(tmp_path) as source:
        assert stats(source.read()) == expected
    assert expected or host == "rdma-rxe-pod"


def number_in(path: Path) -> int | None:
    """None for what cannot be read or is no number."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


@pytest.mark.parametrize("host", RECORDED)
def test_series_stay_the_same_objects_while_nothing_changes(host: str, tmp_path: Path) -> None:
    unpack(host, tmp_path)
    with opened(tmp_path) as source:
        source.read()
        before, after = source.read().columns, source.read().columns
    assert before.keys() == after.keys()
    assert all(before[row].series is after[row].series for row in before)
    assert all(len(column.series) == len(column.values) for column in after.values())


@pytest.mark.parametrize("host", RECORDED)
def test_no_two_points_are_the_same_series(host: str, tmp_path: Path) -> None:
    unpack(host, tmp_path)
    with opened(tmp_path) as source:
        columns = source.read().columns
    lines = [line.rsplit(" ", 1)[0] for line in page(Reading(columns)).splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines)) == sum(len(column.series) for column in columns.values())


def test_data_counters_are_octets_and_efa_counts_bytes(tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path / "ib")
    unpack("rdma-efa", tmp_path / "efa")
    with opened(tmp_path / "ib") as ib, opened(tmp_path / "efa") as efa:
        assert set(values(ib.read(), "hw.network.io").values()) == {4_000_000_000, 8_000_000_000}
        assert values(efa.read(), "hw.network.io") == {
            ("rdmap0s6/1", "network", "receive", "rdmap0s6", 1): 2002,
            ("rdmap0s6/1", "network", "transmit", "rdmap0s6", 1): 2000,
        }


def test_efa_has_device_counters_and_no_counters_directory(tmp_path: Path) -> None:
    unpack("rdma-efa", tmp_path)
    with opened(tmp_path) as source:
        reading = source.read()
    assert values(reading, "rdma.device.commands")["submitted", "rdmap0s6"] == 1000
    assert stats(reading)["rdmap0s6", "0", "submitted_cmds"] == 1000
    assert stats(reading)["rdmap0s6", "1", "tx_bytes"] == 2000
    assert reading.problems == []


def test_lifespan_and_other_levels_are_gauges_only(tmp_path: Path) -> None:
    unpack("rdma-ib", tmp_path)
    (port(tmp_path, "fakeib0") / "hw_counters/active_qps").write_text("17\n")
    with opened(tmp_path) as source:
        reading = source.read()
    assert not {stat for _, _, stat in stats(reading)} & {"lifespan", "active_qps"}
    assert values(reading, "rdma.driver.level") == {("fakeib0", 1, "active_qps"): 17}
    assert values(reading, "rdma.stat.lifespan")["fakeib0", 1] == pytest.approx(0.012)


def test_two_ports_with_the_same_counters_are_told_apart(tmp_path: Path) -> None:
    generate(tmp_path, 1, ports=2)
    (port(tmp_path, "mlx5_0", 1) / "counters/port_xmit_data").write_text("1\n")
    (port(tmp_path, "mlx5_0", 2) / "counters/port_xmit_data").write_text("2\n")
    with opened(tmp_path) as source:
        reading = source.read()
    assert stats(reading)["mlx5_0", "1", "port_xmit_data"] == 1
    assert stats(reading)["mlx5_0", "2", "port_xmit_data"] == 2
    assert values(reading, "hw.network.io")["mlx5_0/2", "network", "transmit", "mlx5_0", 2] == 8


@pytest.mark.parametrize(
    ("driver", "of_device", "expected"), [("mlx5_core", True, {1}), ("mlx5_core", False, {1, 2, 3}), ("mlx4_core", True, {1, 2, 3})]
)
def test_the_function_of_representors_is_counted_once(driver: str, of_device: bool, expected: set[int], tmp_path: Path) -> None:
    """mlx5 in switchdev mode: counters/ of every port is that of the physical function. Its hw_counters are each port's own."""
    generate(tmp_path, 1, ports=3)
    device = port(tmp_path, "mlx5_0").parent.parent
    (device / "device/driver").symlink_to(tmp_path / driver)
    if of_device:
        (device / "hw_counters").mkdir()
        (device / "hw_counters/rx_write_requests").write_text("5\n")
    for number in (1, 2, 3):
        (port(tmp_path, "mlx5_0", number) / "hw_counters/vport_rx_write_requests").write_text(f"{number}\n")
    with opened(tmp_path) as source:
        reading = source.read()
    assert {key[-1] for key in values(reading, "hw.network.io")} == expected
    assert {number for _, number, stat in stats(reading) if stat in COUNTERS} == {str(number) for number in expected}
    assert [stats(reading)["mlx5_0", str(number), "vport_rx_write_requests"] for number in (1, 2, 3)] == [1, 2, 3]


def test_a_driver_with_the_same_traffic_in_both_directories_is_counted_once(tmp_path: Path) -> None:
    """bnxt_re has port_xmit_data and tx_bytes: hw.network.io is the first, the other keeps its own name."""
    generate(tmp_path, 1)
    (port(tmp_path, "mlx5_0") / "hw_counters/tx_bytes").write_text("7\n")
    with opened(tmp_path) as source:
        reading = source.read()
    assert len(values(reading, "hw.network.io")) == 2
    assert values(reading, "rdma.stat")["mlx5_0", 1, "tx_bytes"] == 7
    assert stats(reading)["mlx5_0", "1", "tx_bytes"] == 7


def test_sixteen_devices_have_all_their_counters(tmp_path: Path) -> None:
    generate(tmp_path, 16)
    with opened(tmp_path) as source:
        found = stats(source.read())
    assert len(found) == 16 * (len(COUNTERS) + len(HW_COUNTERS) - 1) == 16 * 52


@pytest.mark.parametrize("descriptors", [0, 10, 100])
def test_a_small_budget_of_descriptors_loses_nothing(descriptors: int, tmp_path: Path) -> None:
    generate(tmp_path, 4)
    with opened(tmp_path) as source:
        whole = stats(source.read())
    before = len(os.listdir("/proc/self/fd"))
    with opened(tmp_path, descriptors=descriptors) as source:
        assert stats(source.read()) == whole
        held = len(os.listdir("/proc/self/fd")) - before
    assert held <= descriptors + 4 * (3 + 2)  # directories of each group, state files of each port


def test_without_a_device_the_source_is_absent_and_says_what_would_help(tmp_path: Path) -> None:
    for make in (lambda: None, lambda: (tmp_path / "sys/class/infiniband").mkdir(parents=True)):
        make()
        with pytest.raises(Unavailable) as caught, opened(tmp_path):
            pass
        assert caught.value.reason is Reason.ABSENT
        assert "rdma link add" in caught.value.detail


def test_a_recorded_tree_never_makes_the_source_ask_the_running_kernel(tmp_path: Path) -> None:
    """A recording is not of this kernel, also where netlink may be used: every device keeps to its files."""
    unpack("rdma-rxe", tmp_path)
    with opened(tmp_path, netlink=True) as source:
        reading = source.read()
    assert not values(reading, "rdma.resources")
    assert values(reading, "rdma.port.state")["rxe0", 1] == 4


def test_facts_hold_topology_and_configuration(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    (tmp_path / "sys/module/ib_core/parameters").mkdir(parents=True)
    (tmp_path / "sys/module/ib_core/parameters/netns_mode").write_text("Y\n")
    with opened(tmp_path) as source:
        facts = source.read().facts
    device = facts["devices"]["mlx5_0"]  # type: ignore[index]
    assert device["firmware"] == "28.39.1002"
    assert device["pci"]["address"] == "0000:10:00.0"
    assert device["ports"]["1"]["rate"] == {"bits_per_second": 4e11, "lanes": 4, "speed": "NDR"}
    assert device["ports"]["1"]["gids"][0]["netdev"] == "ens0f0np0"
    assert device["ports"]["1"]["pkeys"] == ["0xffff"]
    assert facts["modules"] == {"ib_core": {"netns_mode": "Y"}}


def test_info_metrics_name_device_and_port(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    with opened(tmp_path) as source:
        columns = source.read().columns
    assert columns[rows.DEVICE_INFO].series[0].attributes == {
        "rdma.device.name": "mlx5_0", "rdma.device.firmware": "28.39.1002", "rdma.device.type": "MT4129",
        "rdma.device.board_id": "MT_0000000838", "rdma.device.node_type": "CA", "rdma.device.node_guid": "9c63:c003:00aa:0000",
        "rdma.device.system_guid": "9c63:c003:00aa:0000", "pci.address": "0000:10:00.0", "numa.node": 0,
    }  # fmt: skip
    assert columns[rows.PORT_INFO].series[0].attributes == {
        "rdma.device.name": "mlx5_0", "rdma.port.number": 1, "rdma.link.layer": "Ethernet", "rdma.protocol": "roce",
        "rdma.link.speed": "NDR", "network.interface.name": "ens0f0np0",
    }  # fmt: skip


def test_a_closed_source_can_be_opened_again(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    with opened(tmp_path) as source:
        first = stats(source.read())
        source.close()
        source.close()
        source.open()
        assert stats(source.read()) == first
    shutil.rmtree(tmp_path / "sys")
