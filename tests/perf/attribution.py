"""What it costs to split energy by workload, on hosts with 30, 300 and 3 000 containers that all use the processors.

Cgroups are real, one for each pod and one for its container; before each cycle their last numbers are set back, so that
every container used CPU time and every pod exactly its container's. Energy of a package and of its memory comes from memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

from otel_hostmetrics.attribution import Attribution
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.cgroup_cpu import Cgroup, CgroupTimes
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Attribution as Settings
from tests.perf.measure import Bound, Cost, Mode, Report, Subject, compare, in_process

_SIZES = (30, 300, 3_000)
_TARGET = Bound(3)  # CPU us per cgroup
_FLOOR = "pread of every cgroup's file"
_TIMES = 5  # cycles in a sample
_MS = 1_000_000  # ns
_SERIES = (
    hardware.ENERGY.series({"hw.id": "package-0", "hw.type": "cpu"}),
    hardware.ENERGY.series({"hw.id": "package-0/dram", "hw.type": "memory"}),
)


def run(mode: Mode) -> Report:
    report = Report()
    try:
        directory = _directory()
    except Unavailable as reason:
        report.skipped.append(f"attribution: {reason}")
        return report
    if os.geteuid() != 0:
        report.skipped.append("attribution: cgroups take root")
        return report
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for size in _SIZES[: 2 if mode.quick else None]:
        with _containers(directory, size) as paths, contextlib.ExitStack() as stack:
            host = Host(stack, size)
            subjects = [
                Subject(_FLOOR, in_process(_reads(stack, paths), len(paths), mode.seconds)),
                Subject("nobody used anything", in_process(host.cycle, len(paths), mode.seconds), _TARGET, _FLOOR),
                Subject("every container used something", partial(host.busy, _TIMES), _TARGET, _FLOOR),
            ]
            report.results += compare(f"energy of {size} containers, in as many pods", "us/cgroup", subjects, mode.rounds)
    return report


class Host:
    """The stage, opened, with counters that grow."""

    def __init__(self, stack: contextlib.ExitStack, size: int) -> None:
        self._stage = Attribution(HostFS(), Settings())
        self._size = size
        self._joules = 0.0
        stack.callback(self._stage.close)
        self._give()
        self._stage.open()
        self.cycle()
        times = self._stage._times
        assert times
        self._cgroups = {each: self._containers(each) for each in times.cgroups}

    def _give(self) -> None:
        self._joules += 100
        self._stage.take({"rapl": {hardware.ENERGY: Column(_SERIES, (self._joules, self._joules / 10))}})

    def cycle(self) -> None:
        self._give()
        self._last = self._stage.read()

    def busy(self, times: int) -> Cost:
        """Each cycle is measured alone: setting numbers back is no part of it."""
        cpu = wall = 0.0
        for _ in range(times):
            self._set_back()
            cpu -= time.process_time()
            wall -= time.perf_counter()
            self.cycle()
            cpu += time.process_time()
            wall += time.perf_counter()
        assert len(self._last.columns[rows.WORKLOAD].series) >= 2 * self._size
        units = times * len(self._cgroups) / 1e6
        return Cost(cpu / units, wall / units)

    def _set_back(self) -> None:
        for each, containers in self._cgroups.items():
            each.seen -= containers * _MS

    def _containers(self, cgroup: Cgroup) -> int:
        """How many are in it."""
        below = sum(map(self._containers, cgroup.children.values()))
        return below or cgroup.contained


@contextlib.contextmanager
def _containers(directory: str, count: int) -> Iterator[list[str]]:
    """A file for each cgroup."""
    top = f"{directory}/perf-{os.getpid()}"
    try:
        for number in range(count):
            os.makedirs(f"{top}/pod{number:08x}-0000-4000-8000-000000000000/{number:064x}")
        name = "cpuacct.usage" if os.path.exists(f"{top}/cpuacct.usage") else "cpu.stat"
        yield [f"{path}/{name}" for path, _, _ in os.walk(top)]
    finally:
        for path, _, _ in os.walk(top, topdown=False):
            os.rmdir(path)


def _reads(stack: contextlib.ExitStack, paths: list[str]) -> Callable[[], None]:
    descriptors = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
    for each in descriptors:
        stack.callback(os.close, each)

    def read() -> None:
        for each in descriptors:
            os.pread(each, 32, 0)

    return read


def _directory() -> str:
    """Raises Unavailable."""
    times = CgroupTimes(HostFS(), Budget(0), 1)
    times.close()
    return times.directory
