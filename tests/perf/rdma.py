"""What RDMA counters cost at one scrape a second, as processes: this agent, Debian's node_exporter, and C that does the least.

The host is a made-up one (tests/hosts/gentree.py): 1, 8 and 16 devices of 53 counters, and 8 RAPL zones; and once more 16
devices whose counters are statistics that this machine's kernel writes when they are read. The agent runs as
a user starts it; then also with every counter in every cycle, where by default rare errors have their own pace, and with no
more metrics than node_exporter has. That has its infiniband and rapl collectors only. Each is scraped over a connection of its
own, once a second, in the same seconds.
"""

from __future__ import annotations

import contextlib
import glob
import http.client
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from otel_hostmetrics import settings
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.rdma.present import Present
from tests.hosts.gentree import generate
from tests.perf.measure import NOISE, Bound, Mode, Report, Result

CHECKOUT = Path(__file__).parents[2]
_C_FLOOR = Path(__file__).with_name("sysfs_floor.c")
_AGENT, _ALWAYS, _PLAIN = "this agent", "this agent, all counters each time", "this agent, all counters, one series each"
_NODE, _FLOOR = "node_exporter", "C: pread and send"
_DEVICES = (1, 8, 16)
_SYSFS = "/sys/class/net/*/statistics/*"  # of any machine, readable by everybody, one number each
_READY = re.compile(rb"http://127\.0\.0\.1:(\d+)/metrics")
_STARTS = 20.0  # s
_SLACK = 2.0
_TEXT = {"Accept": "text/plain;version=0.0.4"}


class Tree(NamedTuple):
    """A host. *real*: its counters are files of the running kernel's sysfs, not of a tmpfs."""

    devices: int
    real: bool = False

    @property
    def title(self) -> str:
        return f"RDMA, {self.devices} devices{', counters of sysfs' if self.real else ''}"

    @property
    def bound(self) -> bool:
        """Whether the targets are meant for it."""
        return self.devices == _DEVICES[-1]

    @contextlib.contextmanager
    def made(self, root: Path) -> Iterator[None]:
        """Below *root*. Raises CalledProcessError where mounting is not allowed."""
        root.mkdir()
        generate(root, self.devices)
        with _sysfs_in(root) if self.real else contextlib.nullcontext():
            yield


class Subject(NamedTuple):
    """A process that is scraped. *clock* is its CPU time, as clock_getcpuclockid(3) has it."""

    name: str
    clock: int
    connection: http.client.HTTPConnection

    def scrape(self) -> int:
        """Length of the page."""
        self.connection.request("GET", "/metrics", headers=_TEXT)
        return len(self.connection.getresponse().read())


def run(mode: Mode) -> Report:
    report = Report()
    cycles, windows = (5, 2) if mode.quick else (10, 4)  # a multiple of the number of subjects
    with tempfile.TemporaryDirectory(dir=_memory()) as directory:
        starters = _starters(Path(directory), report)
        for number, tree in enumerate([Tree(16)] if mode.quick else [*map(Tree, _DEVICES), Tree(16, real=True)]):
            root = Path(directory) / str(number)
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(tree.made(root))
                except subprocess.CalledProcessError as error:
                    report.skipped.append(f"{tree.title}: {error.stderr.strip().splitlines()[0]}")
                    continue
                report.results += _tree(tree, root, starters, cycles, windows)
    return report


def _tree(tree: Tree, root: Path, starters: Mapping[str, _Start], cycles: int, windows: int) -> list[Result]:
    with contextlib.ExitStack() as stack:
        subjects = [Subject(name, *stack.enter_context(start(root))) for name, start in starters.items()]
        samples = _measure(subjects, cycles, windows)
    return [*_results(tree, samples), _spread(root, tree, cycles)]


@contextlib.contextmanager
def _sysfs_in(root: Path) -> Iterator[None]:
    """Statistics of the kernel's network interfaces in place of the counters; there are fewer, so each stands for several.

    By mounts: node_exporter leaves out what is a symbolic link.
    """
    files = itertools.cycle(sorted(glob.glob(_SYSFS)))
    counters = [path for path in sorted(root.glob("sys/devices/*/*/infiniband/*/ports/*/*counters/*")) if path.name != "lifespan"]
    table = root / "fstab"
    table.write_text("".join(f"{next(files)} {path} none bind 0 0\n" for path in counters))
    _run("mount", "--bind", root, root)  # so that one command takes all of them away
    try:
        _run("mount", "-a", "-T", table)
        yield
    finally:
        _run("umount", "-R", "-l", root)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


def _spread(root: Path, tree: Tree, cycles: int) -> Result:
    """Wall time from before the first counter to after the last one, once a second in this process: how far apart they are at most."""
    source = Present(HostFS(str(root)), Settings(rdma=settings.Rdma(netlink=False)))
    source.open()
    try:
        source.read()
        samples = []
        for _ in range(cycles):
            time.sleep(1)
            begin = time.perf_counter()
            source._counters._sweep.read()
            samples.append((time.perf_counter() - begin) * 1e3)
    finally:
        source.close()
    bound = Bound(0.5, NOISE) if tree.bound else None
    return Result(f"{tree.title}: all counters read within", "this agent", "ms", samples, None, bound)


def _memory() -> str | None:
    """A tmpfs, so that no disk takes part."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


_Start = Callable[[Path], contextlib.AbstractContextManager[tuple[int, http.client.HTTPConnection]]]


def _starters(directory: Path, report: Report) -> dict[str, _Start]:
    found: dict[str, _Start] = {
        _AGENT: _agent,
        _ALWAYS: lambda root: _agent(root, always=True),
        _PLAIN: lambda root: _agent(root, "--include", "rdma_*,rapl_*", always=True),
    }
    if program := shutil.which("prometheus-node-exporter"):
        found[_NODE] = lambda root: _node_exporter(program, root)
    else:
        report.skipped.append("node_exporter: not installed (Debian: prometheus-node-exporter)")
    if compiler := shutil.which("cc"):
        floor = str(directory / "sysfs_floor")
        subprocess.run([compiler, "-O2", "-o", floor, str(_C_FLOOR)], check=True)
        found[_FLOOR] = lambda root: _floor(floor, root)
    else:
        report.skipped.append("C floor: no C compiler (cc)")
    return found


def _measure(subjects: Sequence[Subject], cycles: int, windows: int) -> dict[str, list[float]]:
    """CPU microseconds per second of each, in each window; the first window warms up."""
    samples: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for window in range(windows + 1):
        before = {subject.name: time.clock_gettime(subject.clock) for subject in subjects}
        begin = time.monotonic()
        for cycle in range(1, (cycles if window else 3) + 1):
            first = cycle % len(subjects)  # who comes first finds the processor asleep: that is each one's turn
            for subject in (*subjects[first:], *subjects[:first]):
                if not subject.scrape():
                    raise RuntimeError(f"{subject.name} answered with an empty page")
            time.sleep(max(begin + cycle - time.monotonic(), 0))
        for subject in subjects if window else ():
            spent = time.clock_gettime(subject.clock) - before[subject.name]
            samples[subject.name].append(spent / cycles * 1e6)
    return samples


def _results(tree: Tree, samples: dict[str, list[float]]) -> Iterator[Result]:
    """The targets are ratios at 16 devices: a third of node_exporter, twice the floor."""
    against = {_NODE: 1 / 3, _FLOOR: 2.0}
    for name, own in samples.items():
        yield Result(f"{tree.title}, scraped at 1 Hz", name, "us/s", own)
    for other, target in against.items():
        for name in (_AGENT, _ALWAYS, _PLAIN) if other in samples else ():
            ratios = [one / two for one, two in zip(samples[name], samples[other], strict=True)]
            bound = Bound(target, _SLACK) if tree.bound and name == _AGENT else None
            yield Result(f"{tree.title}: ratio to {other}", name, "", ratios, None, bound)


@contextlib.contextmanager
def _agent(root: Path, *options: str, always: bool = False) -> Iterator[tuple[int, http.client.HTTPConnection]]:
    command = [sys.executable, "-m", "otel_hostmetrics", "--root", str(root), "--interval", "1h", "--prometheus", "127.0.0.1:0"]
    command += ["--sources", "rdma,rapl", "--no-source", "agent", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment |= {"OTEL_HOSTMETRICS_PROMETHEUS__MAX_AGE": "1ms", **({"OTEL_HOSTMETRICS_RDMA__SLOW_COUNTERS": ""} if always else {})}
    with _process(command, subprocess.PIPE, environment) as process:
        assert process.stderr
        seen = b""
        for line in process.stderr:
            if ready := _READY.search(line):
                yield _clock(process), http.client.HTTPConnection("127.0.0.1", int(ready[1]), timeout=10)
                return
            seen += line
        raise RuntimeError(f"the agent did not start: {seen.decode(errors='replace')}")


@contextlib.contextmanager
def _node_exporter(program: str, root: Path) -> Iterator[tuple[int, http.client.HTTPConnection]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--collector.disable-defaults", "--collector.infiniband", "--collector.rapl", "--web.disable-exporter-metrics"]
    command += [f"--path.sysfs={root}/sys", f"--web.listen-address=127.0.0.1:{port}"]
    with _process(command, subprocess.DEVNULL) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        begin = time.monotonic()
        while connection.sock is None:
            with contextlib.suppress(ConnectionRefusedError):
                connection.connect()
            if time.monotonic() - begin > _STARTS:
                raise RuntimeError("node_exporter did not start")
            time.sleep(0.05)
        yield _clock(process), connection


@contextlib.contextmanager
def _floor(program: str, root: Path) -> Iterator[tuple[int, http.client.HTTPConnection]]:
    with subprocess.Popen([program, str(root)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())
            yield _clock(process), http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        finally:
            process.kill()


@contextlib.contextmanager
def _process(command: Sequence[str], stderr: int, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, stderr=stderr)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _clock(process: subprocess.Popen[bytes]) -> int:
    """clock_getcpuclockid(3): CPU time of a process with all its threads, in nanoseconds."""
    return ~process.pid << 3 | 2
