"""Health of AMD's and Intel's GPUs: held down, worn, off their bus, unplugged."""

from __future__ import annotations

import shutil

import pytest

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Seconds
from otel_hostmetrics.sources.gpu.residency import Residency
from tests.dashboards.queries import matching
from tests.deploy.alerts import selectors
from tests.export.prometheus.batches import batch
from tests.gpu.conftest import add_gpu, write
from tests.gpu.sysfs_hosts import Driver, table, values

ADDRESS = "0000:03:00.0"
CONFIG = bytes.fromhex("0210 4c74 0704 1000").ljust(64, b"\0")  # command 0x0407, status 0x0010
PROCHOT, HOTSPOT = 1 << 47, 1 << 36
OK = {"ok": 1, "degraded": 0, "failed": 0}


def states(reading, gpu=ADDRESS):
    column = reading.columns.get(hardware.STATUS)
    pairs = zip(*column, strict=True) if column else ()
    return {series.attributes["hw.state"]: value for series, value in pairs if series.attributes["hw.id"] == gpu}


def status(bits):
    """The table of a Radeon."""
    return table(3, {112: ("Q", bits)}, 120)


def residencies(cycles, clock, **held):
    """The table of an MI300."""
    order = ("prochot", "power", "thermal", "vr_thermal", "memory_thermal")
    fields = {44 + 4 * place: ("I", held.get(reason, 0)) for place, reason in enumerate(order)}
    return table(7, {40: ("I", cycles), 288: ("Q", clock)} | fields)


@pytest.fixture
def radeon(tmp_path):
    """One that answers and whose clocks are not held down."""
    device = add_gpu(tmp_path, ADDRESS, vendor="0x1002", driver="amdgpu")
    write(device / "gpu_busy_percent", "42")
    (device / "config").write_bytes(CONFIG)
    (device / "gpu_metrics").write_bytes(status(0))
    return device


@pytest.fixture
def xe(tmp_path):
    device = add_gpu(tmp_path, ADDRESS, vendor="0x8086", driver="xe")
    (device / "config").write_bytes(CONFIG)
    for name in ("prochot", "vr_thermalert", "thermal"):
        write(device / f"tile0/gt0/freq0/throttle/reason_{name}", "0")
    return device


@pytest.fixture
def source(opened, tmp_path):
    return opened(HostFS(str(tmp_path)), slow_interval=Seconds(0))


def test_a_radeon_tells_why_its_clocks_are_held_down_now(radeon, source):
    assert values(source.read(), rows.THROTTLED, hw__gpu__throttle__reason="thermal") == {ADDRESS: 0}
    (radeon / "gpu_metrics").write_bytes(status(HOTSPOT))
    series, now = source.read().columns[rows.THROTTLED]
    assert {each.attributes["hw.gpu.throttle.reason"]: value for each, value in zip(series, now, strict=True)} == {
        "power": 0, "current": 0, "thermal": 1, "memory_thermal": 0, "vr_thermal": 0, "prochot": 0, "reliability": 0,
    }  # fmt: skip


def test_an_mi300_tells_how_long(radeon, source):
    second = 100_000_000
    (radeon / "gpu_metrics").write_bytes(residencies(1000, second, power=10))
    assert values(source.read(), rows.THROTTLE_TIME, hw__gpu__throttle__reason="power") == {ADDRESS: 0}
    (radeon / "gpu_metrics").write_bytes(residencies(3000, 3 * second, power=510))
    reading = source.read()
    assert values(reading, rows.THROTTLE_TIME, hw__gpu__throttle__reason="power") == {ADDRESS: 0.5}
    assert values(reading, rows.THROTTLE_TIME, hw__gpu__throttle__reason="memory_thermal") == {ADDRESS: 0}
    assert rows.THROTTLED not in reading.columns


@pytest.mark.parametrize(
    ("metrics", "name", "heat"),
    [
        (status(0), "hw_gpu_throttle_active", {"thermal", "memory_thermal", "vr_thermal", "prochot"}),
        (residencies(1, 1), "hw_gpu_throttle_time_seconds_total", {"thermal", "memory_thermal", "vr_thermal", "prochot"}),
    ],
)
def test_the_alert_watches_heat_and_the_board_but_not_the_limit_of_power(radeon, source, metrics, name, heat):
    (radeon / "gpu_metrics").write_bytes(metrics)
    text = Page({}).render(batch(*source.read().columns.items()), Format.TEXT).decode()
    found = {line for asked, matchers in selectors("gpu") if asked == name for line in matching(text, name, matchers)}
    assert {line.split('throttle_reason="')[1].partition('"')[0] for line in found} == heat


def test_an_mi300a_has_no_energy_of_its_own_but_tells_how_long_its_clocks_are_held_down(radeon, source):
    write(radeon / "device", "0x74a0")
    (radeon / "gpu_metrics").write_bytes(residencies(1000, 1))
    reading = source.read()
    assert values(reading, rows.THROTTLE_TIME, hw__gpu__throttle__reason="power") == {ADDRESS: 0}
    assert hardware.ENERGY not in reading.columns


RESIDENCY = ("residency.cycles", "residency.clock_10ns", "residency.power")


def test_cycles_wrap_and_begin_anew_with_a_reset():
    held = Residency(RESIDENCY)
    assert held.names == ("throttled.power_s",)
    assert held.read([2**32 - 500, 0, 2**32 - 1]) == [0]
    assert held.read([500, 100_000_000, 249]) == [pytest.approx(0.25)]
    assert held.read([500, 100_000_000, 249]) == [pytest.approx(0.25)]  # the same sample of the firmware's
    assert held.read([10, 1_000_000, 10]) == [pytest.approx(0.25)]  # another beginning
    assert held.read([1010, 101_000_000, 510]) == [pytest.approx(0.75)]
    assert held.read([2010, 201_000_000, 5]) == [pytest.approx(0.75)]  # no part of the cycles
    assert held.read([2010, None, 5]) == [None]
    assert held.read([3010, 301_000_000, 105]) == [pytest.approx(0.85)]


def test_cycles_without_a_clock_are_no_time():
    assert Residency(("residency.cycles", "residency.power")).names == ()
    assert Residency(("residency.cycles", "residency.power")).read([1, 2]) == []


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(0, OK), (HOTSPOT, OK), (PROCHOT, {"ok": 0, "degraded": 1, "failed": 0}), (1 << 44, {"ok": 0, "degraded": 1, "failed": 0})],
)
def test_what_the_board_holds_down_is_degraded_and_what_firmware_keeps_within_limits_is_not(radeon, source, bits, expected):
    (radeon / "gpu_metrics").write_bytes(status(bits))
    assert states(source.read()) == expected


def test_cycles_under_prochot_are_degraded_while_they_rise(radeon, source):
    seen = []
    for cycles, prochot in ((1, 7), (2, 7), (3, 8), (4, 8)):
        (radeon / "gpu_metrics").write_bytes(residencies(cycles, cycles, prochot=prochot))
        seen.append(states(source.read()))
    assert seen == [{"failed": 0}, OK, {"ok": 0, "degraded": 1, "failed": 0}, OK]


def test_a_gpu_that_tells_of_no_clocks_is_not_called_ok(radeon, source):
    (radeon / "gpu_metrics").unlink()
    assert states(source.read()) == {"failed": 0}


def test_where_nothing_is_told_there_is_no_status(radeon, source):
    (radeon / "gpu_metrics").unlink()
    (radeon / "config").unlink()
    assert hardware.STATUS not in source.read().columns


@pytest.mark.parametrize(("state", "worn"), [("R", 0), ("P", 1), ("F", 1)])
def test_bad_pages_that_are_not_out_of_use_are_a_failure_to_come(radeon, source, state, worn):
    write(radeon / "ras/gpu_vram_bad_pages", f"0x00000001 : 0x00001000 : R\n0x00000002 : 0x00001000 : {state}")
    assert states(source.read()) == {"ok": 1 - worn, "degraded": 0, "failed": 0, "predicted_failure": worn}


def test_pages_that_cannot_be_read_now_are_not_good(radeon, source):
    pages = radeon / "ras/gpu_vram_bad_pages"
    write(pages, "")
    assert states(source.read()) == OK | {"predicted_failure": 0}
    pages.unlink()
    assert states(source.read()) == {"degraded": 0, "failed": 0}


def test_a_gpu_that_the_kernel_cannot_put_to_sleep_or_wake_is_degraded(radeon, source):
    write(radeon / "power/runtime_status", "error")
    assert states(source.read()) == {"ok": 0, "degraded": 1, "failed": 0}


@pytest.mark.parametrize("reason", ["prochot", "vr_thermalert", "thermal"])
def test_intel_gpus_are_degraded_by_the_same(xe, source, reason):
    assert states(source.read()) == OK
    write(xe / f"tile0/gt0/freq0/throttle/reason_{reason}", "1")
    assert states(source.read())["degraded"] == int(reason != "thermal")


def test_an_intel_gpu_that_waits_for_new_firmware_has_failed(xe, source):
    """In survivability mode xe has no files but this one, which only root reads."""
    shutil.rmtree(xe / "tile0")
    write(xe / "survivability_mode", "Survivability mode type: Boot")
    reading = source.read()
    assert states(reading) == {"ok": 0, "failed": 1}
    assert reading.columns[rows.COUNT].values == [1]


def test_of_a_gpu_that_is_off_its_bus_only_that_is_told_until_it_answers(radeon, source):
    assert states(source.read()) == OK
    (radeon / "config").write_bytes(b"\xff" * 64)
    for _ in range(2):
        reading = source.read()
        assert states(reading) == {"ok": 0, "degraded": 0, "failed": 1, "predicted_failure": 0}
        assert rows.UTILIZATION not in reading.columns
        assert [str(problem) for problem in reading.problems] == [f"GPU {ADDRESS}: gone: does not answer on its bus"]
    (radeon / "config").write_bytes(CONFIG)
    reading = source.read()
    assert (states(reading), reading.problems) == (OK, [])
    assert rows.UTILIZATION in reading.columns


def test_of_a_gpu_that_is_off_its_bus_from_the_start_no_file_is_read(radeon, source):
    (radeon / "config").write_bytes(b"\xff" * 64)
    write(radeon / "gpu_busy_percent", "whoever reads this waits for nothing")
    for _ in range(2):
        assert states(source.read()) == {"ok": 0, "degraded": 0, "failed": 1, "predicted_failure": 0}
    (radeon / "config").write_bytes(CONFIG)
    write(radeon / "gpu_busy_percent", "42")
    source.read()
    assert values(source.read(), rows.UTILIZATION) == {ADDRESS: 0.42}


def test_a_virtual_function_whose_id_reads_as_ones_answers(radeon, source):
    (radeon / "config").write_bytes(b"\xff" * 4 + CONFIG[4:])
    assert states(source.read()) == OK


def unplug(device, root):
    (root / "sys/bus/pci/devices" / ADDRESS).unlink()
    shutil.rmtree(device)


@pytest.mark.parametrize("interval", [0, 3600])
def test_an_unplugged_gpu_fails_once_and_is_gone_until_it_is_plugged_in_again(radeon, opened, tmp_path, interval):
    file = Driver(radeon)
    file.show("config", "gpu_busy_percent")
    other = add_gpu(tmp_path, "0000:04:00.0", vendor="0x1002", driver="amdgpu")
    write(other / "gpu_busy_percent", "9")
    source = opened(HostFS(str(tmp_path)), slow_interval=Seconds(interval))
    assert values(source.read(), rows.UTILIZATION) == {ADDRESS: 0.07, "0000:04:00.0": 0.09}
    unplug(radeon, tmp_path)
    file.unload()
    found = [source.read() for _ in range(4)]
    told = [states(reading).get("failed") for reading in found]
    assert told.count(1) == (1 if interval else 0)  # who looks in every cycle does not see it fail
    assert told[-2:] == [None, None]
    assert [str(problem) for reading in found for problem in reading.problems if "unplugged" in str(problem)] == [
        f"GPU {ADDRESS}: gone: unplugged"
    ]
    assert all(values(reading, rows.UTILIZATION) == {"0000:04:00.0": 0.09} for reading in found)
    assert (found[-1].problems, found[-1].columns[rows.COUNT].values) == ([], [1])


def test_a_gpu_that_is_plugged_in_again_is_read_again(radeon, opened, tmp_path):
    other = add_gpu(tmp_path, "0000:04:00.0", vendor="0x1002", driver="amdgpu")
    write(other / "gpu_busy_percent", "9")
    source = opened(HostFS(str(tmp_path)), slow_interval=Seconds(0))
    before = source.read().columns[rows.UTILIZATION].series
    unplug(radeon, tmp_path)
    assert [problem.reason for problem in source.read().problems] == [Reason.GONE]
    write(add_gpu(tmp_path, ADDRESS, vendor="0x1002", driver="amdgpu") / "gpu_busy_percent", "50")
    reading = source.read()
    assert values(reading, rows.UTILIZATION) == {ADDRESS: 0.5, "0000:04:00.0": 0.09}
    assert {id(each) for each in reading.columns[rows.UTILIZATION].series} == {id(each) for each in before}


def test_another_gpu_that_was_plugged_in_meanwhile_is_not_the_one_before(radeon, opened, tmp_path):
    file = Driver(radeon)
    file.show("config")
    write(radeon / "unique_id", "5c8f3d2a1b4e6f70")
    source = opened(HostFS(str(tmp_path)))
    assert values(source.read(), rows.UTILIZATION) == {"5c8f3d2a1b4e6f70": 0.42}
    file.unload("config")
    (radeon / "unique_id").unlink()
    write(radeon / "gpu_busy_percent", "50")
    assert states(source.read(), "5c8f3d2a1b4e6f70")["failed"] == 1
    assert values(source.read(), rows.UTILIZATION) == {ADDRESS: 0.5}
