"""Engines of Intel's GPUs as their PMUs count them. What sysfs says is made; the events that are opened are the running kernel's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import intel_pmu
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.intel_pmu import Engine, Engines, Pmu
from tests.hosts.recorded import unpack
from tests.kernel.as_nobody import as_nobody
from tests.kernel.test_perf_event import PARANOID, SOFTWARE, needs_root

INTEGRATED, DISCRETE = "0000:00:02.0", "0000:03:00.0"
CPU_CLOCK, TASK_CLOCK, PAGE_FAULTS, NONE = 0, 1, 2, 999  # PERF_COUNT_SW_*: ns, ns, something, nothing
DEVICES = "sys/bus/event_source/devices"


def test_i915_names_its_engines(tmp_path: Path) -> None:
    fs = unpack("gpu-intel-pmu", tmp_path)
    engines = [Engine("bcs0", 0x1000, None), Engine("rcs0", 0, None), Engine("vcs0", 0x2000, None), Engine("vcs1", 0x2010, None),
               Engine("vecs0", 0x3000, None)]  # fmt: skip
    assert intel_pmu.i915(fs, INTEGRATED) == Pmu("i915", 24, 0, engines)


def test_a_card_has_its_address_in_the_name_of_its_pmu_and_is_not_mistaken_for_the_processors(tmp_path: Path) -> None:
    fs = unpack("gpu-intel-pmu", tmp_path)
    with pytest.raises(Unavailable) as caught:
        intel_pmu.i915(fs, DISCRETE)
    assert caught.value.reason is Reason.ABSENT
    (tmp_path / DEVICES / "i915").rename(tmp_path / DEVICES / "i915_0000_03_00.0")
    assert intel_pmu.i915(fs, DISCRETE).name == "i915_0000_03_00.0"


def test_xe_has_events_for_every_engine_of_each_gt(tmp_path: Path) -> None:
    pmu = intel_pmu.xe(unpack("gpu-intel-pmu", tmp_path), DISCRETE, [0, 1])
    assert (pmu.name, pmu.type, pmu.cpu) == ("xe_0000_03_00.0", 25, 0)
    by_name = {engine.name: engine for engine in pmu.engines}
    assert len(by_name) == len(pmu.engines) == 2 * 5 * 16
    assert by_name["rcs0"] == Engine("rcs0", 0x2, 0x3)
    assert by_name["ccs1"] == Engine("ccs1", 0x40_1002, 0x40_1003)
    assert by_name["gt1.vcs3"] == Engine("gt1.vcs3", 0x1000_0000_0020_3002, 0x1000_0000_0020_3003)


@pytest.mark.parametrize("missing", ["events/engine-total-ticks", "format/engine_class", "cpumask"])
def test_an_older_kernel_or_firmware_is_absent(tmp_path: Path, missing: str) -> None:
    fs = unpack("gpu-intel-pmu", tmp_path)
    (tmp_path / DEVICES / "xe_0000_03_00.0" / missing).unlink()
    with pytest.raises(Unavailable) as caught:
        intel_pmu.xe(fs, DISCRETE, [0])
    assert caught.value.reason is Reason.ABSENT


@needs_root
def test_engines_that_are_not_there_are_left_out_and_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    some = [
        Engine("rcs0", CPU_CLOCK, None),
        Engine("bcs0", NONE, None),
        Engine("vcs0", CPU_CLOCK, TASK_CLOCK),
        Engine("ccs0", CPU_CLOCK, NONE),
    ]
    engines = Engines(Pmu("software", SOFTWARE, 0, some))
    try:
        assert engines.names == ("engine.rcs0.work", "engine.rcs0.clock", "engine.vcs0.work", "engine.vcs0.clock")
        assert not engines.denied
        first = engines.read()
        time.sleep(0.02)
        second = engines.read()
    finally:
        engines.close()
        engines.close()
    steps = [new - old for old, new in zip(first, second, strict=True)]  # type: ignore[operator]
    assert all(15 * 10**6 <= step <= 10**9 for step in steps)  # ns of a clock, all of them
    assert engines.read() == []
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
@pytest.mark.skipif(PARANOID.exists() and int(PARANOID.read_text()) < 1, reason="kernel.perf_event_paranoid lets everybody in")
def test_without_the_capability_it_is_denied_once() -> None:
    def refused() -> str:
        engines = Engines(Pmu("software", SOFTWARE, 0, [Engine("rcs0", CPU_CLOCK, None), Engine("vcs0", CPU_CLOCK, None)]))
        return f"{[(error.reason.name, error.needs) for error in engines.denied]} {engines.names}"

    assert as_nobody(refused) == "[('DENIED', 'CAP_PERFMON')] ()"


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    event=st.one_of(st.binary(max_size=20), st.just(b"event=0x02\n")),
    bits=st.one_of(st.binary(max_size=12), st.sampled_from([b"config:20-27\n", b"config:63\n", b"config:99\n", b"config1:0-7\n"])),
    cpus=st.one_of(st.binary(max_size=6), st.just(b"0\n")),
)
def test_any_description_is_a_pmu_or_says_why_not(tmp_path: Path, event: bytes, bits: bytes, cpus: bytes) -> None:
    fs = unpack("gpu-intel-pmu", tmp_path) if not (tmp_path / DEVICES).exists() else HostFS(str(tmp_path))
    for name, content in (("events/engine-active-ticks", event), ("format/engine_class", bits), ("cpumask", cpus)):
        (tmp_path / DEVICES / "xe_0000_03_00.0" / name).write_bytes(content)
    try:
        found: object = all(engine.busy < 2**64 for engine in intel_pmu.xe(fs, DISCRETE, [0]).engines)
    except Unavailable as error:
        found = error.reason
    assert found in (True, Reason.MALFORMED, Reason.ABSENT)
