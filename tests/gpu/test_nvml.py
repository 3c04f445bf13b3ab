"""NVML itself: devices, batches, processes, XID events, GPM; through the unmodified nvidia-ml-py."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import nvml_gpm, nvml_values
from otel_hostmetrics.kernel.nvml import Failure, Nvml, find, pci_address
from otel_hostmetrics.kernel.nvml_batch import Batch
from otel_hostmetrics.kernel.nvml_events import XidEvents
from otel_hostmetrics.kernel.nvml_processes import Processes, Sample

ALL_CALLS = (*nvml_values.FAST_CALLS, *nvml_values.SLOW_CALLS)
ALL_FIELDS = (*nvml_values.FAST_FIELDS, *nvml_values.SLOW_FIELDS)


@pytest.fixture
def nvml(fake):
    opened = Nvml(str(fake.path))
    yield opened
    opened.close()


def batch(nvml, index=0, calls=ALL_CALLS, fields=ALL_FIELDS):
    return Batch(nvml, nvml.device(index), calls, fields)


def values(some):
    return dict(zip(some.names, some.read(), strict=True))


def test_a_library_that_is_not_there_is_absent_and_the_text_says_what_to_do():
    with pytest.raises(Unavailable, match=r"gpu\.nvml_library") as caught:
        find("/nonexistent/libnvidia-ml.so.1")
    assert caught.value.reason is Reason.ABSENT


def test_devices_have_the_identity_nvidia_smi_shows(nvml):
    device = nvml.device(1)
    assert (nvml.count(), nvml.driver_version()) == (2, "580.126.09")
    assert (device.uuid, device.name, device.bus_id, device.pci_address, device.serial) == (
        "GPU-00000001-0000-0000-0000-000000000000", "NVIDIA H200", "00000000:02:00.0", "0000:02:00.0", "165001",
    )  # fmt: skip
    assert nvml.by_address("0000:02:00.0").uuid == device.uuid


@pytest.mark.parametrize(
    ("bus_id", "address"),
    [("00000000:3B:00.0", "0000:3b:00.0"), ("00010000:01:00.0", "10000:01:00.0"), ("0001:01:00.0", "0001:01:00.0")],
)
def test_bus_ids_as_sysfs_writes_them(bus_id, address):
    assert pci_address(bus_id).lstrip("0") == address.lstrip("0")


@given(st.text(max_size=40))
def test_any_text_is_a_bus_id(text):
    assert isinstance(pci_address(text), str)


@pytest.mark.parametrize(("code", "reason"), [(9, Reason.ABSENT), (4, Reason.DENIED), (18, Reason.UNSUPPORTED), (999, Reason.UNREADABLE)])
def test_an_init_that_fails_says_why_and_leaves_nothing_open(fake, code, reason):
    fake.set(init=code)
    with pytest.raises(Unavailable) as caught:
        Nvml(str(fake.path))
    assert caught.value.reason is reason


def test_every_call_and_field_has_a_name_of_its_own_or_is_the_same_value_for_older_drivers():
    assert len({field.id for field in ALL_FIELDS}) == len(ALL_FIELDS)
    assert len({field.name for field in ALL_FIELDS}) == len(ALL_FIELDS)


def test_a_batch_reads_calls_and_fields_by_their_types(nvml):
    found = values(batch(nvml))
    assert (found["utilization.gpu"], found["utilization.memory"], found["utilization.encoder"]) == (70, 33, 5)
    assert (found["memory.total"], found["memory.used"], found["memory.reserved"]) == (1_000_000_000, 250_000_000, 50_000_000)
    assert (found["temperature.gpu"], found["clock.memory_mhz"], found["pstate"]) == (40, 1002, 0)
    assert (found["power.instant_mw"], found["throttle.power_ns"], found["nvlink.transmit_kib"]) == (250_000, 74_000_000, 138_000)


def test_what_the_gpu_does_not_have_is_asked_once(nvml, fake):
    some = batch(nvml)
    assert not {"temperature.memory", "utilization.jpeg", "fan.1.percent", "ecc.volatile.corrected.l1_cache"} & set(some.names)
    before = fake.calls(0)
    some.read()
    assert fake.calls(0) - before == len(some._prepared) + 1  # and one for all fields
    assert [each.symbol for each in some._prepared].count("nvmlDeviceGetMemoryInfo") == 0  # v2 has told
    assert None not in some.read()


def test_values_agree_with_those_of_the_binding(nvml):
    """nvidia-ml-py's own functions, for a sample of each kind of call."""
    import pynvml

    found, handle = values(batch(nvml)), nvml.device(0).handle
    assert found["clock.sm_mhz"] == pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
    assert found["memory.used"] == pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used
    assert found["temperature.gpu"] == pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU)
    ids = [pynvml.NVML_FI_DEV_POWER_INSTANT, (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, 0xFFFFFFFF)]
    instant, received = pynvml.nvmlDeviceGetFieldValues(handle, ids)
    assert (found["power.instant_mw"], found["nvlink.receive_kib"]) == (instant.value.uiVal, received.value.ullVal)


def test_a_call_or_field_that_fails_is_absent_and_comes_back(nvml, fake):
    some = batch(nvml)
    fake.set(code_nvmlDeviceGetUtilizationRates=999, field_186=999)
    found = values(some)
    assert found["utilization.gpu"] is found["utilization.memory"] is found["power.instant_mw"] is None
    assert found["energy_mj"] is not None
    fake.clear()
    assert None not in some.read()
    assert not some.stale


def test_what_stays_unsupported_asks_for_a_new_probe(nvml, fake):
    some = batch(nvml)
    fake.set(field_186=3)
    for _ in range(3):
        assert values(some)["power.instant_mw"] is None
    assert some.stale
    assert "power.instant_mw" not in batch(nvml).names


def test_a_type_other_than_probed_is_no_value(nvml, fake):
    """The 8 bytes are then not what the format says."""
    fake.set(field_83=999)
    some = batch(nvml)  # its type is not known yet
    fake.clear()
    assert values(some)["energy_mj"] is None or isinstance(values(some)["energy_mj"], int)


@pytest.mark.parametrize(("setting", "code"), [("lost_0", 15), ("init", 9)])
def test_a_device_or_driver_that_is_gone_is_a_failure(nvml, fake, setting, code):
    some = batch(nvml)
    fake.set(**{setting: 1 if setting == "lost_0" else code})
    with pytest.raises(Failure) as caught:
        some.read()
    assert caught.value.code == code
    fake.clear()


def test_no_permission_is_told(nvml, fake):
    fake.set(code_nvmlDeviceGetPerformanceState=4)
    assert batch(nvml).denied == ["nvmlDeviceGetPerformanceState"]


def test_processes_and_their_samples_without_ghosts(nvml, fake):
    now_us = time.time_ns() // 1000
    some = Processes(nvml, nvml.device(0), now_us)
    assert (some.memory(), some.utilization(now_us)) == ({}, [])
    fake.set(process_0=os.getpid(), ghost_0=4_000_000)
    assert some.memory() == {os.getpid(): 123_000_000, 4_000_000: 99_000_000}
    assert some.utilization(time.time_ns() // 1000) == [Sample(os.getpid(), 55, 5, 6)]  # not the one of 37100 %, not pid 0


@pytest.mark.parametrize("size", [16, 24, 32])
def test_entries_of_each_size_that_drivers_have(nvml, fake, size):
    fake.set(value_process_size=size, process_0=11, ghost_0=12)
    some = Processes(nvml, nvml.device(0), 0)
    assert some.memory() == {11: 123_000_000, 12: 99_000_000}
    assert some.complete
    fake.set(ghost_0=0)
    assert some.memory() == {11: 123_000_000}


def test_entries_of_a_driver_that_clears_the_whole_buffer(nvml, fake):
    fake.set(value_process_clear=1, process_0=11, ghost_0=12)
    assert Processes(nvml, nvml.device(0), 0).memory() == {11: 123_000_000, 12: 99_000_000}


def test_samples_go_on_when_the_clock_is_set_back(nvml, fake):
    now_us, hour_us = time.time_ns() // 1000, 3_600_000_000
    fake.set(process_0=os.getpid())
    some = Processes(nvml, nvml.device(0), now_us + hour_us)
    some.utilization(now_us + hour_us)
    for _ in range(2):
        assert some.utilization(time.time_ns() // 1000) == [Sample(os.getpid(), 55, 5, 6)]
        time.sleep(0.001)


def test_more_processes_than_room_are_all_found(nvml, fake):
    fake.set(process_0=11, ghost_0=12)
    some = Processes(nvml, nvml.device(0), 0)
    for each in some._lists.values():
        each._room = 1
    assert sorted(some.memory()) == [11, 12]


def test_xids_are_counted_each_time(nvml, fake):
    events = XidEvents(nvml, [nvml.device(0), nvml.device(1)])
    try:
        for gpu, xid in ((0, 48), (1, 79), (0, 48)):
            fake.set(**{f"xid_{gpu}": xid})
        deadline = time.monotonic() + 2
        while sum(events.counts().values()) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert events.counts() == {("GPU-00000000-0000-0000-0000-000000000000", 48): 2, ("GPU-00000001-0000-0000-0000-000000000000", 79): 1}
    finally:
        events.close(wait=2)


def test_the_event_thread_keeps_the_library_until_it_ends(fake):
    opened = Nvml(str(fake.path))
    events = XidEvents(opened, [opened.device(0)])
    opened.close()
    assert fake.references == 1
    events.close(wait=2)
    assert fake.references == 0


def test_gpm_needs_two_samples_apart_and_skips_what_fails(nvml):
    device = nvml.device(0)
    assert nvml_gpm.supported(nvml, device)
    profile = nvml_gpm.Profile(nvml, device, device)
    try:
        assert set(profile.read()) == {None}  # at once: too soon
        time.sleep(0.11)
        found = dict(zip(nvml_gpm.NAMES, profile.read(), strict=True))
        assert (found["profile.sm"], found["profile.tensor"], found["profile.fp64"], found["profile.pcie.receive_mib"]) == (
            2.0,
            5.0,
            None,
            21.0,
        )
    finally:
        profile.close()


def test_mig_instances_are_devices_of_their_gpu(nvml, fake):
    assert nvml.instances(nvml.device(0)) == []
    fake.set(mig_0=2)
    parent = nvml.device(0)
    first, second = nvml.instances(parent)
    assert (first.parent, first.uuid, second.gpu_instance) == (parent.uuid, "MIG-00000000-0000-0000-0000-000000000001", 8)
    names = Batch(nvml, first, ALL_CALLS, ALL_FIELDS).names
    assert "memory.used" in names
    assert "utilization.gpu" not in names
