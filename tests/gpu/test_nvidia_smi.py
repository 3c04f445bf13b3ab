"""nvidia-smi as the fallback: its spellings, and a program that is slow, hangs, complains or lies."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import nvidia_smi
from otel_hostmetrics.kernel.child import Child, output
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Gpu as GpuSettings
from otel_hostmetrics.settings import Seconds, Settings
from otel_hostmetrics.sources.gpu import Gpu
from otel_hostmetrics.sources.gpu.points import Names
from otel_hostmetrics.sources.gpu.smi import NvidiaSmi

COLUMNS = list(nvidia_smi.COLUMNS)
_CELLS = {
    "power.draw": "71.23", "power.limit": "300.00", "utilization.gpu": "42", "memory.total": "81559", "memory.used": "1024", "pstate": "P0",
    "temperature.gpu": "40",
}  # fmt: skip
LINE = ", ".join(
    ["0", "00000000:3B:00.0", "NVIDIA H200", "GPU-1", "[N/A]", "96.00", "580.1", *(_CELLS.get(name, "[N/A]") for name in COLUMNS)]
)

# The power readings of four generations of drivers, as their documentation and users' reports show them.
XML = {
    "470": "<power_readings><power_draw>71.23 W</power_draw><power_limit>300.00 W</power_limit></power_readings>",
    "535": "<gpu_power_readings><power_draw>71.23 W</power_draw><current_power_limit>300.00 W</current_power_limit></gpu_power_readings>",
    "570": "<gpu_power_readings><average_power_draw>70.00 W</average_power_draw><instant_power_draw>71.23 W</instant_power_draw>"
    "<current_power_limit>300.00 W</current_power_limit></gpu_power_readings>",
    "new-with-na": "<gpu_power_readings><instant_power_draw>N/A</instant_power_draw><average_power_draw>71.23 W</average_power_draw>"
    "<current_power_limit>300.00 W</current_power_limit></gpu_power_readings>",
}


def document(power):
    return f"""<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>580.1</driver_version><attached_gpus>1</attached_gpus>
<gpu id="00000000:3B:00.0"><product_name>NVIDIA H200</product_name><uuid>GPU-1</uuid><serial>N/A</serial><fan_speed>N/A</fan_speed>
<fb_memory_usage><total>81559 MiB</total><reserved>535 MiB</reserved><used>1024 MiB</used></fb_memory_usage>
<utilization><gpu_util>42 %</gpu_util><encoder_util>N/A</encoder_util>
<decoder_util>Requested functionality has been deprecated</decoder_util></utilization>
<temperature><gpu_temp>40 C</gpu_temp><memory_temp>[Unknown Error]</memory_temp></temperature>
<performance_state>P8</performance_state><clocks><sm_clock>1980 MHz</sm_clock></clocks>
<pci><pci_gpu_link_info><link_widths><current_link_width>16x</current_link_width></link_widths></pci_gpu_link_info></pci>
{power}</gpu></nvidia_smi_log>""".encode()


@pytest.mark.parametrize("driver", XML)
def test_xml_of_every_generation(driver):
    (report,) = nvidia_smi.parse_xml(document(XML[driver]))
    found = report.values
    assert (found["power.instant_mw"], found["power.limit.current_mw"]) == (71_230, 300_000)
    assert (found["memory.total"], found["memory.used"], found["utilization.gpu"]) == (81_559 << 20, 1024 << 20, 42)
    assert (found["pstate"], found["clock.sm_mhz"], found["pcie.width"], found["temperature.gpu"]) == (8, 1980, 16, 40)
    assert not {"utilization.encoder", "utilization.decoder", "temperature.memory", "fan.0.percent"} & found.keys()
    assert (report.bus_id, report.uuid, report.serial, report.driver) == ("00000000:3B:00.0", "GPU-1", "", "580.1")


@pytest.mark.parametrize(("said", "expected"), [("100", 100), ("808", None)])
def test_more_than_all_of_the_time_is_no_utilization(said, expected):
    (report,) = nvidia_smi.parse_csv(COLUMNS, LINE.replace(", 42,", f", {said},").encode())
    assert said in LINE.replace(", 42,", f", {said},")
    assert report.values.get("utilization.gpu") == expected
    assert report.values["memory.total"] == 81_559 << 20


def test_csv_line():
    (report,) = nvidia_smi.parse_csv(COLUMNS, f"{LINE}\n".encode())
    assert report.values == {
        "power.instant_mw": 71_230, "power.limit.current_mw": 300_000, "utilization.gpu": 42, "memory.total": 81_559 << 20,
        "memory.used": 1024 << 20, "pstate": 0, "temperature.gpu": 40,
    }  # fmt: skip
    assert (report.number, report.name, report.serial) == (0, "NVIDIA H200", "")


@pytest.mark.parametrize(
    "text", ["N/A", "[N/A]", "[Not Supported]", "Unknown Error", "[GPU requires reset]", "", "-", "ERR!", "12 parsecs", "1e5"]
)
def test_what_is_no_value_is_absent(text):
    assert nvidia_smi.number(text, "W") is None


def reports_or_malformed(parse):
    try:
        return isinstance(parse(), list)
    except Unavailable as error:
        return error.reason is Reason.MALFORMED


@given(st.binary(max_size=400))
def test_any_bytes_are_reports_or_malformed(blob):
    assert reports_or_malformed(lambda: nvidia_smi.parse_csv(COLUMNS, blob))
    assert reports_or_malformed(lambda: nvidia_smi.parse_xml(blob))


@given(st.sampled_from([*XML.values()]), st.integers(0, 1000), st.binary(max_size=8))
def test_a_damaged_document_is_reports_or_malformed(power, place, bytes_):
    blob = document(power)
    assert reports_or_malformed(lambda: nvidia_smi.parse_xml(blob[:place] + bytes_ + blob[place:]))


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes nvidia-smi a shell script; every run adds a line to the file ``runs``."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    def write(body):
        path = directory / "nvidia-smi"
        path.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n{body}\n")
        path.chmod(0o755)
        return tmp_path / "runs"

    return write


def smi(tmp_path, patience=2.0, most=30.0, interval=0.001):
    return NvidiaSmi(HostFS(str(tmp_path / "host")), GpuSettings(nvidia_smi_interval=Seconds(interval)), Names(), patience, most)


def test_values_come_under_the_same_names_as_from_nvml(program, tmp_path):
    program(f"echo '{LINE}'")
    part = smi(tmp_path)
    values = part.read()
    found = {bound.series.metric: values[bound.place] for bound in part.bound}
    assert (found[rows.POWER_DRAW], found[hardware.POWER], found[rows.MEMORY_USED]) == (71_230, 71_230, 1024 << 20)
    assert part.devices == 1
    assert next(iter(part.columns()[rows.INFO].series)).attributes["hw.gpu.pci.address"] == "00000000:3b:00.0"
    part.close()


def test_a_column_an_older_driver_does_not_know_is_left_out(program, tmp_path):
    program(f"""case "$*" in *utilization.jpeg*) echo 'Field "utilization.jpeg" is not a valid field to query.'; exit 2;; esac
echo '{", ".join(LINE.split(", ")[:7] + [_CELLS.get(name, "[N/A]") for name in COLUMNS if name != "utilization.jpeg"])}'""")
    part = smi(tmp_path)
    part.read()
    assert len(part.read()) == 7
    assert part.problems == []
    part.close()


def test_a_driver_that_knows_few_columns_is_asked_for_xml(program, tmp_path):
    (tmp_path / "document").write_bytes(document(XML["470"]))
    program(f"""case "$*" in -q*) cat {tmp_path}/document; exit;; esac
field=$(echo "$*" | sed 's/--query-gpu=//; s/ .*//; s/.*,//'); echo "Field \\"$field\\" is not a valid field to query."; exit 2""")
    part = smi(tmp_path)
    for _ in range(7):
        values = part.read()
    assert 71_230 in values
    assert part.facts()["form"] == "XML"
    part.close()


def test_a_slow_program_is_not_started_twice_and_its_output_is_taken_later(program, tmp_path):
    runs = program(f"sleep 0.3; echo '{LINE}'")
    part = smi(tmp_path, patience=0.01)
    began = time.monotonic()
    while not part.read() and time.monotonic() - began < 3:
        time.sleep(0.02)
    assert part.devices == 1
    assert len(runs.read_text().splitlines()) == 1
    part.close()


def test_a_program_that_hangs_is_killed(program, tmp_path):
    program("exec sleep 60")
    part = smi(tmp_path, patience=0.01, most=0.1)
    began = time.monotonic()
    while not part.problems and time.monotonic() - began < 3:
        part.read()
    assert part.problems[0].reason is Reason.LATE
    part.close()


def test_a_failure_keeps_no_old_values_for_long_and_says_what_the_program_said(program, tmp_path):
    program("echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    part = smi(tmp_path)
    assert part.read() == []
    assert "could not communicate" in str(part.problems[0])
    part.close()


def test_a_sleeping_gpu_is_not_woken(program, host, tmp_path):
    runs = program(f"echo '{LINE}'")
    (host / "sys/devices/pci0000:00/0000:02:00.0/power/runtime_status").write_text("suspended\n")
    part = NvidiaSmi(HostFS(str(host)), GpuSettings(), Names())
    assert part.read() == []
    assert not runs.exists()
    part.close()


def test_the_source_falls_back_and_can_be_told_not_to(program, host):
    program(f"echo '{LINE}'")
    missing = "/nonexistent/libnvidia-ml.so.1"
    source = Gpu(HostFS(str(host)), Settings(gpu=GpuSettings(nvml_library=missing)))
    reading = source.read()
    assert reading.columns[rows.COUNT].values == [1]
    assert list(reading.columns[rows.POWER_DRAW].values) == [71.23]
    source.close()
    source = Gpu(HostFS(str(host)), Settings(gpu=GpuSettings(nvml_library=missing, nvidia_smi="off")))
    (problem,) = source.read().problems
    assert problem.reason is Reason.ABSENT
    assert missing in problem.what
    source.close()


def test_a_child_that_cannot_start_or_writes_without_end(tmp_path):
    with pytest.raises(Unavailable) as caught:
        Child([str(tmp_path / "none")], {})
    assert caught.value.reason is Reason.ABSENT
    with pytest.raises(Unavailable) as caught:
        output(["/usr/bin/yes"], {}, 5)
    assert caught.value.reason is Reason.MALFORMED
    with pytest.raises(Unavailable) as caught:
        output(["/bin/sleep", "9"], {}, 0.05)
    assert caught.value.reason is Reason.LATE
    assert output(["/bin/echo", "x"], {}, 5) == b"x\n"


def test_a_child_leaves_no_descriptor_and_no_zombie():
    before = len(os.listdir("/proc/self/fd"))
    child = Child(["/bin/sleep", "9"], {})
    pid = child._pid
    child.close()
    child.close()
    assert not os.path.exists(f"/proc/{pid}")
    assert len(os.listdir("/proc/self/fd")) == before
