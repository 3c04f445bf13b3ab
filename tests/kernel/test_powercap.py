"""Zones of /sys/class/powercap."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import powercap
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.hosts.recorded import unpack


def test_two_sockets(tmp_path: Path) -> None:
    fs = unpack("energy-two-sockets", tmp_path)
    found = powercap.zones(fs)
    assert [(zone.id, zone.name, zone.parent) for zone in found] == [
        ("intel-rapl:0", "package-0", ""),
        ("intel-rapl:0:0", "core", "intel-rapl:0"),
        ("intel-rapl:0:1", "dram", "intel-rapl:0"),
        ("intel-rapl:1", "package-1", ""),
        ("intel-rapl:1:0", "core", "intel-rapl:1"),
        ("intel-rapl:1:1", "dram", "intel-rapl:1"),
    ]
    assert {zone.control_type for zone in found} == {"intel-rapl"}
    with found[2].counter() as counter:
        assert counter.read() == 65_532_000_000
    assert powercap.constraints(fs, found[0]) == [
        powercap.Constraint("long_term", 130_000_000, 130_000_000, 9_994_240),
        powercap.Constraint("short_term", 156_000_000, None, 7808),
    ]
    assert [powercap.enabled(fs, zone) for zone in found[:2]] == [True, False]


def test_a_zone_is_found_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    fs = unpack("energy-mmio", tmp_path)
    (tmp_path / "sys/class/powercap/other:0").symlink_to("intel-rapl:0")
    assert len([zone for zone in powercap.zones(fs) if zone.name == "package-0"]) == 2  # MSR and MMIO


def test_zones_without_a_counter_have_power(tmp_path: Path) -> None:
    found = powercap.zones(unpack("energy-arm-scmi", tmp_path))
    assert [(zone.name, zone.control_type, zone.max_energy_range_uj) for zone in found] == [
        ("soc", "arm-scmi", None),
        ("cluster", "arm-scmi", None),
        ("cluster", "arm-scmi", None),
    ]
    with found[0].power() as power:
        assert power.read() == 31_000_000
    with pytest.raises(Unavailable) as caught:
        found[0].counter()
    assert caught.value.reason is Reason.ABSENT


def test_masked_empty_and_missing_are_three_things(tmp_path: Path) -> None:
    fs = unpack("energy-masked", tmp_path)
    with pytest.raises(Unavailable) as masked:
        powercap.zones(fs)
    assert (masked.value.reason, masked.value.needs) == (Reason.DENIED, "/sys/devices/virtual/powercap")
    fs = HostFS(str(tmp_path / "other"))
    for _ in range(2):
        with pytest.raises(Unavailable) as nothing:
            powercap.zones(fs)
        assert nothing.value.reason is Reason.ABSENT
        (tmp_path / "other/sys/class/powercap/intel-rapl").mkdir(parents=True, exist_ok=True)
    assert "no driver" in str(nothing.value)


def test_a_whole_turn_is_one_unit_of_hardware_more_than_the_range() -> None:
    assert powercap.modulus(262_143_328_850) == 262_143_328_850 + 61  # 2**32 times 61.035 uJ
    assert powercap.modulus(65_532_610_987) == 65_532_610_987 + 15
    assert powercap.modulus(0xFFFF_FFFF) == 2**32
    assert powercap.modulus(1000) == 1001


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    name=st.binary(max_size=20),
    span=st.binary(max_size=20),
    limit=st.one_of(st.binary(max_size=20), st.integers(-(2**70), 2**70).map(lambda value: str(value).encode())),
)
def test_whatever_the_files_hold_there_are_zones(tmp_path: Path, name: bytes, span: bytes, limit: bytes) -> None:
    directory = tmp_path / "sys/class/powercap/intel-rapl:0"
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in (("name", name), ("max_energy_range_uj", span), ("constraint_0_power_limit_uw", limit), ("enabled", limit)):
        (directory / file).write_bytes(content)
    fs = HostFS(str(tmp_path))
    (zone,) = powercap.zones(fs)
    assert zone.max_energy_range_uj is None or zone.max_energy_range_uj > 0
    assert len(powercap.constraints(fs, zone)) <= 1
    assert powercap.enabled(fs, zone) in (None, True, False)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(name=st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=40))
def test_other_names_in_the_class_are_no_zones(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "sys/class/powercap"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    if path.exists():
        return
    path.touch()
    try:
        assert all(each.count(":") and each.rpartition(":")[2] for each in powercap.listing(HostFS(str(tmp_path))))
    finally:
        path.unlink()
