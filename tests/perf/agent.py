"""What the agent itself costs at one cycle a second, as a process: memory, threads and CPU time per cycle.

On this host as it is, and with 1,001 BPF objects more, about 11,000 series. Every source and metric is at its default.
Scraped once a second over one connection, as Prometheus does it: OpenMetrics, gzip. The receiver is another process.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple, Self

from tests.perf.bpf import CHECKOUT, loaded, obstacle
from tests.perf.measure import NOISE, Bound, Mode, Report, Result

_OBJECTS = 1_001
_STEADY = 1.25  # memory does not depend on the machine's load, but on the versions of Python and libc
_SCRAPE = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "Accept-Encoding": "gzip"}
_READY = re.compile(rb'msg="otel-hostmetrics \S+ runs: (.*)"')


class Setup(NamedTuple):
    """One way to run the agent."""

    name: str
    prometheus: bool
    otlp: bool
    pipeline: str = "native"
    memory: float | None = None  # target, MiB resident


SETUPS = (
    Setup("Prometheus", True, False, memory=24),
    Setup("OTLP", False, True, memory=30),
    Setup("both", True, True, memory=30),
    Setup("Prometheus, --pipeline sdk", True, False, "sdk"),
    Setup("OTLP, --pipeline sdk", False, True, "sdk"),
    Setup("both, --pipeline sdk", True, True, "sdk"),
)


class Sample(NamedTuple):
    """One window of cycles."""

    cpu: float
    resident: float
    unshared: float  # what would be free without this process
    threads: int


_UNITS = ("ms/cycle", "MiB", "MiB", "")


class _Pace(NamedTuple):
    """How long to watch."""

    rounds: int
    windows: int
    cycles: int  # of a window, whose mean is one sample
    warm_up: int = 3  # cycles


_FULL, _BARE, _QUICK = _Pace(2, 2, 5), _Pace(1, 1, 5), _Pace(1, 1, 3)


def run(mode: Mode) -> Report:
    if why := obstacle():
        return Report(skipped=[f"the agent: {why}"])
    native = [setup for setup in SETUPS if setup.pipeline == "native"]
    bare = _measure_all(native, _QUICK if mode.quick else _BARE)
    with loaded(_OBJECTS):
        busy = _measure_all(native if mode.quick else SETUPS, _QUICK if mode.quick else _FULL)
    return Report([*_results("this host", bare, _STEADY), *_results(f"{_OBJECTS} BPF objects more", busy, NOISE)])


def _measure_all(setups: Sequence[Setup], pace: _Pace) -> dict[Setup, list[Sample]]:
    samples: dict[Setup, list[Sample]] = {setup: [] for setup in setups}
    for _ in range(pace.rounds):
        for setup in setups:
            samples[setup] += _measure(setup, pace)
    return samples


def _results(host: str, samples: dict[Setup, list[Sample]], slack: float) -> Iterator[Result]:
    for quantity, unit in zip(Sample._fields, _UNITS, strict=True):
        figures = {setup: [getattr(sample, quantity) for sample in taken] for setup, taken in samples.items()}
        for setup, own in figures.items():
            bound = Bound(setup.memory, slack) if setup.memory and quantity == "resident" else None
            stock = next((each for each in figures if each.pipeline == "sdk" and setup.name == each.name.split(",")[0]), None)
            ratio = median(figures[stock]) / median(own) if stock else None
            yield Result(f"agent, {host}: {quantity}", setup.name, unit, own, None, bound, stock and stock.name, ratio)


def _measure(setup: Setup, pace: _Pace) -> list[Sample]:
    with contextlib.ExitStack() as stack:
        receiver = stack.enter_context(_Receiver()) if setup.otlp else None
        agent = stack.enter_context(_Agent(setup, receiver.port if receiver else 0))
        agent.live(pace.warm_up)
        samples = [agent.window(pace.cycles) for _ in range(pace.windows)]
    if receiver and receiver.requests < pace.windows * pace.cycles:
        raise RuntimeError(f"{setup.name}: {receiver.requests} requests in {pace.windows * pace.cycles} cycles and more")
    return samples


class _Receiver:
    """receiver.py in a process of its own."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.perf.receiver"]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_exception: object) -> None:
        output, _ = self._process.communicate(timeout=10)
        self.requests = int(output)


class _Agent:
    """The agent as a user starts it."""

    def __init__(self, setup: Setup, port: int) -> None:
        command = [sys.executable, "-m", "otel_hostmetrics", "--interval", "1s", "--pipeline", setup.pipeline]
        command += ["--prometheus", "127.0.0.1:0"] if setup.prometheus else []
        command += ["--otlp-grpc", f"127.0.0.1:{port}"] if setup.otlp else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        self._process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stderr=subprocess.PIPE)
        # clock_getcpuclockid(3): of any process, in nanoseconds, threads that have ended included
        self._clock = ~self._process.pid << 3 | 2
        self._scraper: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        exits = self._exits()
        if address := re.search(rb"http://([\w.]+):(\d+)/metrics", exits):
            self._scraper = http.client.HTTPConnection(address[1].decode(), int(address[2]), timeout=10)
        return self

    def _exits(self) -> bytes:
        assert self._process.stderr
        seen = b""
        for line in self._process.stderr:
            if ready := _READY.search(line):
                return ready[1]
            seen += line
        raise RuntimeError(f"the agent did not start: {seen.decode(errors='replace')}")

    def live(self, cycles: int) -> None:
        """Let that many seconds pass, with a scrape in each."""
        begin = time.monotonic()
        for number in range(1, cycles + 1):
            if self._scraper:
                self._scrape(self._scraper)
            time.sleep(max(begin + number - time.monotonic(), 0))

    def _scrape(self, scraper: http.client.HTTPConnection) -> None:
        scraper.request("GET", "/metrics", headers=_SCRAPE)
        page = scraper.getresponse().read()
        if not page:
            raise RuntimeError("the agent answered a scrape with an empty page")

    def window(self, cycles: int) -> Sample:
        """Measure the next *cycles*."""
        before = time.clock_gettime(self._clock)
        self.live(cycles)
        spent = time.clock_gettime(self._clock) - before
        status, rollup = self._proc("status"), self._proc("smaps_rollup")
        unique = rollup["Private_Clean"] + rollup["Private_Dirty"]
        return Sample(spent / cycles * 1e3, status["VmRSS"] / 1024, unique / 1024, status["Threads"])

    def _proc(self, name: str) -> dict[str, int]:
        with open(f"/proc/{self._process.pid}/{name}", encoding="utf-8", errors="replace") as file:
            return {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+)(?: kB)?$", file.read(), re.MULTILINE)}

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
