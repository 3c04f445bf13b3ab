"""Sensors of /sys/class/hwmon."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import hwmon
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.hosts.recorded import unpack


def test_energy_sensors_of_one_driver(tmp_path: Path) -> None:
    found = hwmon.sensors(unpack("energy-hwmon", tmp_path), {"amd_energy"})
    assert [(sensor.quantity, sensor.label) for sensor in found] == [
        ("energy", "Ecore000"), ("energy", "Ecore001"), ("energy", "Esocket0"), ("energy", "Esocket1"),
    ]  # fmt: skip
    with found[2].counter() as counter:
        assert counter.read() == 5_200_000_000


def test_sensors_in_the_parent_device(tmp_path: Path) -> None:
    found = hwmon.sensors(unpack("energy-arm-grace", tmp_path), {"power_meter"})
    assert [(sensor.quantity, sensor.label, sensor.path.rpartition("/")[2]) for sensor in found][:2] == [
        ("power", "Module Power Socket 0", "power1_average"),
        ("power", "Grace Power Socket 0", "power1_average"),
    ]


def test_an_average_goes_before_an_instant(tmp_path: Path) -> None:
    directory = tmp_path / "sys/class/hwmon/hwmon0"
    directory.mkdir(parents=True)
    for name, text in (
        ("name", "xgene"),
        ("power1_input", "1"),
        ("power1_average", "2"),
        ("power1_label", "CPU power"),
        ("in1_input", "3"),
    ):
        (directory / name).write_text(text)
    (sensor,) = hwmon.sensors(HostFS(str(tmp_path)), {"xgene"})
    assert sensor.path.endswith("power1_average")


def test_no_hwmon(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        hwmon.sensors(HostFS(str(tmp_path)), {"xgene"})
    assert caught.value.reason is Reason.ABSENT


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(label=st.binary(max_size=100), value=st.binary(max_size=30))
def test_any_content_is_a_sensor_whose_value_is_a_number_or_malformed(tmp_path: Path, label: bytes, value: bytes) -> None:
    directory = tmp_path / "sys/class/hwmon/hwmon0"
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (("name", b"xgene\n"), ("power1_input", value), ("power1_label", label)):
        (directory / name).write_bytes(content)
    (sensor,) = hwmon.sensors(HostFS(str(tmp_path)), {"xgene"})
    assert len(sensor.label) <= 64
    with sensor.counter() as counter:
        try:
            found: object = counter.read()
        except Unavailable as error:
            found = error.reason
    assert isinstance(found, int) or found is Reason.MALFORMED
