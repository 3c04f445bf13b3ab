"""gpu_metrics of amdgpu, by revision. Offsets are those of the structures in kgd_pp_interface.h."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.kernel.amdgpu_metrics import CLOCK, CYCLES, ENERGY, parse
from tests.gpu.sysfs_hosts import metrics, table

REASONS = ("power", "current", "thermal", "memory_thermal", "vr_thermal", "prochot", "reliability")
MI300X, NAVI21, NAVI31, NAVI48 = 0x74A1, 0x73BF, 0x744C, 0x7551
HOT_SPOT = 1 << 36


def held(status: int, device: int = NAVI21) -> set[str]:
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


@pytest.mark.parametrize(("device", "expected"), [(NAVI21, {"thermal", "power"}), (NAVI31, {"power"}), (NAVI48, {"power"})])
def test_the_hot_spot_of_new_radeons_is_always_claimed_and_says_nothing(device, expected):
    assert held(HOT_SPOT | 1, device) == expected
    assert held(1 << 35, device) == {"thermal"}  # the edge does


def test_what_ever_happened_is_not_what_is_now():
    """The first driver of MI300 had bits for residencies above zero."""
    assert held(1 << 47) == {"prochot"}
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


@pytest.mark.parametrize("others", [0, 4342])
def test_a_reason_in_all_cycles_since_the_driver_was_loaded_is_not_counted(others):
    """The table of an idle MI300X: power, thermal and memory_thermal are the accumulation counter."""
    cycles = 10_657_785
    fields = {32 + 4 * place: ("I", value) for place, value in enumerate((cycles, 0, cycles, cycles, others, cycles))} | {256: ("Q", 77)}
    assert parse(table(6, fields)).keys() - {ENERGY} == {CYCLES, CLOCK, "residency.prochot", "residency.vr_thermal"}


def test_before_the_first_cycle_every_reason_is_counted():
    assert len(parse(table(7, {288: ("Q", 77)}))) == 8


U16, U32, U64 = 2, 4, 6  # enum amdgpu_metrics_attr_type


def attribute(number: int, kind: int, *values: int, unit: int = 0) -> bytes:
    return struct.pack(f"<Q{len(values)}{'BbHhIiQq'[kind]}", unit << 24 | kind << 20 | number << 10 | len(values), *values)


def listed(*attributes: bytes, count: int | None = None) -> bytes:
    body = b"".join(attributes)
    return struct.pack("<HBBi", 8 + len(body), 1, 9, len(attributes) if count is None else count) + body


MI300X_UNDER_LOAD = (
    attribute(0, U16, 59, unit=2),  # hot spot
    attribute(3, U16, 705, unit=3),
    attribute(7, U64, 5 << 16),
    attribute(9, U64, 55_257_356),
    attribute(10, U64, 0),
    attribute(11, U64, 749_905),
    attribute(12, U64, 0),
    attribute(13, U64, 0),
    attribute(14, U64, 2**64 - 1),  # not filled in
    attribute(32, U64, 77, unit=5),
    attribute(33, U16, 1304, 1275, 1317, 1283, 1298, 1281, 1309, 1287, unit=1),
)


def test_a_list_of_attributes():
    assert parse(listed(*MI300X_UNDER_LOAD), MI300X) == {
        ENERGY: 5 << 16,
        CYCLES: 55_257_356,
        CLOCK: 77,
        "residency.prochot": 0,
        "residency.power": 749_905,
        "residency.thermal": 0,
        "residency.vr_thermal": 0,
    }


def test_attributes_in_any_order_and_of_any_width():
    some = (attribute(33, U16, 1, 2, 3), attribute(1000, U32, 7), attribute(11, U32, 5), attribute(32, U64, 9), attribute(9, U32, 8))
    assert parse(listed(*some)) == {CYCLES: 8, CLOCK: 9, "residency.power": 5}


@pytest.mark.parametrize("cut", range(8, 60))
def test_a_list_that_is_cut_off_is_what_there_is_of_it(cut):
    whole = listed(*MI300X_UNDER_LOAD)
    assert parse(whole[:cut]).items() <= parse(whole).items()


def test_a_list_ends_at_a_type_without_a_known_size():
    assert parse(listed(attribute(7, U64, 1), struct.pack("<QQ", 8 << 20 | 7 << 10 | 1, 2))) == {ENERGY: 1}
    assert parse(listed(attribute(7, U64, 1), attribute(7, U64, 2), count=1)) == {ENERGY: 1}
    assert parse(listed(attribute(7, U64, 1), count=-1)) == {}
    assert parse(listed(attribute(7, U64, 1), count=2**31 - 1)) == {ENERGY: 1}  # as many as there are
    assert parse(listed(attribute(7, U64, 1, 2))) == {}  # an array: of what, is not known


def test_a_table_ends_where_it_says_and_where_it_does():
    whole = table(3, {112: ("Q", 1)}, 120)
    assert held(1) == {"power"}
    assert parse(whole[:119]) == {}
    assert parse(b"\x70\0" + whole[2:]) == {}  # 112 bytes


def test_revisions_that_are_not_known_are_nothing():
    for content in (0, 1, 2, 10, 255):
        assert parse(table(content, {})) == {}


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_none(blob):
    assert all(0 <= value < 2**64 for value in parse(blob).values())


@given(st.binary(max_size=300))
def test_any_content_of_a_list(rest):
    assert all(0 <= value < 2**64 for value in parse(struct.pack("<HBBi", 8 + len(rest), 1, 9, 40) + rest).values())


@given(st.integers(0, 255), st.binary(min_size=2, max_size=300))
def test_any_content_of_any_revision(content, rest):
    assert all(0 <= value < 2**64 for value in parse(len(rest).to_bytes(2, "little") + bytes((1, content)) + rest).values())
