"""Something of a device changes, or a device comes or goes: what is there still goes on in the same series."""

from __future__ import annotations

import time
from pathlib import Path

from otel_hostmetrics.errors import Reason
from otel_hostmetrics.export.otlp.delta import Deltas
from otel_hostmetrics.kernel import nldev_records
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Family
from otel_hostmetrics.settings import Rdma as Chosen
from otel_hostmetrics.sources.rdma import Rdma
from otel_hostmetrics.sources.rdma.devices import added_again, discover
from tests.hosts.gentree import HW_COUNTERS, generate
from tests.sources.rdma_host import AT_ONCE, metric, opened, port, starts, stats, values

COUNTERS = ("rdma.link.events", "rdma.cm.messages", "hw.network.io", "rdma_port_stat")


def host(root: Path) -> Path:
    """One RoCE port with counters of the connection manager and of its interface's carrier."""
    generate(root, 1)
    directory = port(root, "mlx5_0")
    (directory / "cm_tx_msgs").mkdir()
    (directory / "cm_tx_msgs/req").write_text("5000000\n")
    interface = root / "sys/class/net/ens0f0np0"
    interface.mkdir(parents=True)
    (interface / "device").symlink_to(root / "sys/class/infiniband/mlx5_0/device")
    for way in ("up", "down"):
        (interface / f"carrier_{way}_count").write_text("1000\n")
    return directory


def vlan(directory: Path) -> None:
    """A GID of another interface appears at the port."""
    (directory / "gids/1").write_text("fe80:0000:0000:0000:0000:0000:0000:0001\n")
    (directory / "gid_attrs/ndevs/1").write_text("ens0f0np0.5\n")


def gained(source: Rdma, deltas: Deltas) -> dict[str, float]:
    """What counters gained since the last reading, as delta temporality exports it."""
    reading = source.read()
    found = {}
    for name in COUNTERS:
        row = metric(reading, name)
        assert row
        (increments,) = deltas.family(Family(row, ((time.time_ns(), reading.columns[row]),)))
        found[name] = sum(increments.values)
    return found


def test_another_gid_is_no_gain_of_any_counter(tmp_path: Path) -> None:
    directory = host(tmp_path)
    deltas = Deltas(1)
    with opened(tmp_path, rescan_interval=AT_ONCE) as source:
        assert gained(source, deltas)["rdma.cm.messages"] == 5_000_000
        before = source.read()
        vlan(directory)
        after = source.read()
        assert after.facts["devices"] != before.facts["devices"]
        assert gained(source, deltas) == dict.fromkeys(COUNTERS, 0)
    for name in COUNTERS:
        row = metric(before, name)
        assert row
        assert before.columns[row].series == after.columns[row].series  # the same objects


def test_a_device_that_comes_restarts_no_series_of_others(tmp_path: Path) -> None:
    host(tmp_path)
    generate(tmp_path / "more", 2)
    with opened(tmp_path) as source:
        before = source.read()
        (tmp_path / "sys/class/infiniband/mlx5_1").symlink_to((tmp_path / "more/sys/class/infiniband/mlx5_1").resolve())
        after = source.read()
    for name in COUNTERS:
        assert starts(after, name).items() >= starts(before, name).items()
    new = starts(after, "hw.network.io").items() - starts(before, "hw.network.io").items()
    assert {key[3] for key, _ in new} == {"mlx5_1"}
    assert all(time.time_ns() - start < 60e9 for _, start in new)  # after the reading before, not with the kernel


def test_a_file_that_cannot_be_understood_is_one_problem_and_no_other_device(tmp_path: Path) -> None:
    directory = host(tmp_path)
    (directory.parent.parent / "node_guid").write_text("garbled\n")
    with opened(tmp_path, rescan_interval=AT_ONCE) as source:
        readings = [source.read() for _ in range(3)]
        assert discover(HostFS(str(tmp_path)), Chosen(), {}).devices == discover(HostFS(str(tmp_path)), Chosen(), {}).devices
    for reading in readings:
        assert [(problem.reason, problem.what.rsplit("/", 1)[1]) for problem in reading.problems] == [(Reason.MALFORMED, "node_guid")]
    for name in COUNTERS:
        row = metric(readings[0], name)
        assert row
        assert readings[0].columns[row].series is readings[2].columns[row].series


def test_counters_of_a_lifetime_began_with_the_kernel_and_ours_with_us(tmp_path: Path) -> None:
    host(tmp_path)
    now = time.time_ns()
    booted = now - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with opened(tmp_path) as source:
        reading = source.read()
    for name in COUNTERS:
        for key, start in starts(reading, name).items():
            expected = now if {"port_up", "port_down"} & {*key} else booted
            assert abs(start - expected) < 2e9


def test_a_counter_that_cannot_be_read_for_a_while_goes_on(tmp_path: Path) -> None:
    directory = host(tmp_path)
    file = directory / "cm_tx_msgs/req"
    with opened(tmp_path) as source:
        began = starts(source.read(), "rdma.cm.messages")
        file.write_text("broken\n")
        assert not values(source.read(), "rdma.cm.messages")
        file.write_text("5000001\n")
        assert starts(source.read(), "rdma.cm.messages") == began
        file.write_text("broken\n")
        source.read()
        file.write_text("1\n")
        after = source.read()
    assert list(values(after, "rdma.cm.messages").values()) == [1]
    assert min(starts(after, "rdma.cm.messages").values()) > max(began.values())


def test_a_counter_of_a_driver_that_is_loaded_again_has_not_wrapped(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    hardware = port(tmp_path, "mlx5_0") / "hw_counters"
    for name in HW_COUNTERS[3:]:
        (hardware / name).write_text("0\n")
    wraps, key, seed = hardware / "out_of_sequence", ("mlx5_0", 1, "out_of_sequence"), ("mlx5_0", "1", "out_of_sequence")
    wraps.write_text("3000000000\n")
    link = tmp_path / "sys/class/infiniband/mlx5_0"
    target = link.readlink()
    with opened(tmp_path, descriptors=0) as source:
        before = source.read()
        link.unlink()
        assert stats(source.read()) == {}
        wraps.write_text("5\n")
        link.symlink_to(target)
        after = source.read()
    assert values(after, "rdma.transport.events")[key] == stats(after)[seed] == 5
    assert starts(after, "rdma.transport.events")[key] > starts(before, "rdma.transport.events")[key]


def test_a_device_with_another_number_was_added_again(tmp_path: Path) -> None:
    generate(tmp_path, 2)

    def found(*numbers: int) -> tuple[object, ...]:
        known = {
            f"mlx5_{place}": nldev_records.Device(number, f"mlx5_{place}", 1, None, None, f"9c63:c003:00aa:{place:04x}", *[None] * 5)
            for place, number in enumerate(numbers)
        }
        return discover(HostFS(str(tmp_path)), Chosen(), known).devices

    assert added_again(found(0, 1), found(0, 1)) == set()
    assert added_again(found(0, 1), found(0, 2)) == {"mlx5_1"}
    assert added_again(found(0), found(0, 1)) == set()  # mlx5_1 was there, netlink did not tell
