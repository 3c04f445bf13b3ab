"""The GPU source on hosts with NVIDIA GPUs: what it emits, and what it does when driver and GPUs misbehave."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel.hostfs import HostFS, in_first_pid_namespace
from otel_hostmetrics.model import State
from otel_hostmetrics.settings import Gpu as GpuSettings
from otel_hostmetrics.settings import Seconds, Settings
from otel_hostmetrics.sources.gpu import Gpu
from otel_hostmetrics.sources.gpu.nvidia import Nvidia
from otel_hostmetrics.sources.gpu.points import Names
from otel_hostmetrics.telemetry import Telemetry
from tests.gpu.conftest import add_gpu

UUIDS = tuple(f"GPU-0000000{gpu}-0000-0000-0000-000000000000" for gpu in range(2))


def settings(fake, **more):
    return GpuSettings(nvml_library=str(fake.path), **more)


@pytest.fixture
def source(fake, host):
    opened: list[Gpu] = []

    def make(**more):
        opened.append(Gpu(HostFS(str(host), procfs="/proc"), Settings(gpu=settings(fake, **{"xid": False, **more}))))
        opened[-1].open()
        return opened[-1]

    yield make
    for each in opened:
        each.close()
    wait_for(lambda: fake.references == 0)  # the XID thread ends within half a second


def wait_for(condition):
    deadline = time.monotonic() + 3
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


def points(reading, metric):
    column = reading.columns.get(metric)
    return {tuple(sorted(series.attributes.items())): value for series, value in zip(*column, strict=True)} if column else {}


def by_id(reading, metric, **attributes):
    """hw.id -> value, of the points with these attributes."""
    column = reading.columns.get(metric)
    pairs = zip(*column, strict=True) if column else ()
    wanted = attributes.items()
    return {series.attributes["hw.id"]: value for series, value in pairs if wanted <= series.attributes.items()}


def state_of(reading, uuid):
    column = reading.columns[hardware.STATUS]
    return {series.attributes["hw.state"]: value for series, value in zip(*column, strict=True) if series.attributes["hw.id"] == uuid}


def test_seed_metrics_have_their_labels_and_values(source):
    reading = source().read()
    labels = (("gpu_id", "00000000:01:00.0"), ("gpu_name", "NVIDIA H200"), ("gpu_uuid", UUIDS[0]))
    expected = {
        rows.POWER_DRAW: 250.0, rows.POWER_LIMIT: 700.0, rows.TEMPERATURE: 40.0, rows.UTILIZATION_PERCENT: 70, rows.MEMORY_PERCENT: 33,
        rows.ENCODER_PERCENT: 5, rows.DECODER_PERCENT: 6, rows.MEMORY_USED: 250_000_000, rows.MEMORY_TOTAL: 1_000_000_000,
        rows.CLOCK_GRAPHICS: 1000, rows.CLOCK_SM: 1001, rows.CLOCK_MEMORY: 1002,
    }  # fmt: skip
    assert {metric: points(reading, metric)[labels] for metric in expected} == expected
    assert points(reading, rows.COUNT) == {(): 2}
    assert list(points(reading, rows.EXPORTER_INFO).values()) == [1]
    assert reading.problems == []


def test_conventions_have_their_units(source):
    reading = source().read()
    assert by_id(reading, rows.UTILIZATION, **{"hw.gpu.task": "general"}) == {UUIDS[0]: 0.70, UUIDS[1]: 0.71}
    assert by_id(reading, rows.MEMORY_UTILIZATION)[UUIDS[0]] == 0.25
    assert by_id(reading, hardware.POWER)[UUIDS[0]] == 250.0
    assert by_id(reading, hardware.ENERGY)[UUIDS[0]] == pytest.approx(5000, abs=100)
    assert by_id(reading, hardware.ERRORS, **{"error.type": "uncorrected"}) == dict.fromkeys(UUIDS, 4)
    assert by_id(reading, rows.THROTTLE_TIME, **{"hw.gpu.throttle.reason": "hw_thermal"})[UUIDS[0]] == 0.27
    assert by_id(reading, rows.NVLINK_IO, **{"network.io.direction": "receive"})[UUIDS[0]] == 139_000 * 1024
    assert by_id(reading, rows.FREQUENCY, **{"hw.gpu.clock.domain": "sm"})[UUIDS[0]] == 1_001_000_000
    assert state_of(reading, UUIDS[0]) == {"ok": 1, "degraded": 0, "failed": 0, "predicted_failure": 0}


def test_every_value_is_of_its_rows_type(source, fake):
    fake.set(process_0=os.getpid(), mig_1=1)
    time.sleep(0)
    gpu = source(profiling=True)
    gpu.read()
    time.sleep(0.11)
    for metric, (series, values) in gpu.read().columns.items():
        assert metric in gpu.metrics
        for each, value in zip(series, values, strict=True):
            assert isinstance(value, int if metric.integer else float), (each, value)


def test_columns_keep_their_series_while_nothing_changes(source):
    gpu = source()
    first, second = gpu.read(), gpu.read()
    assert first.columns.keys() == second.columns.keys()
    assert all(first.columns[metric].series is second.columns[metric].series for metric in first.columns)


def test_a_failing_value_is_absent_and_its_series_comes_back(source, fake):
    gpu = source()
    whole = gpu.read().columns[hardware.POWER].series
    fake.set(field_186=999)
    assert hardware.POWER not in gpu.read().columns
    fake.clear()
    again = gpu.read().columns[hardware.POWER].series
    assert [id(each) for each in again] == [id(each) for each in whole]


def test_a_counter_that_falls_begins_anew(source, fake):
    gpu = source()
    before = gpu.read().columns[hardware.ENERGY].series
    fake.set(energy_0=1000)
    now = time.time_ns()
    reset = gpu.read().columns[hardware.ENERGY].series
    assert reset[1] is before[1]
    assert reset[0] is not before[0]
    assert reset[0].start_ns >= now
    assert reset[0].attributes == before[0].attributes
    assert gpu.read().columns[hardware.ENERGY].series is reset


def test_a_lost_gpu_fails_alone(source, fake):
    gpu = source()
    gpu.read()
    fake.set(lost_1=1)
    reading = gpu.read()
    assert state_of(reading, UUIDS[1]) == {"ok": 0, "degraded": 0, "failed": 1, "predicted_failure": 0}
    assert state_of(reading, UUIDS[0])["ok"] == 1
    assert by_id(reading, rows.UTILIZATION, **{"hw.gpu.task": "general"}) == {UUIDS[0]: 0.70}
    assert {problem.reason for problem in reading.problems} == {Reason.GONE}


def test_the_only_gpu_is_still_told_of_when_it_is_lost(source, fake):
    fake.set(gpus=1)
    gpu = source()
    gpu.read()
    fake.set(lost_0=1)
    for _ in range(2):
        reading = gpu.read()
        assert state_of(reading, UUIDS[0])["failed"] == 1
        assert hardware.POWER not in reading.columns


def test_a_lost_gpu_comes_back_as_the_same_series(fake, host):
    part = Nvidia(HostFS(str(host), procfs="/proc"), settings(fake, xid=False), Names(), pauses=(0.01, 0.02))
    part.read()
    before = [bound.series for bound in part.bound]
    fake.set(lost_0=1)
    part.read()
    assert [str(problem) for problem in part.problems]
    fake.set(lost_0=0)
    time.sleep(0.05)
    part.read()
    part.read()
    assert part.problems == []
    assert {id(each) for each in before} == {id(bound.series) for bound in part.bound}
    part.close()


def unplug(host, fake, **more):
    """The second GPU, as the kernel and a driver that is opened anew see it."""
    (host / "sys/bus/pci/devices/0000:02:00.0").unlink()
    shutil.rmtree(host / "sys/devices/pci0000:00/0000:02:00.0")
    fake.set(gpus=1, **more)


def told(reading):
    return [str(problem) for problem in reading.problems]


UNPLUGGED = "GPU 0000:02:00.0: gone: unplugged"


def test_an_unplugged_gpu_fails_once_and_is_gone_until_it_is_plugged_in_again(source, fake, host):
    gpu = source(slow_interval=Seconds(0.5))
    before = gpu.read().columns[hardware.POWER].series
    unplug(host, fake, lost_1=1)
    first, second, third = (gpu.read() for _ in range(3))
    assert state_of(first, UUIDS[1]) == {"ok": 0, "degraded": 0, "failed": 1, "predicted_failure": 0}
    assert UNPLUGGED not in told(first)
    assert (told(second), told(third)) == ([UNPLUGGED], [])
    for reading in (second, third):
        assert state_of(reading, UUIDS[1]) == {}
        assert UUIDS[1] not in by_id(reading, hardware.POWER)
        assert points(reading, rows.COUNT) == {(): 1}
    add_gpu(host, "0000:02:00.0")
    fake.set(gpus=2, lost_1=0)
    time.sleep(0.5)
    again = gpu.read()
    assert (state_of(again, UUIDS[1])["ok"], told(again)) == (1, [])
    assert [id(each) for each in again.columns[hardware.POWER].series] == [id(each) for each in before]


def test_a_lost_gpu_that_is_pulled_out_later_is_gone_then(source, fake, host):
    gpu = source()
    gpu.read()
    fake.set(lost_1=1)
    assert [state_of(gpu.read(), UUIDS[1])["failed"] for _ in range(3)] == [1, 1, 1]
    unplug(host, fake)
    assert told(gpu.read()) == [UNPLUGGED]
    assert state_of(gpu.read(), UUIDS[1]) == {}


def test_a_gpu_that_the_driver_let_go_before_it_was_asked_is_gone(source, fake, host):
    gpu = source(slow_interval=Seconds(0.001))
    gpu.read()
    unplug(host, fake)
    time.sleep(0.002)
    assert told(gpu.read()) == [UNPLUGGED]
    assert state_of(gpu.read(), UUIDS[1]) == {}


def test_the_last_gpu_that_is_unplugged_is_no_failure(source, fake, host):
    fake.set(gpus=1)
    gpu = source()
    gpu.read()
    (host / "sys/bus/pci/devices/0000:01:00.0").unlink()
    fake.set(lost_0=1, gpus=0)
    assert state_of(gpu.read(), UUIDS[0])["failed"] == 1
    assert told(gpu.read()) == ["GPU 0000:01:00.0: gone: unplugged"]
    reading = gpu.read()
    assert hardware.STATUS not in reading.columns
    assert points(reading, rows.COUNT) == {(): 0}


def test_a_gpu_that_sysfs_never_showed_is_lost_and_not_unplugged(fake, tmp_path):
    """WSL 2 and Jetson have no GPU on a PCI bus."""
    part = Nvidia(HostFS(str(tmp_path), procfs="/proc"), settings(fake, xid=False), Names())
    part.read()
    fake.set(lost_1=1, gpus=1)
    for _ in range(3):
        part.read()
    assert any(problem.what.endswith("02:00.0") and "lost" in problem.detail for problem in part.problems)
    part.close()


def test_an_unloaded_driver_is_left_alone_for_a_while_and_found_again(fake, host):
    part = Nvidia(HostFS(str(host), procfs="/proc"), settings(fake, xid=False), Names(), pauses=(0.05, 0.2))
    assert len(part.read()) > 50
    fake.set(init=9)
    assert part.read() == []
    assert part.problems[0].reason is Reason.ABSENT
    assert fake.references == 0
    calls = fake.calls(0)
    assert part.read() == []
    assert fake.calls(0) == calls  # not before the pause is over
    assert part.problems
    fake.set(init=0)
    time.sleep(0.06)
    assert len(part.read()) > 50
    part.close()


def test_pauses_grow_while_the_driver_stays_away(fake, host):
    part = Nvidia(HostFS(str(host), procfs="/proc"), settings(fake, xid=False), Names(), pauses=(0.001, 0.008))
    fake.set(init=9)
    began, inits = time.monotonic(), []
    while len(inits) < 6:
        before = part._try_at
        part.read()
        if part._try_at != before:
            inits.append(part._try_at - time.monotonic())
    assert time.monotonic() - began > 0.001 + 0.002 + 0.004 + 0.008 + 0.008
    assert inits[-1] > 0.004
    part.close()


def test_a_gpu_given_to_a_guest_is_not_lost(fake, host):
    """Bound to vfio-pci while NVML was given back, as it has to be."""
    part = Nvidia(HostFS(str(host), procfs="/proc"), settings(fake, xid=False, release_file="/release"), Names(), pauses=(0.001, 0.002))
    part.read()
    (host / "release").touch()
    assert part.read() == []
    driver = host / "sys/devices/pci0000:00/0000:02:00.0/driver"
    driver.unlink()
    driver.symlink_to("../../../bus/pci/drivers/vfio-pci")
    fake.set(gpus=1)
    (host / "release").unlink()
    part.read()
    assert (part.devices, part.problems) == (1, [])
    assert UUIDS[1] not in {bound.series.attributes.get("hw.id") for bound in part.bound}
    part.close()


def test_answers_nobody_understands_make_a_new_start(fake, host):
    part = Nvidia(HostFS(str(host), procfs="/proc"), settings(fake, xid=False, processes=False), Names(), pauses=(0.01, 0.02))
    part.read()
    symbols = {each.symbol for each in part._session._devices[0]._batches.fast._prepared} | {"nvmlDeviceGetFieldValues"}
    fake.set(**{f"code_{symbol}": 999 for symbol in symbols})
    for _ in range(3):
        values = part.read()
    assert values == []
    assert part.problems[0].reason is Reason.UNREADABLE
    part.close()


def test_nvml_is_shut_down_while_the_release_file_exists(source, fake, host):
    gpu = source(release_file="/run/release-gpus")
    gpu.read()
    assert fake.references == 1
    file = host / "run/release-gpus"
    file.parent.mkdir()
    file.touch()
    reading = gpu.read()
    assert fake.references == 0
    assert "released for maintenance" in str(reading.problems[0])
    assert points(reading, rows.COUNT) == {(): 2}  # they are there, we only do not ask them
    file.unlink()
    assert hardware.ENERGY in gpu.read().columns


def test_a_sleeping_gpu_is_not_asked_anything(source, fake, host):
    power = host / "sys/devices/pci0000:00/0000:02:00.0/power/runtime_status"
    gpu = source()
    gpu.read()
    power.write_text("suspended\n")
    calls, reading = fake.calls(1), gpu.read()
    assert fake.calls(1) == calls
    assert by_id(reading, hardware.POWER).keys() == {UUIDS[0]}
    assert UUIDS[1] not in by_id(reading, hardware.STATUS)
    assert points(reading, rows.COUNT) == {(): 2}
    assert reading.problems == []


def test_more_than_all_of_the_time_is_no_utilization(source, fake):
    gpu = source()
    fake.set(value_gpu=808)
    reading = gpu.read()
    assert points(reading, rows.UTILIZATION_PERCENT) == {}
    assert by_id(reading, rows.UTILIZATION, **{rows.TASK: "general"}) == {}
    fake.set(value_gpu=100)
    assert set(points(gpu.read(), rows.UTILIZATION_PERCENT).values()) == {100}


def test_a_gpu_that_sleeps_from_the_start_is_not_opened_until_it_wakes(source, fake, host):
    power = host / "sys/devices/pci0000:00/0000:02:00.0/power/runtime_status"
    power.write_text("suspended\n")
    calls = fake.calls(1)
    gpu = source()
    assert by_id(gpu.read(), hardware.POWER).keys() == {UUIDS[0]}
    assert fake.calls(1) == calls
    power.write_text("active\n")
    assert by_id(gpu.read(), hardware.POWER).keys() == set(UUIDS)


def test_nvml_is_not_opened_while_all_gpus_sleep(source, fake, host):
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (host / f"sys/devices/pci0000:00/{address}/power/runtime_status").write_text("suspended\n")
    reading = source().read()
    assert fake.references == 0
    assert points(reading, rows.COUNT) == {(): 2}


def test_nvml_is_given_back_when_gpus_that_may_sleep_are_idle(source, fake, host):
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (host / f"sys/devices/pci0000:00/{address}/power/control").write_text("auto\n")
    fake.set(value_gpu=0)
    gpu = source()
    for _ in range(3):
        gpu.read()
    assert fake.references == 0
    assert points(gpu.read(), rows.COUNT) == {(): 2}
    assert fake.references == 0  # until the GPUs slept and were woken
    for status in ("suspended", "active"):
        for address in ("0000:01:00.0", "0000:02:00.0"):
            (host / f"sys/devices/pci0000:00/{address}/power/runtime_status").write_text(f"{status}\n")
        gpu.read()
    assert fake.references == 1


def test_processes_carry_their_pid_and_ghosts_are_dropped(source, fake):
    fake.set(process_0=os.getpid(), ghost_0=4_000_000)
    reading = source().read()
    executable = Path(os.path.realpath(sys.executable)).name
    named = (("hw.id", UUIDS[0]), ("process.executable.name", executable), ("process.pid", os.getpid()))
    assert points(reading, rows.PROCESS_MEMORY) == {named: 123_000_000}
    assert by_id(reading, rows.PROCESS_UTILIZATION, **{"hw.gpu.task": "general"}) == {UUIDS[0]: 0.55}
    assert all(series.resource is None for series in reading.columns[rows.PROCESS_MEMORY].series)


sees_all_processes = pytest.mark.skipif(not in_first_pid_namespace(), reason="needs the host's PID namespace, as the agent does to count")


@pytest.fixture
def counted(fake, host):
    """hw.id -> processes, on a host all of whose processes are seen: 11 lives, 12 is a zombie."""
    for pid, state in ((11, "S"), (12, "Z")):
        (host / f"proc/{pid}").mkdir(parents=True)
        (host / f"proc/{pid}/stat").write_text(f"{pid} (python) {state} {' '.join(['1'] * 40)}\n")
    gpu = Gpu(HostFS(str(host)), Settings(gpu=settings(fake, xid=False, slow_interval=Seconds(0.001))))
    gpu.open()

    def read(**values):
        fake.set(**values)
        time.sleep(0.002)
        return by_id(gpu.read(), rows.PROCESSES)

    yield read
    gpu.close()


@sees_all_processes
def test_processes_are_counted_as_far_as_they_live(counted):
    assert counted() == {UUIDS[0]: 0, UUIDS[1]: 0}
    assert counted(process_0=11, ghost_0=12, ghost_1=12) == {UUIDS[0]: 1, UUIDS[1]: 0}


@sees_all_processes
def test_no_processes_is_not_what_is_said_where_the_lists_cannot_be_read(counted, fake):
    lists = [f"code_nvmlDeviceGet{kind}RunningProcesses_v3" for kind in ("Compute", "Graphics", "MPSCompute")]
    counted()
    assert counted(**{lists[1]: 999}) == {}
    assert counted(**{lists[1]: 0}) == {UUIDS[0]: 0, UUIDS[1]: 0}
    assert counted(lost_1=1) == {UUIDS[0]: 0}
    assert counted(**{lists[2]: 3}) == {UUIDS[0]: 0}  # a driver without MPS
    assert counted(**{lists[0]: 3}) == {}


@sees_all_processes
def test_a_process_that_procfs_hides_is_not_none(counted, fake):
    """With hidepid=2 a process of another user is not in /proc, but it lives."""
    assert counted(process_0=os.getpid()) == {UUIDS[1]: 0}
    assert counted(process_0=2**22 + 1) == {UUIDS[0]: 0, UUIDS[1]: 0}  # beyond PID_MAX_LIMIT: a ghost


@sees_all_processes
def test_a_divided_gpu_has_the_processes_of_its_instances_each_once(counted):
    found = counted(mig_0=2, process_0=11)
    assert [found[each] for each in found if each.startswith("MIG-")] == [1, 1]
    assert (found[UUIDS[0]], found[UUIDS[1]]) == (1, 0)


def test_a_zombie_uses_no_gpu(source, fake):
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        fake.set(process_0=child)
        reading = source().read()
        assert rows.PROCESS_MEMORY not in reading.columns
        assert "PID namespace" in str(reading.problems[0])
    finally:
        os.waitpid(child, 0)


def test_xids_are_counted_over_a_new_start(source, fake):
    gpu = source(xid=True)
    gpu.read()
    fake.set(xid_0=79)
    wait_for(lambda: points(gpu.read(), rows.XID_ERRORS))
    part = gpu._parts["nvidia"]
    part._shut()
    fake.set(xid_0=0)
    assert by_id(gpu.read(), rows.XID_ERRORS, **{"hw.gpu.xid": 79}) == {UUIDS[0]: 1}


def test_an_xid_that_comes_while_nvml_is_given_back_is_counted(source, fake):
    gpu = source(xid=True)
    gpu.read()
    session = gpu._parts["nvidia"]._session
    late = threading.Timer(0.02, lambda: fake.set(xid_0=79))  # the thread that waits for events ends within half a second
    late.start()
    session.close()
    late.join()
    gpu._parts["nvidia"]._session = None
    fake.set(xid_0=0)
    assert by_id(gpu.read(), rows.XID_ERRORS, **{"hw.gpu.xid": 79}) == {UUIDS[0]: 1}


def test_mig_instances_have_memory_of_their_own_and_a_parent(source, fake):
    fake.set(mig_0=2)
    reading = source().read()
    memory = reading.columns[rows.MEMORY_USAGE].series
    assert {each.attributes["hw.parent"] for each in memory if each.attributes["hw.id"].startswith("MIG-")} == {UUIDS[0]}
    assert by_id(reading, rows.MIG_INSTANCES) == {UUIDS[0]: 2, UUIDS[1]: 0}
    assert not [uuid for uuid in by_id(reading, hardware.STATUS) if uuid.startswith("MIG-")]


def test_what_is_of_the_whole_gpu_is_not_of_its_instances_too(source, fake):
    fake.set(mig_0=2, value_instances=1)
    reading = source().read()
    for metric in (hardware.ENERGY, hardware.POWER):
        assert by_id(reading, metric).keys() == set(UUIDS)


def test_links_of_blackwell_are_summed_up(source, fake):
    fake.set(value_nvlink5=1)
    reading = source().read()
    links = 18
    assert by_id(reading, rows.NVLINK_IO, **{"network.io.direction": "transmit"})[UUIDS[0]] == sum(202_000 + link for link in range(links))
    errors = {kind: by_id(reading, rows.NVLINK_ERRORS, **{"error.type": kind}) for kind in ("symbol", "link_integrity", "replay")}
    expected = {"symbol": sum(221_000 + link for link in range(links)), "link_integrity": sum(211_000 + link for link in range(links))}
    assert {kind: found[UUIDS[0]] for kind, found in errors.items() if found} == expected


def test_mig_switched_on_at_run_time_is_seen(source, fake):
    gpu = source(slow_interval=Seconds(0.001))
    gpu.read()
    fake.set(mig_0=1)
    time.sleep(0.002)
    gpu.read()
    assert any(uuid.startswith("MIG-") for uuid in by_id(gpu.read(), rows.MEMORY_USAGE))


def test_byte_counters_of_32_bits_are_no_counters(source, fake):
    gpu = source()
    assert rows.IO not in gpu.read().columns
    fake.set(value_197=1 << 33, value_198=5)
    assert by_id(gpu.read(), rows.IO, **{"network.io.direction": "transmit"}) == dict.fromkeys(UUIDS, 1 << 33)
    assert not by_id(gpu.read(), rows.IO, **{"network.io.direction": "receive"})


@pytest.mark.parametrize(
    ("setting", "value", "state"),
    [
        ("value_reasons", 0x40, "degraded"),
        ("value_230", 1, "degraded"),
        ("value_144", 1, "predicted_failure"),
        ("value_31", 1, "predicted_failure"),
    ],
)
def test_status_follows_what_the_driver_says(source, fake, setting, value, state):
    fake.set(**{setting: value})
    status = state_of(source().read(), UUIDS[0])
    assert (status["ok"], status[state]) == (0, 1)


def test_a_status_that_cannot_be_read_is_not_ok(source, fake):
    """Not now is not well; what is known is told all the same."""
    gpu = source()
    assert state_of(gpu.read(), UUIDS[0]) == {"ok": 1, "degraded": 0, "failed": 0, "predicted_failure": 0}
    fake.set(code_nvmlDeviceGetCurrentClocksThrottleReasons=999, code_nvmlDeviceGetCurrentClocksEventReasons=999)
    assert state_of(gpu.read(), UUIDS[0]) == {"failed": 0, "predicted_failure": 0}
    fake.set(value_230=1)
    assert state_of(gpu.read(), UUIDS[0]) == {"ok": 0, "degraded": 1, "failed": 0, "predicted_failure": 0}


REASONS = "code_nvmlDeviceGetCurrentClocksThrottleReasons"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({REASONS: 3}, {"ok": 1, "degraded": 0, "failed": 0, "predicted_failure": 0}),
        ({REASONS: 3, "field_230": 3}, {"failed": 0, "predicted_failure": 0}),
        ({"field_31": 3, "field_144": 3, "field_145": 3}, {"ok": 1, "degraded": 0, "failed": 0}),
        ({REASONS: 3, "field_230": 3, "field_31": 3, "field_144": 3, "field_145": 3}, {"failed": 0}),
        ({"field_144": 999}, {"degraded": 0, "failed": 0}),  # supported, but not now
        ({"field_144": 999, "value_145": 1}, {"ok": 0, "degraded": 0, "failed": 0, "predicted_failure": 1}),
    ],
)
def test_states_rest_on_what_the_driver_and_the_gpu_support(source, fake, fields, status):
    fake.set(**fields)
    assert state_of(source().read(), UUIDS[0]) == status


def test_of_a_gpu_that_answers_nothing_no_state_is_known(source, fake):
    gpu = source(processes=False)
    gpu.read()
    symbols = {each.symbol for each in gpu._parts["nvidia"]._session._devices[0]._batches.fast._prepared} | {"nvmlDeviceGetFieldValues"}
    fake.set(**{f"code_{symbol}": 999 for symbol in symbols})
    assert state_of(gpu.read(), UUIDS[0]) == {"predicted_failure": 0}  # as of the last look at what rarely changes


def test_pcie_throughput_is_asked_for_only_where_wanted(source):
    assert rows.PCIE_THROUGHPUT not in source().read().columns
    began = time.monotonic()
    reading = source(pcie_throughput=True).read()
    assert by_id(reading, rows.PCIE_THROUGHPUT, **{"network.io.direction": "receive"}) == dict.fromkeys(UUIDS, 2_000_000.0)
    assert time.monotonic() - began > 0.08  # 20 ms for each of two directions of two GPUs


def test_a_hanging_driver_holds_no_cycle_and_is_late(fake, host):
    gpu = Gpu(HostFS(str(host), procfs="/proc"), Settings(gpu=settings(fake, xid=False, processes=False)))
    collector = Collector([gpu], None, gpu.metrics, Telemetry(), deadline=0.3, max_series=1000)
    assert collector.collect().statuses["gpu"].state is State.OK
    fake.set(hang_nvmlDeviceGetUtilizationRates=500)
    began = time.monotonic()
    late = collector.collect().statuses["gpu"]
    assert time.monotonic() - began < 0.45
    assert (late.state, late.reason) == (State.LATE, Reason.LATE)
    fake.set(hang_nvmlDeviceGetUtilizationRates=0)
    wait_for(lambda: collector.collect().statuses["gpu"].state is State.OK)
    collector.close()
    wait_for(lambda: fake.references == 0)


def test_no_thread_and_no_descriptor_is_left(fake, host):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    threads, before = threading.active_count(), descriptors()
    gpu = Gpu(HostFS(str(host), procfs="/proc"), Settings(gpu=settings(fake)))
    gpu.open()
    gpu.read()
    assert threading.active_count() == threads + 1
    gpu.close()
    gpu.close()
    wait_for(lambda: threading.active_count() == threads)
    assert descriptors() == before
