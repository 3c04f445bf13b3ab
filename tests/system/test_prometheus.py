"""The real agent on this kernel's BPF objects, scraped by the real Prometheus: every query of their dashboards has an answer.

Everything that a query needs is made to happen: programs run, a receiver refuses, a client talks no HTTP, a directory
cannot be read. RDMA is a second agent over recorded trees, and for what netlink and ethtool tell a page that the source
makes of recorded answers (tests/machine has a kernel that answers). No query is excused.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from tests.dashboards.queries import NAMES, Query, queries
from tests.hosts.recorded import unpack
from tests.live.bpfload import Loader, attach_type
from tests.live.zoo import cgroup2
from tests.system import prometheus
from tests.system.processes import Processes, free_port, get, need, until
from tests.system.recorded_rdma import Served, page

pytestmark = [pytest.mark.system, pytest.mark.live]

_JOB = "otel-hostmetrics"
_BOARDS = [name for name in NAMES if name not in ("energy", "gpu")]  # those: test_energy_prometheus.py


def _missing() -> str:
    lacking = [*prometheus.missing(), *(name for name in ("setpriv", "mount") if shutil.which(name) is None)]
    try:
        ObjectsById().ids("program")
    except Unavailable as reason:
        lacking.append(f"the running kernel's BPF ({reason})")
    return ", ".join(lacking)


def _mount_bpffs(stack: contextlib.ExitStack, place: Path) -> None:
    """A BPF file system with a folder that only somebody else may read."""
    place.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", place], check=True, timeout=10)
    stack.callback(lambda: subprocess.run(["umount", "-l", place], check=True, timeout=10))
    (place / "private").mkdir(mode=0o700)
    os.chown(place / "private", 65534, 65534)


def _attach_without_holder(stack: contextlib.ExitStack) -> None:
    """A program that only a cgroup holds; it goes with the cgroup."""
    directory = Path(cgroup2(), f"test-prometheus-{os.getpid()}")
    directory.mkdir()
    stack.callback(directory.rmdir)
    with Loader() as loader:
        program = loader.program("cgroup_skb", 1, "unheld", attach="cgroup_inet_ingress")
        cgroup = loader.keep(os.open(directory, os.O_RDONLY | os.O_CLOEXEC))
        bpf.bpf(bpf.PROG_ATTACH, struct.pack("=IIIII", cgroup, program, attach_type("cgroup_inet_ingress"), 0, 0))


class _Busy(threading.Thread):
    """Runs a program now and then, and talks to the agent in what is not HTTP."""

    def __init__(self, loader: Loader, agent: int) -> None:
        super().__init__(name="busy", daemon=True)
        self._program = loader.program("socket_filter", 0, "busy")
        self._loader = loader
        self._agent = agent
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            self._loader.run(self._program, 1000)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._agent), timeout=2) as connection:
                connection.sendall(b"\x16\x03\x01 is how TLS begins\r\n\r\n")
                connection.recv(1000)

    def stop(self) -> None:
        self._ended.set()
        self.join(10)


class Monitored(NamedTuple):
    """An agent, and the Prometheus that scrapes it."""

    prometheus: prometheus.Prometheus
    page: str  # the agent's URL
    loaded: dict[str, Any]  # what bpfload said: its pid, and the ids of its objects


def _start_agent(processes: Processes, folder: Path, port: int) -> None:
    receiver = processes.start(sys.executable, "-m", "tests.system.receiver", log=folder / "receiver.log")
    assert receiver.stdout
    otlp = f"127.0.0.1:{receiver.stdout.readline().strip()}"
    command = ("--interval", "1s", "--prometheus", f"127.0.0.1:{port}", "--otlp-grpc", otlp, "--sources", "bpf,agent")
    # Root, less the right to read what belongs to others: one folder of the BPF file system is denied.
    without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    environment = {"OTEL_HOSTMETRICS_BPF__STATS": "on", "OTEL_HOSTMETRICS_BPF__SLOW_INTERVAL": "2s"}
    processes.start(*without, sys.executable, "-m", "otel_hostmetrics", *command, log=folder / "agent.log", **environment)
    until(f"http://127.0.0.1:{port}/-/ready")


def _start_rdma_agent(processes: Processes, folder: Path) -> int:
    """Over two recorded hosts in one tree, an InfiniBand adapter and soft-RoCE; gives its port."""
    root, port = folder / "rdma", free_port()
    for host in ("rdma-mlx5-ib", "rdma-rxe"):
        unpack(host, root)
    command = ("--root", root, "--interval", "1s", "--prometheus", f"127.0.0.1:{port}", "--sources", "rdma", "--no-source", "agent")
    processes.start(sys.executable, "-m", "otel_hostmetrics", *command, log=folder / "rdma.log")
    until(f"http://127.0.0.1:{port}/-/ready")
    return port


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    need(_missing())
    folder = tmp_path_factory.mktemp("prometheus")
    agent = free_port()
    with Processes() as processes:
        _mount_bpffs(processes, folder / "bpffs")
        _attach_without_holder(processes)
        bulk = ("--progs", "20", "--maps", "20", "--links", "5", "--zoo", "--pin", folder / "bpffs")
        objects = processes.start(sys.executable, "tests/live/bpfload.py", *bulk, log=folder / "bpfload.log")
        assert objects.stdout
        loaded = json.loads(objects.stdout.readline())
        _start_agent(processes, folder, agent)
        busy = _Busy(processes.enter_context(Loader()), agent)
        busy.start()
        processes.callback(busy.stop)
        recorded = processes.enter_context(Served(page(folder / "recorded")))
        targets = {_JOB: [agent], "rdma": [_start_rdma_agent(processes, folder), recorded.port]}
        yield Monitored(prometheus.start(processes, folder, targets), f"http://127.0.0.1:{agent}/metrics", loaded)


@pytest.mark.parametrize("query", queries(*_BOARDS), ids=str)
def test_every_query_of_the_dashboards_has_an_answer(monitored: Monitored, query: Query) -> None:
    monitored.prometheus.answer(query)


def test_prometheus_takes_every_line_of_the_page(monitored: Monitored) -> None:
    targets = monitored.prometheus.ask("targets", state="active")["activeTargets"]
    assert {(target["health"], target["lastError"]) for target in targets} == {("up", "")}
    lines = get(monitored.page).decode().splitlines()
    samples = sum(not line.startswith("#") for line in lines)
    assert monitored.prometheus.values(f'scrape_samples_scraped{{job="{_JOB}"}}')[0] == pytest.approx(samples, rel=0.1)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ('bpf_cgroup_program{bpf_program_held="false", bpf_program_name="unheld", bpf_attach_type="cgroup_inet_ingress"}', 1),
        ('sum(bpf_program_run_count_total{bpf_program_name="busy"}) >= bool 1000', 1),
        ('otel_hostmetrics_source_status{otel_hostmetrics_source_name="bpf", otel_hostmetrics_source_state="partial"}', 1),
        ('otel_hostmetrics_source_problems_total{error_type="denied"} > bool 0', 1),
    ],
)
def test_prometheus_shows_what_was_made(monitored: Monitored, expr: str, expected: float) -> None:
    assert monitored.prometheus.values(expr) == [expected]


@pytest.mark.parametrize("kind", ["program", "map", "link"])
def test_prometheus_shows_each_object_of_a_process(monitored: Monitored, kind: str) -> None:
    """Others may load objects meanwhile: count those of the process that we know."""
    expected = [len(monitored.loaded["ids"][kind])]
    matchers = f'process_pid="{monitored.loaded["pid"]}", bpf_object_type="{kind}"'
    assert monitored.prometheus.values(f"count(bpf_object_holder{{{matchers}}})") == expected
    held = f'label_replace(bpf_object_holder{{{matchers}}}, "id", "$1", "bpf_object_id", "(.*)")'
    assert monitored.prometheus.values(f"count(bpf_{kind}_info and on (id) {held})") == expected
    pins = f'label_replace(bpf_object_pin{{bpf_object_type="{kind}", bpf_pin_path=~".*/bpffs/.*"}}, "id", "$1", "bpf_object_id", "(.*)")'
    assert monitored.prometheus.values(f"count({pins} and on (id) {held})") == expected


def test_promtool_finds_nothing_to_say_of_the_page(monitored: Monitored) -> None:
    """Types, names and help of the exposition."""
    checked = subprocess.run(["promtool", "check", "metrics"], input=get(monitored.page), capture_output=True, timeout=30, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_every_alert_can_be_evaluated(monitored: Monitored) -> None:
    deadline = time.monotonic() + 15
    while True:
        rules = [rule for group in monitored.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] == "ok" for rule in rules) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert rules
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
