"""The command as people type it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.config.flags import FLAGS
from otel_hostmetrics.settings import Settings, decode
from tests.sources.energy_hosts import host

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "RDMA_MON_"))} | {"COLUMNS": "200"}
COMMAND = [sys.executable, "-m", "otel_hostmetrics"]


def front(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=CLEAN | environ, capture_output=True, text=True, timeout=30, check=False)


def test_version():
    done = front("--version")
    assert (done.returncode, done.stdout) == (0, f"otel-hostmetrics {__version__}\n")


@pytest.mark.parametrize("command", [(), ("run",), ("doctor",), ("config", "show")])
def test_every_command_has_every_flag_with_the_settings_own_words(command):
    done = front(*command, "--help")
    assert done.returncode == 0
    for flag in FLAGS:
        assert all(name in done.stdout for name in flag.names), flag
        assert flag.key.description[:20] in done.stdout
        assert flag.metavar in done.stdout
    assert "--config" in done.stdout
    assert "--resolve-only" not in done.stdout


def test_wrong_usage_exits_with_2():
    assert front("--intervall", "5s").returncode == 2
    assert front("--once", "--format", "xml").returncode == 2
    assert front("run", "--format", "json").returncode == 2


def test_flags_stand_before_or_after_the_command(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("log: {level: debug}\ngeneral: {interval: 9s}\n")
    done = front(
        "--interval",
        "5s",
        "--exclude",
        "a,b",
        "--prometheus=1",
        "--config",
        str(path),
        "config",
        "show",
        "--prometheus",
        "2",
        "--exclude",
        "c",
    )
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "interval: 5s # --interval" in lines
    assert 'exclude: ["a", "b", "c"] # --exclude' in lines
    assert 'listen: "2" # --prometheus' in lines
    assert f"level: debug # {path}" in lines


def test_both_names_of_the_otlp_flag():
    for name in ("--otlp-grpc", "--otel-grpc"):
        assert 'endpoint: "localhost:4317"' in front("config", "show", name, "localhost:4317").stdout


@pytest.mark.parametrize("command", [("run",), ("--once",), ("doctor",), ("config", "check"), ("--resolve-only",)])
def test_a_wrong_configuration_is_one_line_and_78_for_every_command(command):
    done = front(*command, OTEL_HOSTMETRICS_PROMETHEUS__MAX_CONNECTIONS="0")
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr == (
        "otel-hostmetrics: prometheus.max_connections: expected a whole number, at least 1, got '0' "
        "(from environment OTEL_HOSTMETRICS_PROMETHEUS__MAX_CONNECTIONS)\n"
    )


def test_unknown_sources_are_a_wrong_configuration():
    done = front("--sources", "bpf,nonesuch")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("otel-hostmetrics: general.sources: unknown source 'nonesuch'")


def test_check_says_that_it_is_valid_and_what_is_not_used():
    done = front("config", "check", RDMA_MON_LLM__API_KEY="sk-1")
    assert (done.returncode, done.stdout) == (0, "the configuration is valid\n")
    assert done.stderr == "otel-hostmetrics: not used yet: RDMA_MON_LLM__API_KEY\n"


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"OTEL_SDK_DISABLED": "True"}, "OTEL_SDK_DISABLED is true: nothing started"),
        (
            {"OTEL_METRICS_EXPORTER": "none"},
            "OTEL_METRICS_EXPORTER leaves no exporter, and there is no snapshots.directory: nothing started",
        ),
    ],
)
def test_nothing_starts_where_opentelemetry_is_turned_off(environ, line):
    done = front("run", **environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"otel-hostmetrics: {line}\n")


def test_resolve_only_prints_what_the_agent_decodes_and_nothing_else():
    done = front("--resolve-only", "run", "--interval", "3s", RDMA_MON_LLM__API_KEY="x", OTEL_EXPORTER_OTLP_HEADERS="a=b")
    assert (done.returncode, done.stderr) == (0, "")
    settings = decode(done.stdout.encode())
    assert (settings.general.interval, settings.otlp.headers, settings.prometheus.listen) == (3, {"a": "b"}, "localhost:9464")


def test_metrics_lists_the_catalogue():
    rows = json.loads(front("metrics", "--json").stdout)
    assert [row["name"] for row in rows] == [row.name for row in CATALOGUE]
    name = CATALOGUE[0].name
    assert front("metrics", "--include", name).stdout.split()[0] == name
    markdown = front("metrics", "--markdown", "--exclude", name).stdout
    assert f"| `{name}` |" not in markdown
    assert all(f"| `{row.name}` |" in markdown for row in CATALOGUE[1:])


def test_doctor_reports_every_source_and_way_to_names():
    done = front("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["host"]["kernel"] == os.uname().release
    names = [finding["source"] for finding in found["findings"]]
    assert names == ["bpf", "rdma", "rapl", "gpu", "workload-energy", "workloads.pod_logs", "workloads.bundles"]


def test_once_prints_a_snapshot():
    done = front("--once", "--format", "json", "--sources", "bpf")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)


def test_once_has_what_takes_two_readings(tmp_path):
    """Watts, and whose the energy was: the counter is the same at both, so it is 0 W, and 0 J of nobody."""
    host("two-sockets", tmp_path)
    done = front("--once", "--sources", "rapl", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert 'rapl_power_watts{zone="package_0"} 0.0' in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("--once", "--sources", "agent", "--log-level", "error"),
        ("doctor", "--sources", "rdma"),
        ("config", "show"),
        ("metrics",),
        ("--version",),
        ("-h",),
    ],
)
def test_a_full_disk_behind_standard_output_is_one_line(command):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *command], env=CLEAN, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, "otel-hostmetrics: standard output: No space left on device\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_the_agent_runs_with_standard_streams_closed(tmp_path, closed):
    """As some that start daemons leave them. What is opened next must not become one of them."""
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "--snapshot-dir", str(tmp_path), "--sources", "agent"]
    with subprocess.Popen(command, env=CLEAN, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 15
            while not list(tmp_path.glob("snapshot_*.json")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            streams = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]
            assert streams.count("/dev/null") >= closed.count("&-")
            process.terminate()
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_once_with_standard_output_closed_has_no_reader():
    command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "--once", "--sources", "agent", "--log-level", "error"]
    done = subprocess.run(command, env=CLEAN, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_front_becomes_the_agent_with_the_same_pid_and_without_its_own_libraries():
    """Secrets appear neither in the arguments nor among what ps shows."""
    arguments = ["--prometheus", "127.0.0.1:0", "--sources", "bpf"]
    with subprocess.Popen(
        [*COMMAND, *arguments], env=CLEAN | {"OTEL_EXPORTER_OTLP_HEADERS": "a=hunter2"}, stderr=subprocess.PIPE
    ) as process:
        try:
            command = _wait_for_agent(process)
            assert command[command.index("--settings-fd") + 2 :] == ["--", *arguments]
            assert "hunter2" not in " ".join(command)
            _wait_for_line(process, b"runs")
            assert b"/yaml/" not in Path(f"/proc/{process.pid}/maps").read_bytes()
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


def test_bare_it_says_that_it_serves_prometheus():
    with subprocess.Popen(COMMAND, env=CLEAN, stderr=subprocess.PIPE) as process:
        try:
            _wait_for_line(process, b"no exporter is configured: serving Prometheus on localhost:9464")
        finally:
            process.send_signal(signal.SIGTERM)


def _wait_for_agent(process: subprocess.Popen[bytes]) -> list[str]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        command = Path(f"/proc/{process.pid}/cmdline").read_text().rstrip("\0").split("\0")
        if "otel_hostmetrics.lean" in command:
            return command
        time.sleep(0.02)
    raise AssertionError("no execve within 10 s")


def _wait_for_line(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if word in line:
            return
    raise AssertionError(f"{word!r} was not said, only {seen}")


def test_defaults_are_what_the_settings_say():
    assert decode(front("--resolve-only", "--prometheus", "1").stdout.encode()).general == Settings().general
