"""Energy of real cgroups: processes that live for a millisecond, readings of the running kernel, joules that the test makes up."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_hostmetrics.attribution import Attribution
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.kernel import proc_stat
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Attribution as Settings
from otel_hostmetrics.sources.rapl import Rapl
from otel_hostmetrics.telemetry import Telemetry
from tests.live import cgroups
from tests.sources import energy_hosts

SHORT, LONG = "5c" * 32, "10" * 32  # container ids
WATTS = 50
SECONDS = 5


class Host:
    """The running kernel's cgroups and /proc/stat, and zones of RAPL that take 50 W."""

    def __init__(self, root: Path, cgroups: str) -> None:
        self.fs = energy_hosts.host("two-sockets", root)
        Path(self.fs.sys("fs")).mkdir()
        Path(self.fs.sys("fs/cgroup")).symlink_to(cgroups)
        for name in ("stat", "self"):
            Path(self.fs.proc(name)).symlink_to(f"/proc/{name}")
        self._energy = energy_hosts.zone(self.fs, "intel-rapl:0") / "energy_uj"
        self._at = time.monotonic()
        rapl, self._stage = Rapl(self.fs, energy_hosts.settings()), Attribution(self.fs, Settings())
        self._collector = Collector([rapl, self._stage], None, (*rapl.metrics, *rows.ALL), Telemetry(), 2, 10_000)

    def cycle(self) -> Reading:
        now = time.monotonic()
        energy_hosts.add(self._energy, int((now - self._at) * WATTS * 1e6))
        self._at = now
        return self._collector.collect().readings[self._stage.name]

    def close(self) -> None:
        self._collector.close()


@pytest.fixture(params=["", "/unified"], ids=["as mounted", "v2 of a hybrid host"])
def mount(request: pytest.FixtureRequest) -> str:
    """What is to be taken for /sys/fs/cgroup."""
    path = f"/sys/fs/cgroup{request.param}"
    if not os.path.exists(path):
        pytest.skip("cgroup v1 and v2 are not both mounted")
    return path


@pytest.fixture
def host(tmp_path: Path, mount: str) -> Iterator[Host]:
    host = Host(tmp_path, mount)
    yield host
    host.close()


@pytest.fixture
def top(host: Host) -> Iterator[str]:
    """A cgroup of ours with all below it gone at the end."""
    path = f"{cgroups.accounted(host.fs)}/test-{os.getpid()}"
    os.mkdir(path)
    yield path
    for each, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(each)


@contextlib.contextmanager
def running(directory: str, script: str) -> Iterator[None]:
    """A shell in a new cgroup; killed with the processes it started."""
    os.makedirs(directory)
    command = ["sh", "-c", f"echo 0 > {directory}/cgroup.procs; {script}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, 9)
            process.wait()
            deadline = time.monotonic() + 5
            while Path(directory, "cgroup.procs").read_text() and time.monotonic() < deadline:
                time.sleep(0.01)


def joules(reading: Reading, metric_name: str, name: str = "") -> float:
    return sum(
        float(value)  # type: ignore[arg-type]
        for metric, column in reading.columns.items()
        if metric.name == metric_name
        for each, value in zip(column.series, column.values, strict=True)
        if each.attributes[rows.COMPONENT] == rows.CPU and each.attributes.get(rows.NAME, "") == name
    )


def used(directory: str) -> int:
    """ns."""
    v1 = Path(directory, "cpuacct.usage")
    return int(v1.read_text()) if v1.exists() else int(Path(directory, "cpu.stat").read_text().split()[1]) * 1000


def total() -> int:
    found = proc_stat.parse(Path("/proc/stat").read_bytes())
    assert found
    return found.total


def test_a_cgroup_that_forks_all_the_time_gets_its_share_of_the_processors_time(host: Host, top: str) -> None:
    """Within 1 %, where a scan of /proc would find a fifth of it; beside another that runs one long process."""
    short, long = f"{top}/pods/{SHORT}", f"{top}/pods/{LONG}"
    with running(short, "while :; do /bin/true; done"), running(long, "while :; do :; done"):
        host.cycle()
        begun, before = host.cycle(), (used(short), used(long), total())
        for _ in range(SECONDS):
            time.sleep(1)
            reading = host.cycle()
        after = (used(short), used(long), total())
    measured = joules(reading, "energy.measured") - joules(begun, "energy.measured")
    assert measured == pytest.approx(WATTS * SECONDS, rel=0.2)
    for place, name in enumerate((SHORT, LONG)):
        got = joules(reading, "workload.energy", name) - joules(begun, "workload.energy", name)
        share = (after[place] - before[place]) / (after[2] - before[2])
        assert share > 0.01
        assert got / measured == pytest.approx(share, rel=0.01)


def test_a_container_that_is_over_before_the_next_reading_has_its_last_interval(host: Host, top: str) -> None:
    directory = f"{top}/pods/{SHORT}"
    with running(directory, "while :; do :; done"):
        host.cycle()
        time.sleep(0.5)
        before = joules(host.cycle(), "workload.energy", SHORT)
        time.sleep(0.5)
    os.rmdir(directory)
    assert joules(host.cycle(), "workload.energy", SHORT) > 1.5 * before > 0
    assert joules(host.cycle(), "workload.energy", SHORT) == 0
