"""Which interface energy is read from, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.doctor.cures import cures
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cpu import processor
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.rapl import Rapl
from otel_hostmetrics.sources.rapl.discovery import discover
from otel_hostmetrics.sources.rapl.interfaces import from_perf
from tests.kernel.as_nobody import as_nobody
from tests.sources.energy_hosts import host, settings

MSR_PMU = Path("/sys/bus/event_source/devices/msr/type")  # a PMU of the same class as "power", on most x86 machines
needs_msr_pmu = pytest.mark.skipif(
    not MSR_PMU.exists() or os.geteuid() != 0, reason="needs root and the msr PMU (CONFIG_PERF_EVENTS on x86 with a constant TSC)"
)


def refusal(fs: HostFS, chosen: Settings | None = None) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        discover(fs, (chosen or settings()).rapl)
    return caught.value


def with_real_pmu(fs: HostFS) -> None:
    """Let the recorded power PMU be the running kernel's msr PMU: its first event counts the time stamp counter."""
    directory = Path(fs.sys("bus/event_source/devices/power"))
    (directory / "type").write_text(MSR_PMU.read_text())
    (directory / "cpumask").write_text("0\n")
    for name in ("cores", "ram"):
        for suffix in ("", ".scale", ".unit"):
            (directory / f"events/energy-{name}{suffix}").unlink()
    (directory / "events/energy-pkg").write_text("event=0x00\n")
    (directory / "events/energy-pkg.scale").write_text("1e-08\n")  # some 20 to 50 W


@pytest.mark.parametrize(
    ("name", "interface"),
    [("two-sockets", "powercap"), ("mmio", "powercap"), ("hwmon", "hwmon"), ("arm-grace", "hwmon"), ("arm-scmi", "powercap")],
)
def test_what_is_read_by_default(name: str, interface: str, tmp_path: Path) -> None:
    found = discover(host(name, tmp_path), settings().rapl)
    found.close()
    assert found.interface == interface
    assert not found.problems


def test_a_virtual_machine_exports_nothing_and_says_why(tmp_path: Path) -> None:
    error = refusal(host("vm", tmp_path))
    assert (error.reason, error.needs) == (Reason.ABSENT, "")
    assert "virtual machine" in str(error)


def test_bare_metal_without_the_class_and_with_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    fs = host("vm", tmp_path)
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace(" hypervisor", ""))
    assert "CONFIG_POWERCAP" in str(refusal(fs))
    Path(fs.sys("class/powercap")).mkdir()
    error = refusal(fs)
    assert error.reason is Reason.ABSENT
    assert "modprobe intel_rapl_msr" in str(error)


def test_a_masked_powercap_is_denied_and_names_what_would_help(tmp_path: Path) -> None:
    error = refusal(host("masked", tmp_path))
    assert error.reason is Reason.DENIED
    assert "mask" in str(error)
    assert [str(cure) for cure in cures(error.needs)] == ["/sys/devices/virtual/powercap readable"]


def test_energy_readable_by_root_only_is_denied_to_others(tmp_path: Path) -> None:
    """energy_uj is 0400 since Linux 5.10."""
    fs = host("two-sockets", tmp_path)
    for path in tmp_path.rglob("energy_uj"):
        path.chmod(0o400)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    source = Rapl(fs, settings())

    def what_nobody_sees() -> str:
        try:
            source.open()
        except Unavailable as error:
            return f"{error.reason.name} {error.needs} {error.what}"
        return "opened"

    answer = as_nobody(what_nobody_sees)
    if os.geteuid() == 0:
        assert answer.startswith("DENIED CAP_DAC_READ_SEARCH /")
        assert answer.endswith("energy_uj")


def test_what_is_denied_twice_has_two_cures(tmp_path: Path) -> None:
    """powercap for root only, and a power PMU besides."""
    fs = host("two-sockets", tmp_path)
    host("perf", tmp_path)
    for path in tmp_path.rglob("energy_uj"):
        path.chmod(0o400)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    if MSR_PMU.exists():
        with_real_pmu(fs)

    def what_nobody_needs() -> str:
        try:
            discover(fs, settings().rapl).close()
        except Unavailable as error:
            return error.needs
        return "nothing"

    if os.geteuid() == 0 and MSR_PMU.exists() and int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) > 0:
        assert as_nobody(what_nobody_needs) == "CAP_PERFMON|CAP_DAC_READ_SEARCH"


@needs_msr_pmu
def test_perf_takes_over_where_powercap_is_masked(tmp_path: Path) -> None:
    """A real event of the running kernel, described to the source as energy."""
    fs = host("masked", tmp_path)
    host("perf", tmp_path)
    with_real_pmu(fs)
    source = Rapl(fs, settings())
    source.open()
    try:
        first, second = source.read(), source.read()
    finally:
        source.close()
    assert first.facts["energy_source"] == "perf"
    column = second.columns[hardware.ENERGY]
    assert [each.attributes["hw.id"] for each in column.series] == ["package-0"]
    assert 0 < first.columns[hardware.ENERGY].values[0] + 1e-9 < column.values[0]  # type: ignore[operator]


@needs_msr_pmu
def test_a_power_pmu_whose_event_the_kernel_refuses_is_no_source(tmp_path: Path) -> None:
    fs = host("perf", tmp_path)
    with_real_pmu(fs)
    Path(fs.sys("bus/event_source/devices/power/events/energy-pkg")).write_text("event=0xfe\n")
    assert refusal(fs, settings(energy_source="perf")).reason in (Reason.ABSENT, Reason.UNSUPPORTED)


def test_events_that_amd_does_not_have_are_left_out(tmp_path: Path) -> None:
    """Before 5.17 the PMU named them all the same."""
    fs = host("perf", tmp_path)
    assert [zone.name for zone in from_perf(fs, processor(fs), 1000)] == [
        "package-0/core", "package-0", "package-0/dram", "package-1/core", "package-1", "package-1/dram",
    ]  # fmt: skip
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("GenuineIntel", "AuthenticAMD"))
    assert [zone.name for zone in from_perf(fs, processor(fs), 1000)] == ["package-0", "package-1"]


def msr_host(tmp_path: Path, vendor: str, unit_address: int, registers: dict[int, int]) -> HostFS:
    """One package; /dev/cpu/0/msr is a file with holes, in which a register lies at its number, as in the device."""
    fs = host("two-sockets", tmp_path)
    shutil.rmtree(fs.sys("class/powercap"))
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("GenuineIntel", vendor))
    topology = Path(fs.sys("devices/system/cpu/cpu0/topology"))
    topology.mkdir(parents=True)
    (topology / "physical_package_id").write_text("0\n")
    Path(fs.sys("devices/system/cpu/online")).write_text("0\n")
    (tmp_path / "dev/cpu/0").mkdir(parents=True)
    with open(tmp_path / "dev/cpu/0/msr", "wb") as file:
        for address, value in {unit_address: 0x000A1003, **registers}.items():
            file.seek(address)
            file.write(value.to_bytes(4, "little"))
        file.write(bytes(8))
    return fs


def test_registers_are_read_only_where_somebody_asks(tmp_path: Path) -> None:
    fs = msr_host(tmp_path, "GenuineIntel", 0x606, {0x611: 0xFFFF_0000, 0x619: 5})
    assert refusal(fs).reason is Reason.ABSENT
    source = Rapl(fs, settings(energy_source="msr"))
    source.open()
    try:
        source.read()
        with open(tmp_path / "dev/cpu/0/msr", "r+b") as file:
            file.seek(0x611)
            file.write((0x8000).to_bytes(4, "little"))
        reading = source.read()
    finally:
        source.close()
    column = reading.columns[hardware.ENERGY]
    assert [each.attributes["hw.id"] for each in column.series] == ["package-0", "package-0/dram"]
    assert column.values[0] == 0x1_8000 * 2.0**-16  # 0xffff0000 to 0x8000, over the end of 32 bits


def test_amd_has_registers_of_its_own(tmp_path: Path) -> None:
    found = discover(msr_host(tmp_path, "AuthenticAMD", 0xC0010299, {0xC001029B: 77}), settings(energy_source="msr").rapl)
    found.close()
    assert [zone.name for zone in found.zones] == ["package-0"]


def test_what_is_switched_off_is_off(tmp_path: Path) -> None:
    error = refusal(host("two-sockets", tmp_path), settings(energy_source="off"))
    assert error.reason is Reason.ABSENT
    assert "off" in str(error)


def test_an_interface_that_was_named_gives_its_own_reason(tmp_path: Path) -> None:
    error = refusal(host("arm-grace", tmp_path), settings(energy_source="perf"))
    assert error.reason is Reason.ABSENT
    assert "event_source/devices/power" in str(error)


def test_this_machine_has_energy_or_a_reason() -> None:
    zones, why = [], None
    try:
        found = discover(HostFS(), settings().rapl)
        found.close()
        zones = found.zones
    except Unavailable as error:
        why = error
    assert bool(zones) != bool(why)
    if why:
        assert why.reason in (Reason.ABSENT, Reason.DENIED)
        assert bool(why.needs) == (why.reason is Reason.DENIED)
