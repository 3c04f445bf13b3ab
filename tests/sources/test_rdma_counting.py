"""Counters that wrap, stop, and begin anew."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import rdma_counters
from otel_hostmetrics.settings import Seconds
from tests.hosts.gentree import COUNTERS, HW_COUNTERS, generate
from tests.sources.rdma_host import opened, port, starts, stats, values

Q = "out_of_sequence"  # a Q counter of mlx5: 32 bits, wraps
SEED = ("mlx5_0", "1", Q)
TYPED = ("mlx5_0", 1, Q)


def write(path: Path, value: int) -> None:
    path.write_text(f"{value}\n")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12))
def test_a_32_bit_counter_counts_on_across_wraps(first: int, steps: list[int]) -> None:
    """Whatever it counted between two readings, as long as it is less than 2^31: the typed value is the true sum."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generate(root, 1)
        file = port(root, "mlx5_0") / "hw_counters" / Q
        write(file, first)
        with opened(root) as source:
            began = starts(source.read(), "rdma.transport.events")[TYPED]
            true = first
            for step in steps:
                true += step
                write(file, true % 2**32)
                reading = source.read()
                assert values(reading, "rdma.transport.events")[TYPED] == true
                assert starts(reading, "rdma.transport.events")[TYPED] == began
                assert stats(reading)[SEED] == true % 2**32  # as the driver gives it


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8))
def test_a_counter_never_falls_without_a_new_start(readings: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generate(root, 1)
        file = port(root, "mlx5_0") / "counters/port_xmit_data"
        last, last_start = -1, 0
        write(file, readings[0])
        with opened(root) as source:
            for value in readings:
                write(file, value)
                reading = source.read()
                key = ("mlx5_0/1", "network", "transmit", "mlx5_0", 1)
                now, start = values(reading, "hw.network.io")[key], starts(reading, "hw.network.io")[key]
                assert now == 4 * value
                assert now >= last or start > last_start
                last, last_start = int(now), start


def test_a_reset_gives_both_series_a_new_start_after_the_last_reading(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    file = port(tmp_path, "mlx5_0") / "counters/symbol_error"
    write(file, 9)
    with opened(tmp_path) as source:
        first = source.read()
        write(file, 2)
        second = source.read()
    typed = ("symbol_error", "mlx5_0/1", "network", "receive", "mlx5_0", 1)
    seed = ("mlx5_0", "1", "symbol_error")
    assert values(second, "hw.errors")[typed] == 2
    assert starts(second, "hw.errors")[typed] > starts(first, "hw.errors")[typed]
    assert starts(second, "rdma_port_stat")[seed] > starts(first, "rdma_port_stat")[seed]
    others = starts(second, "rdma_port_stat").items() - {(seed, starts(second, "rdma_port_stat")[seed])}
    assert others <= starts(first, "rdma_port_stat").items()


def test_two_counters_of_a_device_that_fall_at_once_are_a_reset_and_no_wrap(tmp_path: Path) -> None:
    """From 3,000,000,000 to 5 could be a wrap; of two at once it is not, and 2^32 more would be a spike."""
    generate(tmp_path, 2)
    files = {name: port(tmp_path, "mlx5_0") / "hw_counters" / name for name in (Q, "packet_seq_err")}
    other = port(tmp_path, "mlx5_1") / "hw_counters" / Q
    for file in (*files.values(), other):
        write(file, 3_000_000_000)
    with opened(tmp_path) as source:
        before = source.read()
        for file in (*files.values(), other):
            write(file, 5)
        after = source.read()
    typed = values(after, "rdma.transport.events")
    assert typed[TYPED] == typed["mlx5_0", 1, "nak_sequence_received"] == 5
    assert typed["mlx5_1", 1, Q] == 2**32 + 5
    assert starts(after, "rdma.transport.events")[TYPED] > starts(before, "rdma.transport.events")[TYPED]


def test_a_fall_during_an_error_is_a_reset_too(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    file = port(tmp_path, "mlx5_0") / "counters/port_xmit_packets"
    key = ("mlx5_0", "1", "port_xmit_packets")
    write(file, 100)
    with opened(tmp_path, descriptors=0) as source:
        began = starts(source.read(), "rdma_port_stat")[key]
        file.write_text("broken")
        assert key not in stats(source.read())
        write(file, 3)
        reading = source.read()
    assert stats(reading)[key] == 3
    assert starts(reading, "rdma_port_stat")[key] > began


@pytest.mark.parametrize(
    ("name", "most"),
    [("local_link_integrity_errors", 15), ("link_downed", 255), ("symbol_error", 65535), ("port_xmit_wait", 2**32 - 1)],
)
def test_a_counter_at_its_largest_value_is_flagged_until_it_is_reset(name: str, most: int, tmp_path: Path) -> None:
    generate(tmp_path, 1)
    file = port(tmp_path, "mlx5_0") / "counters" / name
    with opened(tmp_path) as source:
        flags = []
        for value in (most - 1, most, most, 0):
            write(file, value)
            flags.append(values(source.read(), "rdma.stat.saturated"))
    assert flags == [{}, {("mlx5_0", 1, name): 1}, {("mlx5_0", 1, name): 1}, {}]


def test_the_same_name_in_hw_counters_does_not_saturate(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    write(port(tmp_path, "mlx5_0") / "hw_counters/link_downed", 255)  # soft-RoCE: 64 bits
    (port(tmp_path, "mlx5_0") / "counters/link_downed").unlink()
    with opened(tmp_path) as source:
        assert values(source.read(), "rdma.stat.saturated") == {}


def test_a_64_bit_counter_above_32_bits_is_not_saturated(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    write(port(tmp_path, "mlx5_0") / "counters/port_xmit_data", 2**40)
    with opened(tmp_path) as source:
        assert values(source.read(), "rdma.stat.saturated") == {}


def test_slow_counters_keep_their_values_between_their_readings(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    directory = port(tmp_path, "mlx5_0") / "counters"
    write(directory / "symbol_error", 1)
    write(directory / "port_xmit_data", 1)
    with opened(tmp_path, slow_interval=Seconds(3600)) as source:
        source.read()
        write(directory / "symbol_error", 2)
        write(directory / "port_xmit_data", 2)
        found = stats(source.read())
    assert found["mlx5_0", "1", "symbol_error"] == 1
    assert found["mlx5_0", "1", "port_xmit_data"] == 2


def test_which_counters_are_slow_is_a_choice(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    directory = port(tmp_path, "mlx5_0") / "counters"
    write(directory / "symbol_error", 1)
    with opened(tmp_path, slow_interval=Seconds(3600), slow_counters=()) as source:
        source.read()
        write(directory / "symbol_error", 2)
        assert stats(source.read())["mlx5_0", "1", "symbol_error"] == 2


def test_every_typed_counter_fits_its_row() -> None:
    for name, (metric, attributes, scale) in rdma_counters.KNOWN.items():
        named = {"rdma.device.name": "x", "hw.id": "x", "hw.type": "network"}
        metric.series({key: named[key] for key in named if key in metric.attributes} | dict(attributes))
        assert scale in (1, 4, 0.001), name


def test_the_counters_of_a_connectx_are_all_typed() -> None:
    unknown = [name for name in (*COUNTERS, *HW_COUNTERS) if name not in rdma_counters.KNOWN]
    assert unknown == []


@pytest.mark.parametrize(("name", "metric"), [("roce_errors", "hw.errors"), ("roce_discards", "rdma.port.discards")])
def test_what_a_broadcom_adapter_loses_is_told_for_both_directions(name: str, metric: str) -> None:
    """drivers/infiniband/hw/bnxt_re/hw_counters.c."""
    for prefix, direction in (("tx", "transmit"), ("rx", "receive")):
        known = rdma_counters.lookup(f"{prefix}_{name}")
        assert (known.metric.name, known.attributes["network.io.direction"]) == (metric, direction)


def test_what_is_not_known_is_a_counter_under_its_own_name() -> None:
    known = rdma_counters.lookup("RcvHdrOvr17")
    assert (known.metric.name, dict(known.attributes), known.scale) == ("rdma.stat", {"rdma.stat.name": "RcvHdrOvr17"}, 1)
