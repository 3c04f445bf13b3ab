"""The energy source on recorded hosts whose counters a test moves."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue import energy as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.rapl import Rapl
from tests.sources.energy_hosts import add, count, host, settings, zone


def points(reading: Reading, metric: Metric, *names: str) -> dict[object, object]:
    """The points of a metric by the values of the named attributes."""
    column = reading.columns.get(metric)
    if column is None:
        return {}
    keys = [tuple(each.attributes.get(name) for name in names) for each in column.series]
    found = dict(zip((key[0] if len(key) == 1 else key for key in keys), column.values, strict=True))
    assert len(found) == len(keys), f"{metric.name}: two points of the same name"
    return found


class Running:
    """An opened source; closed with no descriptor or thread left."""

    def __init__(self, fs: HostFS, chosen: Settings) -> None:
        self._descriptors, self._threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        self.source = Rapl(fs, chosen)

    def __enter__(self) -> Rapl:
        self.source.open()
        return self.source

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.source.close()
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == (self._descriptors, self._threads)


def test_two_sockets(tmp_path: Path) -> None:
    """Every zone of both packages by its own name; a wrap in one of them; watts once a second has passed, for all readers the same."""
    fs = host("two-sockets", tmp_path)
    with Running(fs, settings()) as source:
        first = source.read()
        assert set(points(first, hardware.ENERGY, "hw.id").values()) == {0.0}
        assert not points(first, rows.POWER_WATTS, "zone")  # nothing yet: not 0 W
        begun = time.monotonic()
        time.sleep(1.02)
        source.read()  # the first whole window begins here
        for zone_id, joules in (("0", 50), ("0:0", 20), ("0:1", 10), ("1", 40), ("1:0", 15), ("1:1", 5)):
            path = zone(fs, f"intel-rapl:{zone_id}") / "energy_uj"
            count(path, (int(path.read_text()) + joules * 10**6) % (65_532_610_987 + 15))
        time.sleep(1.02)
        reading = source.read()
        elapsed = time.monotonic() - begun
        assert points(reading, hardware.ENERGY, "hw.id", "hw.type", "hw.name", "hw.parent") == {
            ("package-0", "cpu", "package-0", None): 50.0,
            ("package-0/dram", "memory", "dram", "package-0"): 10.0,
            ("package-1", "cpu", "package-1", None): 40.0,
            ("package-1/dram", "memory", "dram", "package-1"): 5.0,
        }
        watts = points(reading, rows.POWER_WATTS, "zone")
        assert set(watts) == {
            "package_0", "package_0_core", "package_0_dram", "package_1", "package_1_core", "package_1_dram", "core", "dram",
        }  # fmt: skip
        assert 50 / elapsed < watts["package_0"] < 50 / 1.0  # type: ignore[operator]
        assert watts["core"] == pytest.approx(watts["package_0_core"] + watts["package_1_core"])  # type: ignore[operator]
        assert points(reading, hardware.POWER, "hw.id")["package-1"] == watts["package_1"]
        assert points(reading, rows.WRAPS, "rapl.zone")["package-1"] == 1  # it stood 32 J below its range
        assert points(reading, rows.ENERGY, "rapl.zone", "rapl.domain", "rapl.package")["package-1/core", "core", "1"] == 15.0
        assert points(reading, rows.ZONES_DISCOVERED) == {(): 6}
        assert points(reading, rows.AVAILABLE) == {(): 1}
        again = source.read()
        assert points(again, rows.POWER_WATTS, "zone") == watts
        assert again.columns[rows.POWER_WATTS] is reading.columns[rows.POWER_WATTS]
        assert all(again.columns[metric].series is reading.columns[metric].series for metric in reading.columns)


def test_power_limits(tmp_path: Path) -> None:
    with Running(host("two-sockets", tmp_path), settings()) as source:
        reading = source.read()
    limits = points(reading, rows.POWER_LIMIT, "rapl.zone", "rapl.constraint")
    assert limits["package-0", "long_term"] == 130.0
    assert limits["package-1", "short_term"] == 156.0
    assert points(reading, rows.POWER_MAX, "rapl.zone", "rapl.constraint") == {
        ("package-0", "long_term"): 130.0,
        ("package-1", "long_term"): 130.0,
    }
    assert points(reading, rows.LIMIT_WINDOW, "rapl.zone", "rapl.constraint")["package-0", "short_term"] == pytest.approx(0.007808)
    assert points(reading, rows.LIMIT_ENABLED, "rapl.zone")["package-0/dram"] == 0


def test_a_changed_power_limit_is_seen_at_the_slow_pace(tmp_path: Path) -> None:
    fs = host("two-sockets", tmp_path)
    with Running(fs, settings(slow_interval=0.01)) as source:
        before = source.read().columns[rows.POWER_LIMIT]
        count(zone(fs, "intel-rapl:0") / "constraint_0_power_limit_uw", 95_000_000)
        time.sleep(0.02)
        after = source.read().columns[rows.POWER_LIMIT]
    assert 95.0 in after.values
    assert after.series is before.series


def test_mmio_shows_the_same_package_again_and_is_counted_once(tmp_path: Path) -> None:
    fs = host("mmio", tmp_path)
    with Running(fs, settings(psys_is_host=True)) as source:
        source.read()
        for zone_id in ("intel-rapl:0", "intel-rapl-mmio:0", "intel-rapl:1"):
            add(zone(fs, zone_id) / "energy_uj", 20_000_000)
        reading = source.read()
    assert points(reading, hardware.ENERGY, "hw.id") == {"package-0": 20.0}
    assert points(reading, hardware.HOST_ENERGY, "hw.id") == {"psys": 20.0}
    energy = points(reading, rows.ENERGY, "rapl.zone", "rapl.interface")
    assert energy["package-0", "intel-rapl"] == energy["package-0", "intel-rapl-mmio"] == energy["psys", "intel-rapl"] == 20.0
    assert points(reading, rows.ZONES_DISCOVERED) == {(): 4}


def test_psys_is_the_host_only_where_somebody_says_so(tmp_path: Path) -> None:
    with Running(host("mmio", tmp_path), settings()) as source:
        assert not points(source.read(), hardware.HOST_ENERGY, "hw.id")


def test_mmio_stands_in_where_the_first_view_cannot_be_opened(tmp_path: Path) -> None:
    fs = host("mmio", tmp_path)
    (zone(fs, "intel-rapl:0") / "energy_uj").unlink()
    with Running(fs, settings()) as source:
        source.read()
        add(zone(fs, "intel-rapl-mmio:0") / "energy_uj", 7_000_000)
        reading = source.read()
    assert points(reading, hardware.ENERGY, "hw.id") == {"package-0": 7.0}
    assert [problem.reason for problem in reading.problems] == [Reason.ABSENT]


def test_dies_of_amd_that_all_show_the_package_are_counted_once(tmp_path: Path) -> None:
    fs = host("amd-dies", tmp_path)
    with Running(fs, settings()) as source:
        source.read()
        for die in range(4):
            add(zone(fs, f"intel-rapl:{die}") / "energy_uj", 100_000_000)
        reading = source.read()
    assert points(reading, hardware.ENERGY, "hw.id") == {"package-0": 100.0}
    assert points(reading, rows.ENERGY, "rapl.zone")["package-0-die-3"] == 100.0


def test_what_amd_counts_of_one_core_is_not_called_that_of_all(tmp_path: Path) -> None:
    fs = host("amd-dies", tmp_path)
    with Running(fs, settings()) as source:
        source.read()
        add(zone(fs, "intel-rapl:0:0") / "energy_uj", 3_000_000)
        for _ in range(2):
            time.sleep(1.02)
            reading = source.read()
    assert points(reading, rows.ENERGY, "rapl.zone")["package-0/lead-core"] == 3.0
    assert set(points(reading, rows.POWER_WATTS, "zone")) == {"package_0"}


def test_dies_of_intel_have_their_own_counters(tmp_path: Path) -> None:
    fs = host("amd-dies", tmp_path)
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("AuthenticAMD", "GenuineIntel"))
    with Running(fs, settings()) as source:
        assert set(points(source.read(), hardware.ENERGY, "hw.id")) == {f"package-0-die-{die}" for die in range(4)}


def test_a_zone_that_cannot_be_read_costs_itself_and_the_sums_it_is_in(tmp_path: Path) -> None:
    fs = host("two-sockets", tmp_path)
    with Running(fs, settings()) as source:
        source.read()
        path = zone(fs, "intel-rapl:1:1") / "energy_uj"
        before = int(path.read_text())
        path.write_text("N/A\n")
        reading = source.read()
        assert [problem.reason for problem in reading.problems] == [Reason.MALFORMED]
        assert set(points(reading, hardware.ENERGY, "hw.id")) == {"package-0", "package-0/dram", "package-1"}
        count(path, before + 3_000_000)
        assert points(source.read(), hardware.ENERGY, "hw.id")["package-1/dram"] == 3.0  # what was used meanwhile is there


def test_when_nothing_can_be_read_the_source_says_so(tmp_path: Path) -> None:
    fs = host("two-sockets", tmp_path)
    with Running(fs, settings()) as source:
        for path in tmp_path.rglob("energy_uj"):
            path.write_text("")
        with pytest.raises(Unavailable) as caught:
            source.read()
    assert caught.value.reason is Reason.MALFORMED


def test_a_host_without_counters_says_so_until_it_has_some(tmp_path: Path) -> None:
    fs = host("vm", tmp_path)
    with Running(fs, settings(slow_interval=0.001)) as source:
        reading = source.read()
        assert reading.off is not None
        assert reading.off.reason is Reason.ABSENT
        assert points(reading, rows.AVAILABLE) == points(reading, rows.ZONES_DISCOVERED) == {(): 0}
        assert set(reading.columns) == {rows.AVAILABLE, rows.ZONES_DISCOVERED, rows.EXPORTER_INFO}
        host("two-sockets", tmp_path)  # the driver's module is loaded
        time.sleep(0.002)
        reading = source.read()
        assert reading.off is None
        assert points(reading, rows.AVAILABLE) == {(): 1}
        assert set(points(source.read(), hardware.ENERGY, "hw.id")) >= {"package-0", "package-1"}


@pytest.mark.parametrize("energy_source", ["off", "powercap"])
def test_off_by_request_is_not_a_host_without_counters(energy_source: str, tmp_path: Path) -> None:
    source = Rapl(host("vm", tmp_path), settings(energy_source=energy_source))
    with contextlib.closing(source):
        if energy_source == "off":
            with pytest.raises(Unavailable):
                source.open()
        else:
            source.open()
            assert source.read().off


def test_a_package_that_comes_and_goes_keeps_its_energy(tmp_path: Path) -> None:
    """Hot-plug: the zone's directory vanishes with its links, and is there again later with a counter that went on."""
    fs = host("two-sockets", tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    names = ("intel-rapl:1", "intel-rapl:1:0", "intel-rapl:1:1")
    with Running(fs, settings(slow_interval=0.001)) as source:
        source.read()
        add(zone(fs, "intel-rapl:1:1") / "energy_uj", 11_000_000)
        time.sleep(0.002)
        series = source.read().columns[hardware.ENERGY].series
        shutil.move(zone(fs, "intel-rapl:1"), away)
        for name in names:
            (tmp_path / "sys/class/powercap" / name).rename(away / f"{name}.link")
        time.sleep(0.002)
        assert set(points(source.read(), hardware.ENERGY, "hw.id")) == {"package-0", "package-0/dram"}
        for name in names:
            (away / f"{name}.link").rename(tmp_path / "sys/class/powercap" / name)
        shutil.move(away / "intel-rapl:1", zone(fs, "intel-rapl:1").parent)
        add(zone(fs, "intel-rapl:1:1") / "energy_uj", 4_000_000)
        time.sleep(0.002)
        reading = source.read()
        assert points(reading, hardware.ENERGY, "hw.id")["package-1/dram"] == 15.0
        starts = {each.attributes["hw.id"]: each.start_ns for each in reading.columns[hardware.ENERGY].series}
        assert starts == {each.attributes["hw.id"]: each.start_ns for each in series}
        assert points(reading, rows.RESETS, "rapl.zone")["package-1/dram"] == 0


def test_a_source_closed_and_opened_again_goes_on(tmp_path: Path) -> None:
    fs = host("two-sockets", tmp_path)
    with Running(fs, settings()) as source:
        source.read()
        add(zone(fs, "intel-rapl:0") / "energy_uj", 5_000_000)
        source.close()
        source.open()
        assert points(source.read(), hardware.ENERGY, "hw.id")["package-0"] == 5.0


def test_between_cycles_far_apart_a_thread_takes_every_wrap(tmp_path: Path) -> None:
    """A counter of 1.5 kJ can wrap in 1.5 s at full power: it is read every second, however rarely anybody asks."""
    fs = host("two-sockets", tmp_path)
    for path in tmp_path.rglob("max_energy_range_uj"):
        count(path, 1_500_000_000)
    for path in tmp_path.rglob("energy_uj"):
        count(path, 1_400_000_000)
    with Running(fs, settings(interval=300)) as source:
        assert [each.name for each in threading.enumerate() if each.name.startswith("rapl")] == ["rapl-sampler"]
        source.read()
        path = zone(fs, "intel-rapl:0") / "energy_uj"
        for _ in range(2):
            count(path, (int(path.read_text()) + 800 * 10**6) % 1_500_000_001)
            time.sleep(1.05)
        reading = source.read()
        assert points(reading, hardware.ENERGY, "hw.id")["package-0"] == pytest.approx(1600)  # more than a whole turn
        assert points(reading, rows.WRAPS, "rapl.zone")["package-0"] == 1


def test_no_thread_where_cycles_are_close(tmp_path: Path) -> None:
    with Running(host("two-sockets", tmp_path), settings(interval=20)):
        assert not [each for each in threading.enumerate() if each.name.startswith("rapl")]


def test_hwmon_energy(tmp_path: Path) -> None:
    fs = host("hwmon", tmp_path)
    with Running(fs, settings()) as source:
        source.read()
        add(Path(fs.sys("class/hwmon/hwmon3/energy129_input")), 30_000_000)
        reading = source.read()
    assert points(reading, hardware.ENERGY, "hw.id") == {"package-0": 30.0, "package-1": 0.0}
    assert reading.facts["energy_source"] == "hwmon"


def test_power_of_a_grace_module_becomes_energy(tmp_path: Path) -> None:
    with Running(host("arm-grace", tmp_path), settings()) as source:
        source.read()
        time.sleep(0.1)
        reading = source.read()
    energy = points(reading, rows.ENERGY, "rapl.domain")
    assert set(energy) == {"package", "core", "sysio", "module"}
    joules = points(reading, hardware.ENERGY, "hw.id")
    assert list(joules) == ["package-0"]
    assert 14.0 < joules["package-0"] < 141.0  # type: ignore[operator]
    assert energy["module"] / joules["package-0"] == pytest.approx(212 / 141)  # type: ignore[operator]


def test_one_acpi_power_meter_without_a_label_is_the_host(tmp_path: Path) -> None:
    fs = host("arm-grace", tmp_path)
    for number in (1, 2, 3):
        shutil.rmtree(fs.sys(f"class/hwmon/hwmon{number}"))
    Path(fs.sys("class/hwmon/hwmon0/device/power1_oem_info")).write_text("\n")
    with Running(fs, settings()) as source:
        source.read()
        reading = source.read()
    assert list(points(reading, hardware.HOST_ENERGY, "hw.id")) == ["host"]
    assert not points(reading, hardware.ENERGY, "hw.id")


def test_zones_of_arm_firmware_are_told_apart_and_are_no_components(tmp_path: Path) -> None:
    with Running(host("arm-scmi", tmp_path), settings()) as source:
        source.read()
        time.sleep(0.02)
        reading = source.read()
    energy = points(reading, rows.ENERGY, "rapl.zone", "rapl.interface")
    assert set(energy) == {("soc", "arm-scmi"), ("cluster", "arm-scmi"), ("cluster@arm-scmi:0:1", "arm-scmi")}
    assert energy["soc", "arm-scmi"] > energy["cluster", "arm-scmi"] > 0  # type: ignore[operator]
    assert not points(reading, hardware.ENERGY, "hw.id")
    assert points(reading, rows.POWER_LIMIT, "rapl.constraint") == {"SCMI power-cap": 60.0}
