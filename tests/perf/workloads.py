"""What it costs to know whose each point is, on hosts with 30, 300 and 3 000 containers, and to export one Resource for each.

Containers are real cgroups with a sleeping process in each, named as containerd's CRI plugin names them; every cycle reads
/proc/PID/cgroup of all of them.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue.model import Attributes, Kind, Metric, Owner, Series
from otel_hostmetrics.enrich.names import Names
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.enrich.stage import Stage
from otel_hostmetrics.enrich.workloads import Workloads
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.export.metering import SCOPE
from otel_hostmetrics.export.otlp.encode import Encoder, Request
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import mounts
from otel_hostmetrics.model import Batch, Column, Family, Reading, Snapshot
from otel_hostmetrics.settings import Otlp
from otel_hostmetrics.settings import Workloads as Settings
from otel_hostmetrics.telemetry import Telemetry
from tests.perf.measure import Bound, Mode, Report, Result, Subject, compare, in_process

_SIZES = (30, 300, 3_000)
_METRICS = 30
_START_NS = 1_700_000_000_000_000_000
_HOST = {"service.name": "otel-hostmetrics", "host.name": "node-17.example.net", "k8s.node.name": "node-17"}
_PADDING = 15  # bytes around the value of one more attribute
_PER_PID, _PER_CGROUP, _PER_POINT = Bound(9), Bound(3), Bound(0.25)  # CPU us
_FLOOR = "open, read and close /proc/PID/cgroup"
_FLAT, _GROUPED = "OTLP: encode, all points of the host", "OTLP: encode, a Resource for each container"
_PADDED = "OTLP: encode, as many bytes, all points of the host"
_REGROUPING = Bound(1.1, 2)


def obstacle() -> str:
    """Why no cgroups can be made here; empty if they can."""
    try:
        place = _cgroup2()
    except Unavailable as reason:
        return str(reason)
    return "" if place and os.geteuid() == 0 else "cgroups take root and a cgroup2 mount"


def run(mode: Mode) -> Report:
    report = Report()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # as the agent does
    if why := obstacle():
        report.skipped.append(f"workloads: {why}")
        return report
    for size in _SIZES[: 2 if mode.quick else None]:
        with _containers(size) as pids, contextlib.ExitStack() as stack:
            known = _names(pids)
            paths = {pid: Owner(cgroup=_path(number)) for number, pid in enumerate(pids)}
            calls = [
                ("a process in each: enrich", _cycle(stack, known, _by_pid(pids)), _PER_PID),
                ("a cgroup each: enrich", _cycle(stack, known, _by_cgroup(list(paths.values()))), _PER_CGROUP),
            ]
            subjects = [Subject(_FLOOR, in_process(lambda pids=pids: _read_all(pids), size, mode.seconds))]  # type: ignore[misc]
            subjects += [Subject(name, in_process(call, size, mode.seconds), bound, _FLOOR) for name, call, bound in calls]
            report.results += compare(f"{size} containers", "us/container", subjects, mode.rounds)
            exports, sizes = _export(stack, known, pids, mode)
            case = f"{size} containers, {_METRICS} points each"
            results = compare(case, "us/point", exports, mode.rounds)
            report.results += results
            report.results += _regrouping(case, results, sizes)
    return report


def _read_all(pids: list[int]) -> None:
    for pid in pids:
        fd = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)
        os.read(fd, 4096)
        os.close(fd)


def _cgroup2() -> str:
    return next((mount.path for mount in mounts(HostFS(), "cgroup2")), "")


def _path(number: int) -> str:
    pod = f"{number:08x}_1111_4222_8333_444455556666"
    folder = f"/perf-{os.getpid()}/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod}.slice"
    return f"{folder}/cri-containerd-{number:064x}.scope"


@contextlib.contextmanager
def _containers(number: int) -> Iterator[list[int]]:
    """That many cgroups; gives the pid of the process in each."""
    top, sleep = _cgroup2(), shutil.which("sleep") or "/bin/sleep"
    pids: list[int] = []
    try:
        for each in range(number):
            directory = top + _path(each)
            os.makedirs(directory)
            pids.append(os.posix_spawn(sleep, ["sleep", "3600"], {}))
            Path(directory, "cgroup.procs").write_text(str(pids[-1]), encoding="ascii")
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        subprocess.run(
            ["find", f"{top}/perf-{os.getpid()}", "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], check=False, capture_output=True
        )


def _names(pids: list[int]) -> Names:
    """As a CRI socket tells them."""
    return Names({
        f"{number:064x}": {
            "k8s.pod.name": f"frontend-{number}-7d9c5b8f6b-x2x7k", "k8s.namespace.name": "default", "k8s.container.name": "server",
            "container.image.name": "registry.example.net/shop/frontend", "container.runtime.name": "containerd",
        }
        for number, _ in enumerate(pids)
    })  # fmt: skip


def _by_pid(pids: list[int]) -> tuple[Series, ...]:
    metric = Metric("perf.process", Kind.GAUGE, "1", "", "nothing", ("process.pid",))
    return tuple(metric.series({"process.pid": pid}) for pid in pids)


def _by_cgroup(owners: list[Owner]) -> tuple[Series, ...]:
    metric = Metric("perf.cgroup", Kind.GAUGE, "1", "", "nothing", ("id",))
    series = tuple(metric.series({"id": number}) for number, _ in enumerate(owners))
    for each, owner in zip(series, owners, strict=True):
        each.owner = owner
    return series


def _stage(stack: contextlib.ExitStack, known: Names) -> Stage:
    refresh = Refresh((), 60, Telemetry())
    refresh.names = known
    stage = Stage(Workloads(HostFS(), refresh, ("*",), Telemetry(), Settings().descriptors), refresh)
    stack.callback(stage.close)
    return stage


def _cycle(stack: contextlib.ExitStack, known: Names, *columns: tuple[Series, ...]) -> Callable[[], Reading]:
    """One reading of these columns through the stage, in which nothing has changed."""
    stage, values = _stage(stack, known), list(range(max(map(len, columns))))

    def call() -> Reading:
        reading = Reading({series[0].metric: Column(series, values) for series in columns})
        stage("perf", reading)
        return reading

    resources = {id(each.resource) for column in call().columns.values() for each in column.series}
    assert len(resources) == len(columns[0])
    return call


def _export(stack: contextlib.ExitStack, known: Names, pids: list[int], mode: Mode) -> tuple[list[Subject], dict[str, int]]:
    """Encoding the points of all containers as the host's, and under a Resource for each; and the stage before it. With the bytes."""
    metrics = [
        Metric(f"perf.metric_{number}", Kind.COUNTER, "1", "Counts.", "nothing", ("process.pid", "device", "port"), ("padding",))
        for number in range(_METRICS)
    ]
    points = len(pids) * _METRICS
    as_hosts, as_theirs = _flat(metrics, pids, {}), _encoding(_cycle(stack, known, *_columns(metrics, pids, {}))())
    more = _size(as_theirs) - _size(as_hosts)
    padded = _flat(metrics, pids, {"padding": "x" * (more // points - _PADDING)})
    subjects = [
        Subject(_FLAT, in_process(as_hosts, points, mode.seconds)),
        Subject(_PADDED, in_process(padded, points, mode.seconds)),
        Subject(_GROUPED, in_process(as_theirs, points, mode.seconds), _PER_POINT, _FLAT),
        Subject("enrich", in_process(_cycle(stack, known, *_columns(metrics, pids, {})), points, mode.seconds)),
    ]
    return subjects, {_FLAT: _size(as_hosts), _PADDED: _size(padded), _GROUPED: _size(as_theirs)}


def _columns(metrics: list[Metric], pids: list[int], more: Attributes) -> list[tuple[Series, ...]]:
    device: Attributes = {"device": "mlx5_0", "port": 1, **more}
    return [tuple(metric.series({"process.pid": pid, **device}, _START_NS) for pid in pids) for metric in metrics]


def _flat(metrics: list[Metric], pids: list[int], more: Attributes) -> Callable[[], list[Request]]:
    columns = _columns(metrics, pids, more)
    return _encoding(Reading({column[0].metric: Column(column, list(range(len(pids)))) for column in columns}))


def _size(call: Callable[[], list[Request]]) -> int:
    return sum(len(each.payload) for each in call())


def _regrouping(case: str, results: list[Result], sizes: dict[str, int]) -> Iterator[Result]:
    """A Resource for each container is more to write: each has its own, and repeats the name and text of each metric.

    So what it costs to regroup is told by the time that as many bytes take without.
    """
    for name in (_FLAT, _PADDED):
        yield Result(case, f"bytes of a Resource each / {name.removeprefix('OTLP: encode, ')}", "ratio", [sizes[_GROUPED] / sizes[name]])
    ratios = [more / less for more, less in zip(_of(results, _GROUPED).samples, _of(results, _PADDED).samples, strict=True)]
    yield Result(case, "time, a Resource each / as many bytes", "ratio", ratios, bound=_REGROUPING)


def _of(results: list[Result], name: str) -> Result:
    return next(each for each in results if each.name == name)


def _encoding(reading: Reading) -> Callable[[], list[Request]]:
    encoder = Encoder(_HOST, SCOPE, __version__, Otlp(), _START_NS)
    families = tuple(Family(metric, ((_START_NS, column),)) for metric, column in reading.columns.items())
    batch = Batch(Snapshot(1, _START_NS, 0, {}, {}), families)
    return lambda: encoder.encode(batch)
