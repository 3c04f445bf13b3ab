"""gpu_metrics of amdgpu, by revision. Offsets are those of the structures in kgd_pp_interface.h."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.kernel.amdgpu_metrics import CLOCK, CYCLES, ENERGY, parse
from tests.gpu.sysfs_hosts import metrics, table

REASONS = ("power", "current", "thermal", "memory_thermal", "vr_thermal", "prochot", "reliability")
MI300X, NAVI31 = 0x74A1, 0x744C


def held(status: int, device: int = NAVI31) -> set[str]:
    found = parse(table(3, {112: ("Q", status)}, 120), device)
    assert found.keys() in ({f"throttle.{reason}" for reason in REASONS}, set())
    return {name.removeprefix("throttle.") for name, value in found.items() if value}


def test_energy_of_each_revision():
    for content, offset in ((4, 24), (5, 88), (6, 16), (7, 24), (8, 24)):
        assert parse(metrics(1, content, offset, 12345))[ENERGY] == 12345
    assert ENERGY not in parse(metrics(1, 3, 24, 12345))  # of no known unit
    assert parse(metrics(2, 4, 24, 12345)) == {}  # of a processor's GPU
    assert parse(metrics(1, 4, 24, 2**64 - 1)) == {}


@pytest.mark.parametrize(
    ("bit", "reason"),
    [(0, "power"), (7, "power"), (56, "power"), (16, "current"), (23, "current"), (32, "thermal"), (36, "thermal"), (43, "thermal"),
     (34, "memory_thermal"), (38, "vr_thermal"), (45, "vr_thermal"), (46, "prochot"), (47, "prochot"), (57, "reliability")],
)  # fmt: skip
def test_a_bit_is_one_reason(bit, reason):
    assert held(1 << bit) == {reason}


def test_no_bit_is_no_reason_and_all_bits_are_no_status():
    assert held(0) == set()
    assert held(1 << 36 | 1 << 47) == {"thermal", "prochot"}
    assert parse(table(3, {112: ("Q", 2**64 - 1)}, 120)) == {}
    assert held(1 << 15 | 1 << 63) == set()  # of no known meaning


def test_what_ever_happened_is_not_what_is_now():
    """The first driver of MI300 had bits for residencies above zero."""
    assert held(1 << 47, NAVI31) == {"prochot"}
    assert parse(table(3, {112: ("Q", 1 << 47)}, 120), MI300X) == {}


def test_a_status_that_is_always_zero_is_none():
    """1.4 and 1.5: "Throttle status is not reported through metrics now"."""
    assert parse(table(4, {24: ("Q", 5), 40: ("I", 0)}, 288)) == {ENERGY: 5}
    assert parse(table(5, {88: ("Q", 5), 104: ("I", 0)}, 360)) == {ENERGY: 5}


@pytest.mark.parametrize(("content", "cycles", "clock"), [(6, 32, 256), (7, 40, 288), (8, 40, 288)])
def test_cycles_with_clocks_held_down(content, cycles, clock):
    fields = {cycles + 4 * place: ("I", value) for place, value in enumerate((1000, 1, 2, 3, 4, 2**32 - 1))} | {clock: ("Q", 77)}
    found = parse(table(content, fields))
    assert {name: value for name, value in found.items() if name != ENERGY} == {
        CYCLES: 1000,
        CLOCK: 77,
        "residency.prochot": 1,
        "residency.power": 2,
        "residency.thermal": 3,
        "residency.vr_thermal": 4,
    }  # memory's is not filled in
    assert not [name for name in parse(table(content, fields | {clock: ("Q", 2**64 - 1)})) if name.startswith("residency")]


def test_a_table_ends_where_it_says_and_where_it_does():
    whole = table(3, {112: ("Q", 1)}, 120)
    assert held(1) == {"power"}
    assert parse(whole[:119]) == {}
    assert parse(b"\x70\0" + whole[2:]) == {}  # 112 bytes


def test_revisions_that_are_not_known_are_nothing():
    for content in (0, 1, 2, 9, 10, 255):
        assert parse(table(content, {})) == {}


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_none(blob):
    assert all(0 <= value < 2**64 for value in parse(blob).values())


@given(st.integers(0, 255), st.binary(min_size=2, max_size=300))
def test_any_content_of_any_revision(content, rest):
    assert all(0 <= value < 2**64 for value in parse(len(rest).to_bytes(2, "little") + bytes((1, content)) + rest).values())
