"""What eight energy zones cost when they are scraped: the agent, node_exporter's rapl collector, and C.

One connection each. All run all the time and are scraped one after the other, so each sample of one has its like of the
others: in every second, as the targets are meant, and as quickly as it goes with the caches emptied in between, where also
an answer without any zone is asked for. Counters grow before each scrape, and each scrape reads them: an agent that may
answer from a snapshot of the last second (``prometheus.max_age``) would be spared half of the work. Metrics of the exporters
about themselves are off. The agent runs twice: with all it says of a zone (power, components, wraps, resets), and with the
counters only that the others have.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from otel_hostmetrics.catalogue import energy
from tests.perf.caches import Caches
from tests.perf.measure import Bound, Mode, Report, Result

CHECKOUT = Path(__file__).parents[2]
_FLOOR = Path(__file__).with_name("rapl_floor.c")
_OURS, _ALIKE = "otel-hostmetrics", "... the same counters only"
_NODE, _C = "node_exporter, rapl", "C floor"
_ZONES = [(package, kind) for package in (0, 1) for kind in ("package", "core", "uncore", "dram")]
_CASE = f"{len(_ZONES)} RAPL zones scraped"
_WARM_UP = 3  # s
# The agent's share of node_exporter's time, and of C's. Ratios move less than times; the slack is for our HTTP server, which
# costs more than all the rest.
_TARGETS = ((_NODE, Bound(0.5)), (_C, Bound(2.5, 8)))


class Subject(NamedTuple):
    """A program that is scraped."""

    name: str
    process: subprocess.Popen[bytes]
    connection: http.client.HTTPConnection
    alive: str  # a path that costs nothing but HTTP

    def scrape(self) -> None:
        if self._get("/metrics").count(b"joules_total{") < len(_ZONES):
            raise RuntimeError(f"{self.name}: a page without {len(_ZONES)} energy counters")

    def ask(self) -> None:
        self._get(self.alive)

    def _get(self, path: str) -> bytes:
        self.connection.request("GET", path)
        return self.connection.getresponse().read()

    def cpu(self) -> float:
        """Seconds. clock_getcpuclockid(3): of another process, threads that have ended included."""
        return time.clock_gettime(~self.process.pid << 3 | 2)


def run(mode: Mode) -> Report:
    report = Report()
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        counters = Counters(root)
        subjects = list(_subjects(stack, root, counters, report))
        _each_second(subjects, counters, _WARM_UP)
        seconds = 3 if mode.quick else 5
        windows = [_window(subjects, counters, seconds) for _ in range(mode.rounds)]
        report.results += _results(f"{_CASE} at 1 Hz", {name: [window[name] for window in windows] for name in windows[0]}, _TARGETS)
        alive, scraped = _cold(subjects, counters, 10 if mode.quick else 60)
    report.results += _results(f"{_CASE}, caches emptied", scraped, ())
    report.results += [Result("... no zone: HTTP only", name, "us/cycle", samples) for name, samples in alive.items()]
    return report


def _subjects(stack: contextlib.ExitStack, root: Path, counters: Counters, report: Report) -> Iterator[Subject]:
    yield _ours(stack, root, _OURS)
    yield _ours(stack, root, _ALIKE, "--include", energy.ENERGY.name)
    if node := shutil.which("prometheus-node-exporter") or shutil.which("node_exporter"):
        yield _node(stack, root, node)
    else:
        report.skipped.append("node_exporter: not installed (Debian: prometheus-node-exporter)")
    if compiler := shutil.which("cc"):
        program = root / "floor"
        subprocess.run([compiler, "-O2", "-o", str(program), str(_FLOOR)], check=True)
        yield _floor(stack, program, [str(file) for file in counters.files])
    else:
        report.skipped.append("C floor: no C compiler (cc)")


def _results(case: str, samples: dict[str, list[float]], targets: Sequence[tuple[str, Bound]]) -> Iterator[Result]:
    for name, times in samples.items():
        yield Result(case, name, "us/cycle", times)
    for ours, other in itertools.product((_OURS, _ALIKE), [name for name in samples if name not in (_OURS, _ALIKE)]):
        ratios = [mine / theirs for mine, theirs in zip(samples[ours], samples[other], strict=True)]
        yield Result(case, f"{ours} / {other}", "ratio", ratios, bound=dict(targets).get(other))


def _window(subjects: Sequence[Subject], counters: Counters, seconds: int) -> dict[str, float]:
    """CPU time of each per second, in microseconds."""
    before = [subject.cpu() for subject in subjects]
    _each_second(subjects, counters, seconds)
    return {subject.name: (subject.cpu() - begun) / seconds * 1e6 for subject, begun in zip(subjects, before, strict=True)}


def _each_second(subjects: Sequence[Subject], counters: Counters, seconds: int) -> None:
    """In turns, each second in another order: the first wakes the machine up, and finds in its caches what the last one left."""
    begin = time.monotonic()
    for second in range(1, seconds + 1):
        counters.grow()
        for subject in random.sample(subjects, len(subjects)):
            subject.scrape()
            time.sleep(0.02)  # let it finish before the next one begins
        time.sleep(max(begin + second - time.monotonic(), 0))


def _cold(subjects: Sequence[Subject], counters: Counters, turns: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """CPU time in microseconds of each subject in each turn, of HTTP alone and of a scrape."""
    caches, names = Caches(), [subject.name for subject in subjects]
    alive, scraped = ({name: [0.0] * turns for name in names} for _ in range(2))
    for turn in range(turns):
        counters.grow()
        for subject in random.sample(subjects, len(subjects)):
            for request, samples in ((subject.ask, alive), (subject.scrape, scraped)):
                caches.empty()
                before = subject.cpu()
                request()
                time.sleep(0.002)  # let it finish
                samples[subject.name][turn] = (subject.cpu() - before) * 1e6
    return alive, scraped


class Counters:
    """Two sockets of four zones as powercap shows them, on tmpfs. *files* are those of the counters."""

    def __init__(self, root: Path) -> None:
        self.files: list[Path] = []
        self._microjoules = 10**10
        link = root / "sys/class/powercap"
        link.mkdir(parents=True)
        (root / "proc").mkdir()
        for number, (package, kind) in enumerate(_ZONES):
            zone = f"intel-rapl:{package}" if kind == "package" else f"intel-rapl:{package}:{number % 4 - 1}"
            path = root / f"sys/devices/virtual/powercap/intel-rapl/intel-rapl:{package}" / ("" if kind == "package" else zone)
            path.mkdir(parents=True, exist_ok=True)
            (path / "name").write_text(f"package-{package}\n" if kind == "package" else f"{kind}\n")
            (path / "max_energy_range_uj").write_text("262143328850\n")
            (link / zone).symlink_to(os.path.relpath(path, link))
            self.files.append(path / "energy_uj")
        self.grow()

    def grow(self) -> None:
        """By some 60 J, another amount each."""
        self._microjoules += 61_234_567
        for number, file in enumerate(self.files):
            file.write_text(f"{self._microjoules + 1_300_007 * number}\n")


def _started(stack: contextlib.ExitStack, command: Sequence[str], **streams: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, **streams)  # type: ignore[call-overload]
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process  # type: ignore[no-any-return]


def _connected(name: str, process: subprocess.Popen[bytes], port: int, alive: str = "/health") -> Subject:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(100):
        with contextlib.suppress(ConnectionRefusedError):
            connection.connect()
            return Subject(name, process, connection, alive)
        time.sleep(0.05)
    raise RuntimeError(f"{name} does not listen")


def _ours(stack: contextlib.ExitStack, root: Path, name: str, *options: str) -> Subject:
    """Its own cycles are far apart: it is the scrapes that it reads for, as the others do."""
    (root / "agent.yaml").write_text("prometheus:\n  max_age: 1ms\n")
    command = [
        sys.executable,
        "-m",
        "otel_hostmetrics",
        "--sources",
        "rapl",
        "--no-source",
        "agent",
        "--root",
        str(root),
        "--config",
        str(root / "agent.yaml"),
        *options,
    ]
    process = _started(stack, [*command, "--interval", "20s", "--prometheus", "127.0.0.1:0"], stderr=subprocess.PIPE)
    assert process.stderr
    return _connected(name, process, _port(process.stderr))


def _port(errors: IO[bytes]) -> int:
    seen = b""
    for line in errors:
        if match := re.search(rb"http://127\.0\.0\.1:(\d+)/metrics", line):
            return int(match[1])
        seen += line
    raise RuntimeError(f"the agent did not start: {seen.decode(errors='replace')}")


def _node(stack: contextlib.ExitStack, root: Path, program: str) -> Subject:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--collector.disable-defaults", "--collector.rapl", f"--path.sysfs={root}/sys", "--web.disable-exporter-metrics"]
    return _connected(_NODE, _started(stack, [*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL), port, "/")


def _floor(stack: contextlib.ExitStack, program: Path, files: Sequence[str]) -> Subject:
    process = _started(stack, [str(program), *files], stdout=subprocess.PIPE)
    assert process.stdout
    return _connected(_C, process, int(process.stdout.readline()))
