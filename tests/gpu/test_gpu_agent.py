"""The agent as a process of its own, with our libnvidia-ml.so.1 in LD_LIBRARY_PATH and nvidia-ml-py as it is published."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from otel_hostmetrics.kernel.hostfs import in_first_pid_namespace
from tests.dashboards.queries import matching, queries
from tests.deploy.alerts import selectors
from tests.gpu.conftest import compiled, needs_compiler
from tests.process import CLEAN, COMMAND, ROOT, agent, eventually

pytestmark = needs_compiler

FIRST, SECOND = (f'hw_id="GPU-0000000{gpu}-0000-0000-0000-000000000000"' for gpu in range(2))
FAILED = f'hw_status{{{SECOND},hw_state="failed",hw_type="gpu"}} 1'


@pytest.fixture
def environ(tmp_path):
    return {"LD_LIBRARY_PATH": str(tmp_path), "FAKENVML_TRACE": str(tmp_path / "trace")}


def balance(trace: Path) -> tuple[int, int]:
    """How often NVML was initialised, less how often shut down; and how often initialised."""
    text = trace.read_text()
    return text.count("+") - text.count("-"), text.count("+")


def once(host, environ, *arguments):
    command = [*COMMAND, "--once", "--sources", "gpu", "--root", str(host), *arguments]
    done = subprocess.run(command, env=CLEAN | environ, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def lines(page, name):
    return [line for line in page.splitlines() if line.startswith(name)]


def test_once_has_every_seed_metric_and_leaves_nvml_shut_down(host, tmp_path, environ):
    compiled(tmp_path)
    page, said = once(host, environ | {"FAKENVML": "gpus=8"})
    assert "source gpu is ok" in said
    assert "gpu_count 8" in page
    assert len(lines(page, "gpu_power_draw_watts{")) == 8
    assert balance(tmp_path / "trace") == (0, 2)  # the source's, and that of the thread that waits for XIDs


def test_an_old_driver_has_less_and_what_it_has_is_right(host, tmp_path, environ):
    """Before R510: neither nvmlDeviceGetMemoryInfo_v2 nor nvmlDeviceGetTemperatureV in the library, no field from 160 on."""
    compiled(tmp_path, "-DOLD_DRIVER")
    page, said = once(host, environ)
    assert "source gpu is ok" in said
    assert lines(page, "gpu_memory_used_bytes{")[0].endswith(" 300000000")  # what is reserved counted as used then
    assert lines(page, "gpu_temperature_celsius{")[0].endswith(" 40.0")
    assert lines(page, "gpu_power_draw_watts{")[0].endswith(" 123.456")  # nvmlDeviceGetPowerUsage
    assert lines(page, "hw_energy_joules_total{")
    assert not lines(page, "hw_gpu_power_average_watts{")
    assert not lines(page, "hw_gpu_memory_reserved_bytes{")


def test_no_library_and_no_gpu_are_told_apart(host, tmp_path):
    page, said = once(host, {"PATH": "/nonexistent"})
    assert "gpu_count 0" in page
    assert "libnvidia-ml.so.1: absent" in said
    (tmp_path / "bare").mkdir()
    page, said = once(tmp_path / "bare", {})
    assert "gpu_count 0" in page
    assert "no GPU of NVIDIA, AMD or Intel" in said


def test_a_running_agent_survives_faults_and_shuts_nvml_down_at_sigterm(host, tmp_path, environ):
    compiled(tmp_path)
    faults = tmp_path / "faults"
    faults.write_text("gpus=2\n")
    arguments = ("--sources", "gpu", "--root", str(host), "--interval", "100ms", "--prometheus", "127.0.0.1:0")
    with agent(tmp_path / "said", *arguments, FAKENVML_FILE=str(faults), **environ) as running:
        power = f"hw_power_watts{{{SECOND}"
        eventually(lambda: power in running.page())
        faults.write_text("gpus=2\nlost.1=1\n")
        eventually(lambda: FAILED in (page := running.page()) and power not in page and f"hw_power_watts{{{FIRST}" in page)
        faults.write_text("gpus=2\nlost.1=0\nxid.0=63\n")
        eventually(lambda: 'hw_gpu_xid="63"' in running.page())
        eventually(lambda: power in (page := running.page()) and FAILED not in page, timeout=12)  # after the first pause, 5 s
        status, took = running.stop()
    assert (status, took < 2) == (0, True), running.lines[-5:]
    still_open, times = balance(tmp_path / "trace")
    assert (still_open, times >= 4) == (0, True)


# Of the dashboard's metrics, those that this host does not have: opt-in, of errors that did not happen, of AMD's and Intel's GPUs; and
# processes are counted in the host's PID namespace only.
ELSEWHERE = {"hw_gpu_profile_utilization_ratio", "hw_gpu_xid_errors_total", "hw_gpu_engine_utilization_ratio"}
ELSEWHERE |= {"hw_gpu_throttle_active", "process_gpu_time_seconds_total"}
ELSEWHERE |= set() if in_first_pid_namespace() else {"hw_gpu_processes"}


def test_every_panel_of_the_dashboard_has_something_to_show(host, tmp_path, environ):
    compiled(tmp_path)
    page, _ = once(
        host, environ | {"FAKENVML": f"process.0={os.getpid()} value.197=8589934592 value.198=8589934592"}, "--path.procfs", "/proc"
    )
    asked = {selector for query in queries() if query.dashboard == "gpu" for selector in query.selectors}
    assert len(asked) > 25
    missing = {name for name, matchers in asked if "container_id" not in matchers and not matching(page, name, matchers)}
    assert missing == ELSEWHERE


# Of the alerts': errors that did not happen, and AMD's and Intel's ways to tell why clocks are held down (tests/gpu/test_gpu_health.py).
NOT_NOW = {"hw_gpu_xid_errors_total", "hw_gpu_throttle_active"}
AMD = re.compile(r'hw_gpu_throttle_reason="(memory_thermal|vr_thermal|prochot)"')


def test_every_alert_watches_what_an_nvidia_gpu_tells_by_default(host, tmp_path, environ):
    compiled(tmp_path)
    page, _ = once(host, environ | {"FAKENVML": "value.82=60"})
    asked = {(name, matchers) for name, matchers in selectors("gpu") if not AMD.search(matchers)}
    assert {name for name, matchers in asked if not matching(page, name, matchers)} == NOT_NOW
