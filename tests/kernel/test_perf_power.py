"""What sysfs says of energy events."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import perf_power
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.hosts.recorded import unpack


def test_the_power_pmu(tmp_path: Path) -> None:
    pmu = perf_power.pmu(unpack("energy-perf", tmp_path))
    assert (pmu.type, pmu.cpus) == (16, [0, 12])
    assert pmu.events == [
        perf_power.Event("energy-cores", 1, 2.0**-32),
        perf_power.Event("energy-pkg", 2, 2.0**-32),
        perf_power.Event("energy-ram", 3, 2.0**-32),
    ]


def test_no_pmu(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        perf_power.pmu(HostFS(str(tmp_path)))
    assert caught.value.reason is Reason.ABSENT


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    event=st.one_of(st.binary(max_size=20), st.just(b"event=0x02\n")),
    scale=st.one_of(st.binary(max_size=20), st.sampled_from([b"nan", b"inf", b"-1", b"0", b"1e-9\n"])),
    unit=st.one_of(st.binary(max_size=10), st.just(b"Joules\n")),
)
def test_any_description_is_an_event_or_malformed(tmp_path: Path, event: bytes, scale: bytes, unit: bytes) -> None:
    directory = tmp_path / "sys/bus/event_source/devices/power"
    (directory / "events").mkdir(parents=True, exist_ok=True)
    for name, content in (("type", b"16\n"), ("cpumask", b"0\n"), ("events/energy-pkg", event), ("events/energy-pkg.scale", scale),
                          ("events/energy-pkg.unit", unit)):  # fmt: skip
        (directory / name).write_bytes(content)
    try:
        (event_found,) = perf_power.pmu(HostFS(str(tmp_path))).events
        found: object = 0 < event_found.joules < float("inf")
    except Unavailable as error:
        found = error.reason
    assert found in (True, Reason.MALFORMED)
