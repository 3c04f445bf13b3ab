"""The real agent over recorded hosts whose counters move, scraped by the real Prometheus: every query of energy and GPUs.

A server has two processors, two NVIDIA GPUs of a libnvidia-ml of our own, a pod and a container of docker, whose cgroups
and processes are real. A laptop has what servers lack: a zone for the whole host, and a GPU whose engines are counted.
No query is excused.
"""

from __future__ import annotations

import os
import re
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.dashboards.queries import Query, queries
from tests.gpu.conftest import add_gpu, compiled, count_by_software
from tests.gpu.test_gpu_nvidia import sees_all_processes
from tests.hosts.recorded import HOSTS, unpack
from tests.kernel.test_perf_event import PARANOID
from tests.live import cgroups
from tests.process import agent, eventually
from tests.sources import energy_hosts
from tests.system import prometheus, working
from tests.system.processes import Processes, need
from tests.system.prometheus import Prometheus

pytestmark = pytest.mark.system

POD = ("shop", "web-1", "9a1b2c3d-1111-4222-8333-444455556666")
APP, SIDE, DEMO = "a1" * 32, "b2" * 32, "c3" * 32
# What the library says of each GPU, at first and then: bytes over PCIe and NVLink, clocks that hardware holds down, memory that waits
# for repair, and a highest power limit that is not the one in force.
_FIRST = {"value.197": 1 << 33, "value.198": 1 << 33, "value.reasons": 8, "value.144": 1, "value.188": 900_000}
_THEN = {"value.197": 3 << 33, "value.198": 2 << 33, "value.138": 1 << 20, "value.139": 1 << 20, "xid.0": 63}


def _missing() -> str:
    lacking = prometheus.missing()
    if not shutil.which("cc"):
        lacking.append("cc")
    if os.geteuid() != 0 or not PARANOID.exists():
        lacking.append("root and CONFIG_PERF_EVENTS")
    try:
        cgroups.accounted(HostFS())
    except Unavailable as reason:
        lacking.append(str(reason))
    return ", ".join(lacking)


def _settings(values: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def _start_agent(processes: Processes, root: Path, *arguments: str, **environment: str) -> int:
    """Gives its port."""
    command = ("--root", str(root), "--interval", "1s", "--sources", "rapl,gpu", "--prometheus", "127.0.0.1:0", *arguments)
    running = processes.enter_context(agent(root / "agent.log", *command, **environment))
    return urllib.parse.urlsplit(running.url()).port or 0


def _start_server(processes: Processes, root: Path, nvml: Path) -> int:
    energy_hosts.host("two-sockets", root)
    (root / "sys/fs").mkdir()
    (root / "sys/fs/cgroup").symlink_to("/sys/fs/cgroup")
    for address in ("0000:01:00.0", "0000:02:00.0"):
        add_gpu(root, address)
    app, side = (working.in_pod(processes, root, each, POD, name) for each, name in ((APP, "app"), (SIDE, "side")))
    working.of_docker(processes, root, DEMO, "demo")
    (root / "lib").mkdir()
    compiled(root / "lib")
    environment = {
        "OTEL_HOSTMETRICS_ATTRIBUTION__PROCESSES": "10",
        "OTEL_HOSTMETRICS_GPU__PROFILING": "true",
        "LD_LIBRARY_PATH": str(root / "lib"),
        "FAKENVML": _settings(_FIRST | {"process.0": app.pid, "process.1": side.pid}),
        "FAKENVML_FILE": str(nvml),
    }
    return _start_agent(processes, root, "--path.procfs", "/proc", **environment)


def _start_laptop(processes: Processes, root: Path) -> int:
    energy_hosts.host("mmio", root)
    for part in ("gpu-intel", "gpu-intel-pmu"):
        unpack(part, root)
    _work(root, ns=25_662_044_495)
    count_by_software(root, "i915", rcs0_busy="config=0x0")
    return _start_agent(processes, root, OTEL_HOSTMETRICS_RAPL__PSYS_IS_HOST="true")


def _work(laptop: Path, ns: int) -> None:
    """A process has kept the engine ``render`` busy for so long."""
    file = laptop / "proc/4711/fdinfo/12"
    file.parent.mkdir(exist_ok=True)
    file.write_text(re.sub(r"(drm-engine-render:\t)\d+", rf"\g<1>{ns}", (HOSTS / "gpu-intel/fdinfo").read_text()))


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    need(_missing())
    folder = tmp_path_factory.mktemp("energy")
    server, laptop, nvml = folder / "server", folder / "laptop", folder / "nvml"
    for each in (server, laptop):
        each.mkdir()
    with Processes() as processes:
        ports = [_start_server(processes, server, nvml), _start_laptop(processes, laptop)]
        found = prometheus.start(processes, folder, {"otel-hostmetrics": ports})
        assert found.values("hw_gpu_io_bytes_total")
        eventually(lambda: found.values("process_gpu_time_seconds_total"), what="the laptop's processes")  # before they go on
        processes.enter_context(energy_hosts.drawing(folder, watts=40))  # in every zone
        new = nvml.with_suffix(".new")
        new.write_text(_settings(_THEN))
        new.rename(nvml)
        _work(laptop, ns=27_662_044_495)
        yield found
    assert not os.path.exists(f"{cgroups.accounted(HostFS())}/test-{os.getpid()}")


def _shown(monitored: Prometheus, panel: str) -> dict[str, float]:
    """By line, of all queries of *panel*: DASHBOARD: TITLE. In a window that has the whole test in it."""
    asked = [query for query in queries() if f"{query}: ".startswith(f"{panel}: ")]
    return {line: round(value, 3) for query in asked for line, value in monitored.answer(query, "5m").items()}


def test_an_xid_is_shown_from_the_first_on(monitored: Prometheus) -> None:
    """A counter that begins with it has no rate."""
    ((line, count),) = _shown(monitored, "gpu: XID errors").items()
    assert (line.split()[-1], count) == ("63", 1)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(query, id=str(query), marks=[sees_all_processes] if "hw_gpu_processes" in query.expr else [])
        for query in queries("energy", "gpu")
    ],
)
def test_every_query_of_the_dashboards_has_an_answer(monitored: Prometheus, query: Query) -> None:
    monitored.answer(query)


@pytest.mark.parametrize(
    ("panel", "expected"),
    [
        ("energy: By namespace", {"shop"}),
        ("energy: By pod", {"shop/web-1"}),
        ("energy: By container", {f"app {APP}", f"side {SIDE}", f"demo {DEMO}"}),
        ("gpu: Memory by container", {"shop/web-1 app", "shop/web-1 side"}),
    ],
)
def test_whose_it_is_has_a_name(monitored: Prometheus, panel: str, expected: set[str]) -> None:
    """Beside others' containers, where there are any."""
    eventually(lambda: expected <= {line for line, value in _shown(monitored, panel).items() if value > 0}, what=panel)


def test_wraps_are_shown_by_zone(monitored: Prometheus) -> None:
    """Of the two that are about to, as recorded."""
    eventually(lambda: _stepped(monitored) == {"package-0/dram intel-rapl wraps", "package-1 intel-rapl wraps"}, what="wraps")


def _stepped(monitored: Prometheus) -> set[str]:
    return {line.partition(" ")[2] for line, value in _shown(monitored, "energy: Resets and wraps").items() if value > 0}


def test_engines_are_shown_by_name(monitored: Prometheus) -> None:
    ((line, share),) = _shown(monitored, "gpu: Engines").items()
    assert (line.split()[-1], share) == ("rcs0", pytest.approx(1, abs=0.05))


def test_engines_are_shown_by_process(monitored: Prometheus) -> None:
    def working() -> list[str]:
        return [line.partition("4711 ")[2] for line, rate in _shown(monitored, "gpu: Engines by process").items() if rate > 0]

    eventually(lambda: working() == ["0000:00:02.0 render"], what="engines")


def test_clocks_that_are_held_down_are_shown_of_counters_and_of_readings(monitored: Prometheus) -> None:
    found = {line.partition(" ")[2]: share for line, share in _shown(monitored, "gpu: Held down").items()}
    sampled = {line: share for line, share in found.items() if line.endswith(" (sampled)")}
    assert sampled["0000:00:02.0 graphics.pl1 (sampled)"] == 1
    assert set(sampled.values()) == {0, 1}
    assert any(line.endswith(" hw_thermal") for line in found.keys() - sampled.keys())


def test_containers_take_the_power_of_their_gpus(monitored: Prometheus) -> None:
    of_gpus = 'rate(workload_energy_joules_total{energy_component="gpu"}[5m]) > 0'
    found = {labels["workload_name"] for labels, _ in monitored.series(of_gpus)}
    assert found == {APP, SIDE}


@pytest.mark.parametrize(
    ("panel", "expected"),
    [
        ("gpu: GPUs now: not well", {2}),  # each of which is degraded and about to fail
        ("gpu: GPUs now: memory used", {0.25}),  # the laptop's card does not tell of its use
        ("gpu: Power and its limit", {250, 700, 190, 0}),  # the counter of the recorded Intel card stands still
        ("gpu: Profile", {each / 100 for each in range(1, 14) if each != 11}),  # every unit that there is
        pytest.param("gpu: Processes", {1}, marks=sees_all_processes),
        ("gpu: Utilization by process", {0.55, 0.05, 0.06}),  # tasks overlap: no sum means anything
    ],
)
def test_gpus_are_as_they_are(monitored: Prometheus, panel: str, expected: set[float]) -> None:
    assert {round(value, 2) for value in _shown(monitored, panel).values()} == expected
