"""perf_event_open(2), with events of the running kernel."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import perf_event
from tests.kernel.as_nobody import as_nobody

SOFTWARE, CPU_CLOCK = 1, 0  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK: nanoseconds
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not PARANOID.exists(), reason="needs root and CONFIG_PERF_EVENTS")


@needs_root
def test_a_real_event_counts_from_its_opening() -> None:
    before = len(os.listdir("/proc/self/fd"))
    counter = perf_event.EventCounter(SOFTWARE, CPU_CLOCK, 0)
    begun = time.monotonic_ns()
    first = counter.read()
    time.sleep(0.02)
    second = counter.read()
    elapsed = time.monotonic_ns() - begun
    counter.close()
    counter.close()
    assert 0 <= first < second <= elapsed + 10**9
    assert second - first >= 15 * 10**6
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
@pytest.mark.skipif(PARANOID.exists() and int(PARANOID.read_text()) < 1, reason="kernel.perf_event_paranoid lets everybody in")
def test_without_the_capability_it_is_denied_and_says_which() -> None:
    def refused() -> str:
        try:
            perf_event.EventCounter(SOFTWARE, CPU_CLOCK, 0)
        except Unavailable as error:
            return f"{error.reason.name} {error.needs}"
        return "opened"

    assert as_nobody(refused) == "DENIED CAP_PERFMON"


@needs_root
def test_an_event_nobody_has_is_absent() -> None:
    with pytest.raises(Unavailable) as caught:
        perf_event.EventCounter(0x7FFF_FFFF, 0, 0)
    assert caught.value.reason is Reason.ABSENT
