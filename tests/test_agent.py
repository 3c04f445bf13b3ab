"""The agent from start to stop, as a process among real collectors, scrapers and service managers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA
from prometheus_client.parser import text_string_to_metric_families

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.export.prometheus.naming import metric_name
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from otel_hostmetrics.kernel.bpf_stats import sysctl_enabled
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.export.otlp.collector import Collector, black_hole, running
from tests.live.bpfload import Loader
from tests.process import CLEAN, COMMAND, ROOT, agent, eventually

QUIET = ("--sources", "agent")  # where the host is beside the point
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # root by name only, who can still read this checkout


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return tmp_path / "said"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running() as made:
        yield made


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port where nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def names(request: ExportMetricsServiceRequest) -> set[str]:
    return {metric.name for each in request.resource_metrics for scope in each.scope_metrics for metric in scope.metrics}


def values(request: ExportMetricsServiceRequest, name: str) -> dict[tuple[str, ...], float]:
    """Value by the attributes' values."""
    found = {}
    for each in request.resource_metrics:
        for metric in (metric for scope in each.scope_metrics for metric in scope.metrics if metric.name == name):
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                key = tuple(sorted(str(getattr(pair.value, str(pair.value.WhichOneof("value")))) for pair in point.attributes))
                found[key] = getattr(point, point.WhichOneof("value"))
    return found


def temporality(request: ExportMetricsServiceRequest, name: str) -> int:
    """Of the histogram called *name*."""
    (found,) = {
        metric.histogram.aggregation_temporality
        for each in request.resource_metrics
        for scope in each.scope_metrics
        for metric in scope.metrics
        if metric.name == name
    }
    return found


def times(request: ExportMetricsServiceRequest) -> set[int]:
    """Unix times of the points of the agent's own gauges and counters."""
    return {
        point.time_unix_nano
        for each in request.resource_metrics
        for scope in each.scope_metrics
        for metric in scope.metrics
        if metric.name == rows.CPU_TIME.name
        for point in metric.sum.data_points
    }


def test_everything_arrives_within_an_interval(said, collector):
    with agent(said, "--otlp-grpc", f"127.0.0.1:{collector.port}", "--interval", "0.2s", *QUIET) as running_:
        collector.wait(6)
        running_.stop()
    shift = time.time() - time.monotonic()
    always = {rows.CPU_TIME.name, rows.MEMORY_USAGE.name, rows.DESCRIPTORS.name, rows.THREADS.name, rows.START_TIME.name}
    ages = []
    for request, arrived in zip(collector.accepted, collector.times, strict=True):
        assert always <= names(request)
        (read_ns,) = times(request)
        ages.append(arrived + shift - read_ns / 1e9)
    assert max(ages[1:]) < 0.2, "the first one also waits for the connection"
    steps = [after - before for before, after in zip(collector.times[1:5], collector.times[2:6], strict=True)]
    assert abs(sum(steps) / len(steps) - 0.2) < 0.05


def test_the_last_values_arrive_before_it_stops(said, collector):
    """With an interval of an hour only the first cycle and the one at the end are sent."""
    with agent(said, "--otlp-grpc", f"127.0.0.1:{collector.port}", "--interval", "1h", *QUIET) as running_:
        collector.wait(1)
        stopped_ns = time.time_ns()
        status, took = running_.stop()
    assert status == 0
    assert took < 2.5
    assert len(collector.accepted) == 2
    assert min(times(collector.accepted[1])) >= stopped_ns


@pytest.mark.parametrize("pipeline", ["native", "sdk"])
def test_it_stops_in_time_with_the_collector_away(tmp_path, pipeline):
    """Two agents at the same time: one whose collector refuses, one whose collector never answers."""
    with refusing() as closed, black_hole() as mute, contextlib.ExitStack() as stack:
        agents = [
            stack.enter_context(
                agent(tmp_path / f"{port}", "--otlp-grpc", f"127.0.0.1:{port}", "--interval", "0.3s", "--pipeline", pipeline, *QUIET)
            )
            for port in (closed, mute)
        ]
        for each in agents:
            each.wait_for("runs: OTLP to")
        time.sleep(0.7)
        began = time.monotonic()
        for each in agents:
            each.process.send_signal(signal.SIGTERM)
        assert [each.process.wait(10) for each in agents] == [0, 0]
        assert time.monotonic() - began < 2.5
    assert not [line for each in agents for line in each.lines if "Traceback" in line]


def test_sampling_stays_on_time_while_the_collector_is_away(tmp_path):
    """The number of the snapshot in latest.json counts cycles. One collector refuses, another never answers."""
    with refusing() as closed, black_hole() as mute, contextlib.ExitStack() as stack:
        latest = [tmp_path / f"{port}" / "latest.json" for port in (closed, mute)]
        for port, path in zip((closed, mute), latest, strict=True):
            options = ("--snapshot-dir", str(path.parent), "--interval", "0.2s", *QUIET)
            every = {"OTEL_HOSTMETRICS_SNAPSHOTS__INTERVAL": "0.05s"}
            stack.enter_context(agent(tmp_path / f"said{port}", "--otlp-grpc", f"127.0.0.1:{port}", *options, **every))
        eventually(lambda: all(path.exists() and _number(path) > 2 for path in latest))
        first, began = [_number(path) for path in latest], time.monotonic()
        time.sleep(3)
        cycles, took = [_number(path) - before for path, before in zip(latest, first, strict=True)], time.monotonic() - began
    assert all(abs(each - took / 0.2) <= 2 for each in cycles), cycles


def _number(path: Path) -> int:
    return int(json.loads(path.read_bytes())["number"])


def test_a_reload_takes_effect(said, tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text("general: {interval: 1h, sources: [agent]}\nprometheus: {listen: '127.0.0.1:0'}\n")
    with agent(said, "--config", str(path)) as running_:
        assert rows.THREADS.name.replace(".", "_") in running_.page()
        first = running_.url()
        path.write_text(
            "general: {interval: 1h, sources: [agent], exclude: ['*.threads']}\nprometheus: {listen: '127.0.0.1:0'}\n"
            "resource: {attributes: {team: storage}}\n"
        )
        os.kill(running_.pid, signal.SIGHUP)
        assert running_.url(2) != first
        page = running_.page(2)
        assert "threads" not in page
        assert 'team="storage"' in page
        assert running_.proc("task") <= 3
        assert running_.stop()[0] == 0


def test_a_reload_keeps_what_could_not_be_delivered(said, tmp_path):
    """While nobody listens. Points of before the reload have its Resource, those of after it another."""
    path = tmp_path / "agent.yaml"
    with contextlib.ExitStack() as stack:
        nobody = stack.enter_context(contextlib.ExitStack())
        port = nobody.enter_context(refusing())
        form = f"general: {{{{interval: 200ms, sources: [agent]}}}}\notlp: {{{{endpoint: '127.0.0.1:{port}'}}}}\n"
        form += "resource: {{attributes: {{team: {}}}}}\n"
        path.write_text(form.format("before"))
        running_ = stack.enter_context(agent(said, "--config", str(path)))
        running_.wait_for("runs: ")
        time.sleep(1)
        path.write_text(form.format("after"))
        os.kill(running_.pid, signal.SIGHUP)
        running_.wait_for("runs: ", times=2)
        assert not [line for line in running_.lines if "undelivered" in line]
        nobody.close()
        collector = stack.enter_context(running(f"127.0.0.1:{port}"))
        eventually(lambda: {_team(each) for each in collector.accepted} == {"before", "after"}, 20)
        assert [_team(each) for each in collector.accepted[:3]] == ["before"] * 3
        assert running_.stop()[0] == 0


def _team(request: ExportMetricsServiceRequest) -> str:
    (resource,) = (each.resource for each in request.resource_metrics)
    return next(each.value.string_value for each in resource.attributes if each.key == "team")


def test_a_stop_in_the_middle_of_a_reload_keeps_its_time(said, tmp_path):
    path = tmp_path / "agent.yaml"
    with refusing() as port:
        form = "general: {{interval: {}, sources: [agent]}}\notlp: {{endpoint: '127.0.0.1:" + str(port) + "'}}\n"
        path.write_text(form.format("1s"))
        with agent(said, "--config", str(path)) as running_:
            running_.wait_for("runs: ")
            path.write_text(form.format("2s"))
            os.kill(running_.pid, signal.SIGHUP)
            began = time.monotonic()
            os.kill(running_.pid, signal.SIGTERM)
            assert running_.process.wait(10) == 0
            assert time.monotonic() - began < 3.2, "the new configuration, then 2 s"


@pytest.mark.parametrize("pipeline", ["native", "sdk"])
def test_a_reload_changes_the_temporality(said, tmp_path, collector, pipeline):
    path = tmp_path / "agent.yaml"
    endpoint = f"'127.0.0.1:{collector.port}'"
    form = f"general: {{interval: 0.2s, sources: [agent], pipeline: {pipeline}}}\notlp: {{endpoint: {endpoint}, temporality: %s}}\n"
    path.write_text(form % "cumulative")
    with agent(said, "--config", str(path)) as running_:
        collector.wait(2)
        assert temporality(collector.accepted[-1], rows.SOURCE_DURATION.name) == AGGREGATION_TEMPORALITY_CUMULATIVE
        path.write_text(form % "delta")
        os.kill(running_.pid, signal.SIGHUP)
        running_.wait_for("runs: ", times=2)
        collector.wait(len(collector.times) + 3)
        assert temporality(collector.accepted[-1], rows.SOURCE_DURATION.name) == AGGREGATION_TEMPORALITY_DELTA
        assert running_.stop()[0] == 0


def test_a_reload_that_changes_nothing_or_is_wrong_leaves_it_running(said, tmp_path):
    path = tmp_path / "agent.yaml"
    good = "general: {interval: 1h, sources: [agent]}\nprometheus: {listen: '127.0.0.1:0'}\n"
    path.write_text(good)
    with agent(said, "--config", str(path)) as running_:
        running_.wait_for("runs: ")
        os.kill(running_.pid, signal.SIGHUP)
        running_.wait_for("configuration unchanged")
        path.write_text("general: {intervall: 1s}\n")
        before = len(running_.lines)
        os.kill(running_.pid, signal.SIGHUP)
        running_.wait_for("reload failed")
        why, failed = running_.lines[before:]
        assert why.startswith("ts=")
        assert "level=error" in why
        assert "general" in why
        assert "intervall" in why
        assert "the last good configuration stays" in failed
        assert "target_info" in running_.page()
        path.write_text(good.replace("1h", "2h"))
        os.kill(running_.pid, signal.SIGHUP)
        running_.wait_for("runs: ", times=2)
        assert running_.stop()[0] == 0


def test_a_reload_onto_a_port_that_is_taken_goes_back(said, tmp_path):
    path = tmp_path / "agent.yaml"
    form = "general: {{interval: 1h, sources: [agent]}}\nprometheus: {{listen: '127.0.0.1:{}'}}\n"
    with socket.create_server(("127.0.0.1", 0)) as ours, socket.create_server(("127.0.0.1", 0)) as freed:
        port, taken = freed.getsockname()[1], ours.getsockname()[1]
        freed.close()
        path.write_text(form.format(port))
        with agent(said, "--config", str(path)) as running_:
            first = running_.page()
            path.write_text(form.format(taken))
            os.kill(running_.pid, signal.SIGHUP)
            running_.wait_for("back to the last good configuration")
            running_.wait_for("runs: ", times=2)
            assert len([line for line in running_.lines if "cannot start" in line and str(taken) in line]) == 1
            assert first.splitlines()[:3] == running_.page().splitlines()[:3]
            assert running_.stop()[0] == 0


def test_a_port_that_is_taken_at_the_start_is_one_line_and_1(said):
    for pipeline in ("native", "sdk"):
        with socket.create_server(("127.0.0.1", 0)) as ours:
            taken = ours.getsockname()[1]
            with agent(said, "--prometheus", f"127.0.0.1:{taken}", "--pipeline", pipeline, "--log-level", "error", *QUIET) as running_:
                assert running_.process.wait(15) == 1
        (line,) = running_.lines
        assert f"cannot start: listening on 127.0.0.1:{taken} (prometheus.listen): Address already in use" in line


def test_a_pattern_that_fits_no_metric_is_pointed_out(said):
    """The names on the Prometheus page are not those that --include and --exclude take."""
    with agent(said, "--prometheus", "127.0.0.1:0", "--exclude", "bpf_maps,bpf.maps", *QUIET) as running_:
        running_.wait_for("runs: ")
        assert [line.partition("msg=")[2] for line in running_.lines if "no metric" in line] == [
            '"no metric is called bpf_maps; `otel-hostmetrics metrics` lists the names"'
        ]


def test_it_tells_the_service_manager(said, tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text("general: {interval: 1h, sources: [agent]}\nprometheus: {listen: '127.0.0.1:0'}\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with agent(said, "--config", str(path), **environment) as running_:
            assert manager.recv(4096).startswith(b"READY=1\nSTATUS=Prometheus on http://127.0.0.1:")
            feeds = []
            while len(feeds) < 5:
                assert manager.recv(4096) == b"WATCHDOG=1"
                feeds.append(time.monotonic())
            assert max(after - before for before, after in itertools.pairwise(feeds)) < 0.35
            os.kill(running_.pid, signal.SIGHUP)
            messages = _until(manager, b"READY=1")
            assert messages[0].startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            os.kill(running_.pid, signal.SIGTERM)
            assert _until(manager, b"STOPPING=1") == []
            assert running_.process.wait(5) == 0


def _until(manager: socket.socket, start: bytes) -> list[bytes]:
    """Messages before the one that begins with *start*, less the watchdog's."""
    messages = []
    while not (message := manager.recv(4096)).startswith(start):
        messages.append(message)
    return [message for message in messages if message != b"WATCHDOG=1"]


def test_page_files_and_otlp_show_the_same_values_of_one_snapshot(said, tmp_path, collector):
    """Each exporter shows a snapshot that OTLP has shown, with every number the same."""
    out = tmp_path / "out"
    environment = {"OTEL_HOSTMETRICS_SNAPSHOTS__INTERVAL": "0.3s", "OTEL_HOSTMETRICS_PROMETHEUS__MAX_AGE": "1h"}
    options = ("--prometheus", "127.0.0.1:0", "--snapshot-dir", str(out), "--interval", "0.3s")
    with agent(said, "--otlp-grpc", f"127.0.0.1:{collector.port}", *options, **environment) as running_:
        collector.wait(3)
        page = running_.page()
        document = json.loads((out / "latest.json").read_bytes())
        collector.wait(6)
        running_.stop()
    requests = {next(iter(times(request))): request for request in collector.accepted}
    request = requests[document["sources"]["agent"]["time_unix_nano"]]
    compared = 0
    for metric in document["metrics"]:
        if metric["kind"] != "histogram":
            points = {tuple(sorted(map(str, point["attributes"].values()))): point["value"] for point in metric["points"]}
            assert points == values(request, metric["name"]), metric["name"]
            compared += len(points)
    assert compared > 10
    assert names(request) == {metric["name"] for metric in document["metrics"]}
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    shown = {sample.name: sample.value for sample in samples if not sample.labels}
    watched = [rows.MEMORY_USAGE, rows.DESCRIPTORS, rows.THREADS, rows.START_TIME]
    expected = [
        {metric_name(row.name, row.unit, row.kind): value for row in watched for value in values(each, row.name).values()}
        for each in collector.accepted
    ]
    assert {name: shown[name] for name in expected[0]} in expected
    cpu = {sample.labels["cpu_mode"]: sample.value for sample in samples if "cpu_time" in sample.name}
    assert cpu in [{key[0]: value for key, value in values(each, rows.CPU_TIME.name).items()} for each in collector.accepted]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and util-linux's setpriv, to give rights up")
def test_without_any_right_it_runs_and_says_once_what_would_cure_that(said):
    with agent(said, "--prometheus", "127.0.0.1:0", "--interval", "0.1s", "--sources", "bpf", before=NO_RIGHTS) as running_:
        time.sleep(0.5)
        page = running_.page()
        assert running_.stop()[0] == 0
    assert 'otel_hostmetrics_source_success{otel_hostmetrics_source_name="bpf"} 0' in page
    denied = [line for line in running_.lines if "bpf" in line and "denied" in line]
    assert len(denied) == 1
    assert "CAP_BPF+CAP_PERFMON" in denied[0]
    assert "otel-hostmetrics doctor" in denied[0]
    assert "process_memory_usage_bytes" in page
    doctor = subprocess.run([*NO_RIGHTS, *COMMAND, "doctor", "--strict"], cwd=ROOT, env=CLEAN, capture_output=True, check=False)
    assert doctor.returncode == 77


def test_hundreds_of_cycles_leave_no_descriptor_and_no_thread_behind(said, tmp_path, collector):
    """Every exporter on, the BPF source with all it looks up, scraped meanwhile."""
    out = tmp_path / "out"
    environment = {"OTEL_HOSTMETRICS_SNAPSHOTS__INTERVAL": "0.1s", "OTEL_HOSTMETRICS_BPF__SLOW_INTERVAL": "0.1s"}
    options = ("--prometheus", "127.0.0.1:0", "--snapshot-dir", str(out), "--interval", "0.02s")
    with agent(said, "--otlp-grpc", f"127.0.0.1:{collector.port}", *options, **environment) as running_:
        running_.page()
        eventually(lambda: len(collector.accepted) > 20, what="requests")
        running_.page()
        before = running_.proc("fd"), running_.proc("task")
        first = len(collector.accepted)
        eventually(lambda: len(collector.accepted) >= first + 200, 20, "200 cycles")
        running_.page()
        eventually(lambda: running_.proc("fd") <= before[0] and running_.proc("task") <= before[1], 2, f"no more than {before}")
        assert running_.stop()[0] == 0


@pytest.mark.live
def test_killed_it_leaves_nothing_in_the_kernel(said):
    """Neither its iterators nor run-time statistics switched on."""
    try:
        objects = ObjectsById()
        objects.ids("program")
    except Unavailable as reason:
        pytest.skip(f"the running kernel's BPF: {reason}, needs {reason.needs}")
    with agent(said, "--prometheus", "127.0.0.1:0", "--interval", "0.1s", OTEL_HOSTMETRICS_BPF__STATS="on") as running_:
        page = running_.page()
        assert "bpf_stats_enabled 1" in page
        held = {int(number) for number in re.findall(rf'bpf_object_id="(\d+)".*process_pid="{running_.pid}"', page)}
        mine = [number for number in held if (program := objects.program(number)) and program.name.startswith("otel_")]
        assert mine
        running_.stop(signal.SIGKILL)
    eventually(lambda: not any(objects.program(number) for number in mine), what="its programs gone")
    if sysctl_enabled(HostFS()):
        return
    with Loader() as loader:

        def idle() -> bool:
            """Whether runs are not counted; another agent on this machine may count for a while."""
            program = loader.program()
            loader.run(program, 10)
            stats = objects.run_stats(loader.ids["program"][-1])
            return stats is not None and stats.runs == 0

        eventually(idle, what="statistics off")


def test_an_unknown_way_to_start_is_64():
    lean = [*COMMAND[:2], "otel_hostmetrics.lean", "nonsense"]
    done = subprocess.run(lean, cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert len(done.stderr.splitlines()) == 1
