"""AMD's and Intel's GPUs from sysfs and fdinfo: what the source emits on hosts that have them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.process import EXECUTABLE, PID
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel import amdgpu, drm_fdinfo
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Gpu as GpuSettings
from otel_hostmetrics.settings import Seconds, Settings
from otel_hostmetrics.sources.gpu import Gpu
from tests.gpu.conftest import add_gpu, count_by_software, write
from tests.gpu.sysfs_hosts import Driver, metrics, values
from tests.hosts.recorded import unpack
from tests.kernel.as_nobody import as_nobody, in_child
from tests.kernel.test_perf_event import PARANOID, needs_root

RADEON, INSTINCT, BATTLEMAGE, IRIS = "5c8f3d2a1b4e6f70", "8d2f1a90c7b3e415", "0000:03:00.0", "0000:00:02.0"
RADEON_AT = "0000:03:00.0"


def test_amd_gpus_in_the_units_of_the_conventions(amd, opened):
    reading = opened(amd).read()
    assert values(reading, rows.UTILIZATION, hw__gpu__task="general") == {RADEON: 0.42, INSTINCT: 0.97}
    assert values(reading, rows.MEMORY_UTILIZATION) == {RADEON: 0.25, INSTINCT: 0.5}
    assert values(reading, hardware.POWER) == {RADEON: 118.0, INSTINCT: 612.0}
    assert values(reading, rows.POWER_LIMITS, hw__limit_type="current") == {RADEON: 303.0, INSTINCT: 750.0}
    assert values(reading, hardware.ENERGY) == {INSTINCT: 3.0}
    assert values(reading, hardware.TEMPERATURE, hw__sensor_location="hotspot") == {RADEON: 63.0, INSTINCT: 61.0}
    assert values(reading, hardware.TEMPERATURE_LIMIT, hw__limit_type="high.critical") == {RADEON: 105.0}
    assert values(reading, hardware.FAN_SPEED_RATIO) == {RADEON: 0.4}
    assert values(reading, rows.FREQUENCY, hw__gpu__clock__domain="graphics") == {RADEON: 2_304_000_000}
    assert values(reading, rows.PCIE_GENERATION) == {RADEON: 4, INSTINCT: 5}
    assert values(reading, rows.ECC_ERRORS, error__type="corrected") == {INSTINCT: 37}
    assert values(reading, rows.ECC_ERRORS, error__type="deferred") == {INSTINCT: 2}
    assert reading.columns[rows.COUNT].values == [2]  # not the BMC's
    assert reading.problems == []


def test_amd_gpus_under_the_seeds_names_and_labels(amd, opened):
    reading = opened(amd).read()
    series, found = reading.columns[rows.POWER_DRAW]
    assert series[1].attributes == {"gpu_id": "0000:c1:00.0", "gpu_name": "AMD Instinct MI300X OAM", "gpu_uuid": INSTINCT}
    assert list(found) == [118.0, 612.0]
    assert list(reading.columns[rows.MEMORY_USED].values) == [6_438_256_640, 103_070_826_496]


def test_a_process_has_what_its_clients_have_and_a_shared_client_counts_once(amd, opened):
    reading = opened(amd).read()
    assert values(reading, rows.PROCESS_TIME, hw__gpu__engine="gfx", process__pid=2311) == {RADEON: 3.141592653}
    assert values(reading, rows.PROCESS_MEMORY, hw__gpu__memory__region="vram") == {RADEON: 524_288 * 1024}
    assert values(reading, rows.PROCESS_TIME, process__pid=2312) == {}  # holds the client of 2311
    assert rows.PROCESS_TIME not in opened(amd, processes=False).read().columns


def test_a_process_has_the_name_of_its_executable_until_its_pid_is_another_s(amd, opened, tmp_path):
    directory = tmp_path / "proc/2311"
    (directory / "exe").symlink_to("/opt/rocm/bin/train (deleted)")
    source = opened(amd)
    first = source.read().columns[rows.PROCESS_TIME].series
    assert {each.attributes.get(EXECUTABLE) for each in first if each.attributes[PID] == 2311} == {"train"}
    (directory / "exe").unlink()  # nobody looks at it again
    assert source.read().columns[rows.PROCESS_TIME].series is first
    directory.rename(tmp_path / "gone")
    shutil.copytree(tmp_path / "gone", directory, symlinks=True)
    (directory / "exe").symlink_to("/usr/bin/next")
    later = source.read().columns[rows.PROCESS_TIME].series
    assert {each.attributes.get(EXECUTABLE) for each in later if each.attributes[PID] == 2311} == {"next"}


def test_a_process_that_closes_one_of_its_clients_keeps_its_time(amd, opened, tmp_path):
    other = tmp_path / "proc/2311/fdinfo/6"
    other.write_text(other.read_text().replace("drm-client-id:\t41", "drm-client-id:\t42"))
    source = opened(amd)
    source.read()
    other.write_text(other.read_text().replace("3141592653", "4141592653"))
    both = values(source.read(), rows.PROCESS_TIME, hw__gpu__engine="gfx", process__pid=2311)
    assert both == {RADEON: pytest.approx(2 * 3.141592653 + 1)}
    other.unlink()
    assert values(source.read(), rows.PROCESS_TIME, hw__gpu__engine="gfx", process__pid=2311) == both


def test_a_sleeping_amd_gpu_is_not_read(amd, opened, tmp_path):
    source = opened(amd)
    assert RADEON in values(source.read(), hardware.POWER)
    (tmp_path / "sys/devices/pci0000:00/0000:03:00.0/power/runtime_status").write_text("suspended\n")
    (tmp_path / "sys/devices/pci0000:00/0000:03:00.0/gpu_busy_percent").write_text("nobody may read this\n")
    reading = source.read()
    assert values(reading, hardware.POWER).keys() == {INSTINCT}
    assert reading.columns[rows.COUNT].values == [2]


def test_a_gpu_that_sleeps_from_the_start_is_opened_when_it_wakes(amd, opened, tmp_path):
    device = tmp_path / "sys/devices/pci0000:00/0000:03:00.0"
    (device / "power/runtime_status").write_text("suspended\n")
    (device / "gpu_busy_percent").write_text("whoever reads this has woken me\n")
    source = opened(amd)
    assert values(source.read(), hardware.POWER).keys() == {INSTINCT}
    (device / "power/runtime_status").write_text("active\n")
    (device / "gpu_busy_percent").write_text("42\n")
    reading = source.read()
    assert values(reading, hardware.POWER).keys() == {RADEON, INSTINCT}
    assert values(reading, rows.UTILIZATION, hw__gpu__task="general")[RADEON] == 0.42  # a file that cannot be read at first is left out


@pytest.mark.parametrize(("host", "sleeper"), [("amd", RADEON_AT), ("intel", BATTLEMAGE)])
def test_of_a_sleeping_gpu_only_files_that_do_not_wake_it_are_opened(host, sleeper, tmp_path, request):
    """Those of the PCI Express link do, since commit 48991e493507 of Linux 6.18, and so do all of the driver's."""
    fs, device = request.getfixturevalue(host), tmp_path / "sys/devices/pci0000:00" / sleeper
    (device / "power/runtime_status").write_text("suspended\n")
    opened: set[str] = set()

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and sleeper in str(arguments[0]):
            opened.add(os.path.basename(str(arguments[0])))

    def read() -> str:
        source = Gpu(fs, Settings(gpu=GpuSettings(slow_interval=Seconds(0))))
        source.open()
        source.read()
        source.read()
        return " ".join(sorted(opened))

    assert in_child(lambda: sys.addaudithook(note), read) == "class control device runtime_status vendor"


def test_a_file_that_fails_is_one_value_less(amd, opened, tmp_path):
    source = opened(amd)
    source.read()
    (tmp_path / "sys/devices/pci0000:00/0000:03:00.0/gpu_busy_percent").write_text("N/A\n")
    reading = source.read()
    assert values(reading, rows.UTILIZATION, hw__gpu__task="general") == {INSTINCT: 0.97}
    assert RADEON in values(reading, hardware.POWER)


def test_an_unplugged_gpu_is_forgotten_at_the_next_look(amd, opened, tmp_path):
    source = opened(amd, slow_interval=Seconds(0.001))
    source.read()
    (tmp_path / "sys/bus/pci/devices/0000:03:00.0").unlink()
    reading = source.read()
    assert values(reading, hardware.POWER).keys() == {INSTINCT}
    assert reading.columns[rows.COUNT].values == [1]


@pytest.fixture
def driver(tmp_path):
    driver = Driver(add_gpu(tmp_path, "0000:03:00.0", vendor="0x1002", driver="amdgpu"))
    driver.show("gpu_busy_percent", "pcie_replay_count")
    yield driver
    driver.unload()  # if the test did not


def test_a_driver_that_is_loaded_anew_is_read_anew_and_its_counters_begin_anew(driver, tmp_path, opened):
    source = opened(HostFS(str(tmp_path)))
    before = source.read().columns[rows.PCIE_REPLAYS]
    assert before.values == [7]
    driver.unload("gpu_busy_percent", "pcie_replay_count")
    for name, count in (("gpu_busy_percent", 50), ("pcie_replay_count", 3)):
        write(tmp_path / "sys/devices/pci0000:00/0000:03:00.0" / name, str(count))
    assert rows.PCIE_REPLAYS not in source.read().columns
    reading = source.read()
    assert reading.columns[rows.UTILIZATION_PERCENT].values == [50]
    after = reading.columns[rows.PCIE_REPLAYS]
    assert after.values == [3]
    assert after.series[0].attributes == before.series[0].attributes
    assert after.series[0].start_ns > before.series[0].start_ns


def test_a_driver_that_was_away_for_some_cycles_is_found_at_the_next_look(driver, tmp_path, opened):
    source = opened(HostFS(str(tmp_path)), slow_interval=Seconds(0))
    source.read()
    driver.unload("gpu_busy_percent", "pcie_replay_count")
    for _ in range(3):
        assert rows.PCIE_REPLAYS not in source.read().columns
    write(tmp_path / "sys/devices/pci0000:00/0000:03:00.0/pcie_replay_count", "9")
    assert source.read().columns[rows.PCIE_REPLAYS].values == [9]


def test_a_gpu_that_was_plugged_in_anew_and_sleeps_is_left_alone(driver, tmp_path, opened):
    driver.show("power/runtime_status")
    source = opened(HostFS(str(tmp_path)))
    source.read()
    driver.unload("gpu_busy_percent", "pcie_replay_count", "power/runtime_status")
    for name, text in (("power/runtime_status", "suspended"), ("pcie_replay_count", "3")):
        write(tmp_path / "sys/devices/pci0000:00/0000:03:00.0" / name, text)
    source.read()
    assert rows.PCIE_REPLAYS not in source.read().columns


def test_columns_keep_their_series(amd, opened):
    source = opened(amd)
    first, second = source.read(), source.read()
    assert all(first.columns[metric].series is second.columns[metric].series for metric in first.columns)
    for metric, column in second.columns.items():
        assert len(set(map(repr, column.series))) == len(column.series), f"{metric.name}: a series twice"
        assert all(isinstance(value, int if metric.integer else float) for value in column.values)


@pytest.mark.parametrize(
    ("device", "form", "sensor", "apart"),
    [
        pytest.param("0x15bf", (2, 4), "", False, id="format 2"),
        pytest.param("0x150e", (3, 0), "", False, id="format 3"),
        pytest.param("0x15d8", None, "vddnb", False, id="voltage of the northbridge"),
        pytest.param("0x74a0", (1, 6), "", False, id="MI300A"),
        pytest.param("0x74a1", (1, 6), "", True, id="MI300X"),
    ],
)
def test_power_of_an_apu_is_that_of_its_processors_too_and_in_no_sum_with_them(device, form, sensor, apart, opened, tmp_path):
    """Documentation/gpu/amdgpu/thermal.rst: "On APUs this includes the CPU", as does RAPL."""
    gpu = add_gpu(tmp_path, "0000:c1:00.0", vendor="0x1002", driver="amdgpu")
    hwmon = {"power1_input": "28000000", "power1_cap": "54000000", "power1_label": "PPT", "in1_label": sensor}
    for name, text in ({"device": device} | {f"hwmon/hwmon3/{name}": text for name, text in hwmon.items() if text}).items():
        write(gpu / name, text)
    if form:
        (gpu / "gpu_metrics").write_bytes(metrics(*form, 16, 3 << 16))
    reading = opened(HostFS(str(tmp_path))).read()
    assert list(reading.columns[rows.POWER_DRAW].values) == [28.0]
    assert list(reading.columns[rows.POWER_LIMIT].values) == [54.0]
    assert values(reading, hardware.POWER) == ({"0000:c1:00.0": 28.0} if apart else {})
    assert values(reading, hardware.ENERGY) == ({"0000:c1:00.0": 3.0} if apart else {})


def test_intel_gpus_of_both_drivers(intel, opened):
    reading = opened(intel).read()
    assert values(reading, rows.FREQUENCY, hw__gpu__clock__domain="graphics") == {IRIS: 950_000_000, BATTLEMAGE: 2_850_000_000}
    assert values(reading, rows.FREQUENCY, hw__gpu__clock__domain="media") == {BATTLEMAGE: 1_200_000_000}
    assert values(reading, rows.THROTTLED, hw__gpu__throttle__reason="graphics.pl1") == {IRIS: 1, BATTLEMAGE: 0}
    assert values(reading, hardware.ENERGY) == {BATTLEMAGE: 987_654.321}
    assert values(reading, rows.POWER_LIMITS) == {BATTLEMAGE: 190.0}
    assert values(reading, hardware.TEMPERATURE, hw__sensor_location="memory") == {BATTLEMAGE: 66.0}
    assert values(reading, rows.MEMORY_LIMIT) == {BATTLEMAGE: 12_884_901_888}
    assert values(reading, rows.PCIE_WIDTH) == {BATTLEMAGE: 8}
    assert values(reading, rows.PROCESS_TIME, hw__gpu__engine="render", process__pid=4711) == {IRIS: 25.662044495}
    assert values(reading, rows.PROCESS_MEMORY) == {IRIS: 17_124 * 1024}
    assert reading.columns[rows.COUNT].values == [2]


def test_energy_and_limit_of_an_intel_card_are_those_of_its_package_where_it_tells_no_more(intel, opened, tmp_path):
    """Arc A, Flex and Data Center GPU Max. They have no sensors of the card, but may have its critical power (xe_hwmon.c)."""
    hwmon = tmp_path / "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4"
    (hwmon / "energy1_input").unlink()
    (hwmon / "power1_max").rename(hwmon / "power2_max")
    write(hwmon / "power2_label", "pkg")
    write(hwmon / "power1_crit", "300000000")
    reading = opened(intel).read()
    assert values(reading, hardware.ENERGY) == {BATTLEMAGE: 512_345.678}
    assert values(reading, rows.POWER_LIMITS) == {BATTLEMAGE: 190.0}
    assert list(reading.columns[rows.POWER_LIMIT].values) == [190.0]


@pytest.mark.parametrize(("card", "package", "joules"), [("0", "29523753173", 29_523.753173), ("0", "0", 0.0), ("7000000", "0", 7.0)])
def test_a_card_that_counts_nothing_while_its_package_does_has_no_counter(card, package, joules, intel, opened, tmp_path):
    """A B580 with Linux 6.16."""
    hwmon = tmp_path / "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4"
    write(hwmon / "energy1_input", card)
    write(hwmon / "energy2_input", package)
    assert values(opened(intel).read(), hardware.ENERGY) == {BATTLEMAGE: joules}


def test_a_duty_of_xe_is_not_that_of_the_fan(intel, opened, tmp_path):
    """A B580 in automatic mode: 1116 revolutions a minute, pwm1 0."""
    hwmon = tmp_path / "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4"
    write(hwmon / "pwm1", "0")
    write(hwmon / "pwm1_enable", "2")
    reading = opened(intel).read()
    assert values(reading, hardware.FAN_SPEED) == {BATTLEMAGE: 1432}
    assert hardware.FAN_SPEED_RATIO not in reading.columns


def test_the_limit_in_force_of_an_intel_card_is_the_sustained_one(intel, opened, tmp_path):
    """power1_cap of xe is that of bursts (PL2), power1_max that of longer times (PL1)."""
    write(tmp_path / "sys/devices/pci0000:00/0000:03:00.0/hwmon/hwmon4/power1_cap", "240000000")
    assert values(opened(intel).read(), rows.POWER_LIMITS) == {BATTLEMAGE: 190.0}


def test_xe_tells_cycles_which_are_a_share_of_the_engines_time(intel, opened, tmp_path):
    def work(cycles, clock):
        text = "drm-driver:\txe\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t9\n"
        path.write_text(f"{text}drm-cycles-ccs:\t{cycles}\ndrm-total-cycles-ccs:\t{clock}\ndrm-engine-capacity-ccs:\t2\n")

    path = tmp_path / "proc/4711/fdinfo/12"
    work(1000, 100_000)
    source = opened(intel)
    assert rows.PROCESS_UTILIZATION not in source.read().columns  # of one reading there is no share
    work(11_000, 120_000)
    assert values(source.read(), rows.PROCESS_UTILIZATION, hw__gpu__task="ccs", process__pid=4711) == {BATTLEMAGE: 0.25}


@needs_root
def test_engines_of_intel_gpus_are_counted_by_their_pmus(intel, opened, tmp_path):
    unpack("gpu-intel-pmu", tmp_path)
    count_by_software(tmp_path, "i915", rcs0_busy="config=0x0", vcs0_busy="config=0x2", vcs1_busy="config=0x3e7")
    count_by_software(tmp_path, "xe_0000_03_00.0", engine_active_ticks="event=0x00", engine_total_ticks="event=0x01")
    source = opened(intel, xe_engines=True)
    first = source.read()
    assert rows.ENGINE_UTILIZATION not in first.columns
    time.sleep(1.0)
    reading = source.read()
    assert reading.problems == []
    assert values(reading, rows.ENGINE_UTILIZATION, hw__gpu__engine="rcs0") == {
        IRIS: pytest.approx(1, abs=0.05),
        BATTLEMAGE: pytest.approx(1, abs=0.05),
    }
    assert values(reading, rows.ENGINE_UTILIZATION, hw__gpu__engine="vcs0") == {IRIS: pytest.approx(0, abs=0.05)}
    assert values(reading, rows.ENGINE_UTILIZATION, hw__gpu__engine="vcs1") == {}  # the kernel has no such event
    assert values(reading, rows.UTILIZATION, hw__gpu__task="general") == values(reading, rows.ENGINE_UTILIZATION, hw__gpu__engine="rcs0")
    assert set(reading.columns[rows.UTILIZATION_PERCENT].values) <= set(range(95, 101))
    assert source.read().columns[rows.ENGINE_UTILIZATION].values == reading.columns[rows.ENGINE_UTILIZATION].values  # of the same window


@needs_root
def test_engines_of_xe_are_left_alone_because_counting_them_keeps_the_gpu_awake(intel, opened, tmp_path):
    def events():
        return sum("perf_event" in each.readlink().name for each in Path("/proc/self/fd").iterdir() if each.is_symlink())

    unpack("gpu-intel-pmu", tmp_path)
    count_by_software(tmp_path, "i915")
    count_by_software(tmp_path, "xe_0000_03_00.0", engine_active_ticks="event=0x00", engine_total_ticks="event=0x01")
    before = events()
    opened(intel).read()
    assert events() == before
    opened(intel, xe_engines=True).read()
    assert events() == before + 2


@needs_root
@pytest.mark.skipif(PARANOID.exists() and int(PARANOID.read_text()) < 1, reason="kernel.perf_event_paranoid lets everybody in")
def test_engines_that_may_not_be_counted_are_one_problem_with_a_cure(intel, tmp_path):
    def read():
        source = Gpu(intel, Settings(gpu=GpuSettings()))
        source.open()
        reading = source.read()
        source.close()
        return f"{[(problem.reason.name, problem.needs) for problem in reading.problems]} {IRIS in values(reading, rows.FREQUENCY)}"

    unpack("gpu-intel-pmu", tmp_path)
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(directory.stat().st_mode | 0o055)
    assert as_nobody(read) == "[('DENIED', 'CAP_PERFMON')] True"


@pytest.mark.parametrize(("driver", "text"), [("", "bound to no driver"), ("vfio-pci", "bound to vfio-pci")])
def test_a_gpu_without_its_driver_is_told_from_no_gpu(intel, opened, tmp_path, driver, text):
    for address in (IRIS, BATTLEMAGE):
        link = tmp_path / f"sys/devices/pci0000:00/{address}/driver"
        link.unlink()
        if driver:
            os.symlink(f"../{driver}", link)
    reading = opened(intel).read()
    assert reading.columns[rows.COUNT].values == [0]
    assert [problem.reason for problem in reading.problems] == [Reason.ABSENT] * 2
    assert text in str(reading.problems[0])


def test_a_host_without_gpus_says_so_with_a_count_of_zero(opened, tmp_path):
    reading = opened(HostFS(str(tmp_path))).read()
    assert reading.columns[rows.COUNT].values == [0]
    assert reading.problems == []
    assert reading.off is not None
    assert reading.off.reason is Reason.ABSENT
    assert "no GPU of NVIDIA, AMD or Intel" in str(reading.off)


@given(st.text(max_size=60))
def test_any_text_is_error_counts_or_nothing(text):
    assert all(count >= 0 for count in amdgpu.ras(text).values())


def test_error_counts_of_both_forms():
    assert amdgpu.ras("ue: 1\nce: 37\n") == {"uncorrected": 1, "corrected": 37}
    assert amdgpu.ras("ue: 1\nce: 37\nde: 2\n") == {"uncorrected": 1, "corrected": 37, "deferred": 2}
    assert amdgpu.ras("Query currently inaccessible\n") == {}


_KEYS = st.sampled_from(
    ["drm-driver", "drm-pdev", "drm-client-id", "drm-engine-gfx", "drm-memory-vram", "drm-resident-vram", "drm-total-vram", "x"]
)


@given(st.lists(st.tuples(_KEYS, st.text(max_size=12), st.sampled_from(["", " KiB", " ns", " MiB", "\t"]))))
def test_any_lines_are_a_client_or_none(lines):
    client = drm_fdinfo.parse("\n".join(f"{key}:\t{value}{unit}" for key, value, unit in lines))
    assert client is None or (
        client.driver and client.device and all(value >= 0 for value in (*client.engines.values(), *client.memory.values()))
    )
