"""Readings whose points get their workload, and cost nothing while nothing changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_hostmetrics.catalogue.model import Attributes, Kind, Metric, Owner, Series
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.enrich import build
from otel_hostmetrics.enrich.names import Names
from otel_hostmetrics.enrich.refresh import Refresh
from otel_hostmetrics.enrich.stage import Stage
from otel_hostmetrics.enrich.workloads import Workloads
from otel_hostmetrics.export.metering import Observations
from otel_hostmetrics.export.otlp.encode import Encoder
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Batch, Column, Family, Reading, Snapshot, State
from otel_hostmetrics.settings import Otlp
from otel_hostmetrics.settings import Workloads as Settings
from otel_hostmetrics.telemetry import Telemetry
from tests.kernel.as_nobody import as_nobody

A, B = "a1" * 32, "b2" * 32
POD = "9a1b2c3d-1111-4222-8333-444455556666"
MEMORY = Metric("test.process.memory", Kind.GAUGE, "By", "Memory.", "nothing", ("process.pid",), ("hw.id",))
RUNS = Metric("test.program.runs", Kind.COUNTER, "{run}", "Runs.", "nothing", ("id",), ("bpf.cgroup.path", "bpf.cgroup.id"))


class Host:
    """A procfs, what is known of containers, and a stage over both."""

    def __init__(self, root: Path, points: tuple[str, ...] = (), devices: bool = False) -> None:
        self.root = root
        self.refresh = Refresh((), 60, Telemetry())
        self.stage = Stage(Workloads(HostFS(str(root)), self.refresh, ("*",), Telemetry()), self.refresh, points, devices)

    def process(self, pid: int, path: str) -> None:
        folder = self.root / f"proc/{pid}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup").write_text(f"0::{path}\n")

    def exit(self, pid: int) -> None:
        (self.root / f"proc/{pid}/cgroup").unlink()

    def read(self, *series: Series | tuple[Series, ...], source: str = "test") -> Reading:
        """One cycle with these columns of one metric each."""
        columns = [each if isinstance(each, tuple) else (each,) for each in series]
        reading = Reading({column[0].metric: Column(column, list(range(len(column)))) for column in columns})
        self.stage(source, reading)
        return reading


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def memory(*pids: int) -> tuple[Series, ...]:
    return tuple(MEMORY.series({"process.pid": pid}) for pid in pids)


def owned(number: int, owner: Owner) -> Series:
    series = RUNS.series({"id": number})
    series.owner = owner
    return series


def whose(reading: Reading, metric: Metric = MEMORY) -> list[object]:
    return [(each.resource or {}).get("container.id") for each in reading.columns[metric].series]


def test_points_of_processes_get_the_container_and_keep_their_pid_and_value(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    host.process(2, "/system.slice/ssh.service")
    host.process(3, f"/docker/{A}/inner")
    series = memory(1, 2, 3)
    reading = host.read(series)
    column = reading.columns[MEMORY]
    assert whose(reading) == [A, None, A]
    assert column.series[0].resource is column.series[2].resource
    assert column.series[1] is series[1]
    assert [each.attributes["process.pid"] for each in column.series] == [1, 2, 3]
    assert column.values == [0, 1, 2]
    assert series[0].resource is None


def test_nothing_changed_nothing_is_made(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    series = memory(1)
    first = host.read(series).columns[MEMORY].series
    for _ in range(3):
        assert host.read(series).columns[MEMORY].series is first


def test_points_without_workloads_stay_as_they_are(host: Host) -> None:
    host.process(1, "/init.scope")
    mine, other = memory(1), (RUNS.series({"id": 1}),)
    reading = host.read(mine, other)
    assert reading.columns[MEMORY].series is mine
    assert reading.columns[RUNS].series is other


def test_new_series_leave_the_others_the_same_objects(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    host.process(2, f"/docker/{B}")
    series = memory(1)
    first = host.read(series).columns[MEMORY].series
    second = host.read((*series, *memory(2))).columns[MEMORY].series
    assert second[0] is first[0]
    assert len(second) == 2
    assert host.read(series).columns[MEMORY].series[0] is first[0]


def test_a_process_that_moves_or_a_pid_that_comes_again(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    series = memory(1)
    assert whose(host.read(series)) == [A]
    host.process(1, f"/docker/{B}")
    assert whose(host.read(series)) == [B]
    host.process(1, "/")
    reading = host.read(series)
    assert reading.columns[MEMORY].series is series


def test_the_last_points_of_a_process_that_exited_stay_its_containers(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    series = memory(1)
    first = host.read(series)
    host.exit(1)
    second = host.read(series)
    assert second.columns[MEMORY].series is first.columns[MEMORY].series
    assert second.problems == []
    assert whose(host.read(memory(7))) == [None]


def test_names_that_come_later_change_the_series_once(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    series = memory(1)
    first = host.read(series).columns[MEMORY].series
    host.refresh.names = Names({A: {"container.name": "demo"}})
    second = host.read(series).columns[MEMORY].series
    assert second is not first
    assert (second[0].resource or {})["container.name"] == "demo"
    assert host.read(series).columns[MEMORY].series is second


def test_a_metric_that_was_missing_for_a_cycle_goes_on_with_its_series(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    host.process(2, f"/docker/{B}")
    series, other = memory(1), (owned(1, Owner(2)),)
    first = host.read(series, other)
    host.read(other)
    assert host.read(series, other).columns[MEMORY].series is first.columns[MEMORY].series
    host.read(other)
    host.process(1, "/")  # meanwhile
    assert whose(host.read(series, other)) == [None]


def test_two_sources_of_one_metric_do_not_disturb_each_other(host: Host) -> None:
    host.process(1, f"/docker/{A}")
    host.process(2, f"/docker/{B}")
    one, two = memory(1), memory(2)
    first = [host.read(one, source="a").columns[MEMORY].series, host.read(two, source="b").columns[MEMORY].series]
    again = [host.read(one, source="a").columns[MEMORY].series, host.read(two, source="b").columns[MEMORY].series]
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_the_sources_word_counts_before_what_the_point_names(host: Host) -> None:
    """A link that is limited to process 2 belongs to process 1, which holds it."""
    host.process(1, f"/docker/{A}")
    host.process(2, f"/docker/{B}")
    link = MEMORY.series({"process.pid": 2})
    link.owner = Owner(1)
    assert whose(host.read(link)) == [A]


def test_cgroups_by_path(host: Host) -> None:
    path = f"/kubepods/besteffort/pod{POD}/{A}"
    series = (owned(1, Owner(cgroup=path)), RUNS.series({"id": 2, "bpf.cgroup.path": path}), owned(3, Owner(99, path)))
    reading = host.read(series)
    assert whose(reading, RUNS) == [A, A, A]
    assert len({id(each.resource) for each in reading.columns[RUNS].series}) == 1


def test_an_id_without_cgroup2_is_no_workload_and_no_problem(host: Host) -> None:
    (host.root / "proc/self").mkdir(parents=True)
    (host.root / "proc/self/mountinfo").write_text("")
    reading = host.read((RUNS.series({"id": 1, "bpf.cgroup.id": 5}),))
    assert whose(reading, RUNS) == [None]
    assert reading.problems == []


def test_devices_only_where_they_may_be_known(tmp_path: Path) -> None:
    known = Names(devices={"GPU-1": {"k8s.pod.name": "train"}})
    series = (Series(MEMORY, {"hw.id": "GPU-1"}), Series(MEMORY, {"hw.id": "GPU-2"}))
    for devices, wanted in ((True, ["train", None]), (False, [None, None])):
        host = Host(tmp_path, devices=devices)
        host.refresh.names = known
        assert [(each.resource or {}).get("k8s.pod.name") for each in host.read(series).columns[MEMORY].series] == wanted


def test_chosen_attributes_are_also_on_the_points(tmp_path: Path) -> None:
    host = Host(tmp_path, points=("container.id",))
    host.process(1, f"/system.slice/docker-{A}.scope")
    (series,) = host.read(memory(1)).columns[MEMORY].series
    assert series.attributes == {"process.pid": 1, "container.id": A}
    assert series.resource == {"container.id": A, "container.runtime.name": "docker"}


def test_what_may_not_be_read_is_one_problem(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for pid in (1, 2):
        host.process(pid, f"/docker/{A}")
        (tmp_path / f"proc/{pid}/cgroup").chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    said = as_nobody(lambda: str([(each.reason.name, each.what) for each in host.read(memory(1, 2)).problems]))
    assert said.startswith("[('DENIED', ")
    assert said.count("DENIED") == 1


def batch(reading: Reading) -> Batch:
    families = tuple(Family(metric, ((5, column),)) for metric, column in reading.columns.items())
    return Batch(Snapshot(1, 5, 0, {"test": reading}, {}), families)


def test_one_resource_for_each_workload_and_one_label_for_each_chosen_attribute(host: Host) -> None:
    host.process(1, f"/kubepods/pod{POD}/{A}")
    host.process(2, f"/kubepods/pod{POD}/{B}")
    host.process(3, "/")
    names = {"k8s.pod.name": "web-1", "container.image.tags": ("a", "b")}
    host.refresh.names = Names({A: {**names, "k8s.container.name": "app"}, B: {**names, "k8s.container.name": "side"}})  # type: ignore[dict-item]
    exported = batch(host.read(memory(1, 2, 3, 1), (owned(1, Owner(1)), owned(2, Owner(3)))))
    (request,) = Encoder({"host.name": "n1"}, "scope", "1", Otlp(), 1).encode(exported)
    found = {}
    for each in ExportMetricsServiceRequest.FromString(request.payload).resource_metrics:
        attributes = {pair.key: pair.value.string_value for pair in each.resource.attributes}
        assert attributes["host.name"] == "n1"
        found[attributes.get("k8s.container.name")] = sorted(
            (metric.name, pair.value.int_value)
            for metric in each.scope_metrics[0].metrics
            for point in (*metric.gauge.data_points, *metric.sum.data_points)
            for pair in point.attributes
        )
    memory_of, runs_of = "test.process.memory", "test.program.runs"
    assert found == {None: [(memory_of, 3), (runs_of, 2)], "app": [(memory_of, 1), (memory_of, 1), (runs_of, 1)], "side": [(memory_of, 2)]}
    page = Page({}, Settings().labels).render(exported, Format.TEXT).decode()
    assert f'test_program_runs_total{{container_id="{A}",id="1",k8s_container_name="app",k8s_pod_name="web-1"}} 0\n' in page
    assert 'test_program_runs_total{id="2"} 1\n' in page
    assert 'container_image_tags="[\\"a\\",\\"b\\"]"' in Page({}).render(exported, Format.TEXT).decode()


def test_other_sdks_get_a_workloads_attributes_on_the_points(host: Host) -> None:
    host.process(1, f"/system.slice/docker-{A}.scope")
    (column,) = host.read(memory(1)).columns.values()
    (observation,) = Observations(column)
    assert observation.attributes == {"process.pid": 1, "container.id": A, "container.runtime.name": "docker"}


class Fake:
    """A source of the points it is given."""

    name, metrics, blocking = "test", (MEMORY,), False

    def __init__(self, series: tuple[Series, ...]) -> None:
        self.series = series

    def open(self) -> None: ...
    def close(self) -> None: ...
    def read(self) -> Reading:
        return Reading({MEMORY: Column(self.series, [1] * len(self.series))})


@pytest.fixture
def collector() -> Iterator[Callable[..., Collector]]:
    made: list[Collector] = []

    def make(enrich: Callable[[str, Reading], None], series: tuple[Series, ...]) -> Collector:
        made.append(Collector([Fake(series)], None, [MEMORY], Telemetry(), 1, 100, enrich=enrich))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_the_first_cycle_has_the_names(tmp_path: Path, collector) -> None:
    """Read by the thread: what a run of one cycle prints, and what a started agent's series have from the start."""
    host = Host(tmp_path)
    host.process(1, f"/libpod_parent/libpod-{A}")
    bundle = tmp_path / "var/lib/containers/storage/overlay-containers" / A / "userdata"
    bundle.mkdir(parents=True)
    (bundle / "config.json").write_text('{"annotations": {"io.kubernetes.pod.name": "web-1"}}')
    stage = build(HostFS(str(tmp_path)), Settings(), Telemetry())
    began = time.monotonic()
    snapshot = collector(stage, memory(1)).collect()
    stage.close()
    stage.close()
    (series,) = snapshot.readings["test"].columns[MEMORY].series
    assert series.resource == {"container.id": A, "container.runtime.name": "podman", "k8s.pod.name": "web-1"}
    assert time.monotonic() - began < 0.9


class Slow:
    """A lookup that takes its time, as a socket does."""

    name = "slow"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:
        time.sleep(self._seconds)
        return Names({each: {"container.name": "demo"} for each in containers})


def test_only_the_first_cycle_waits_for_names(tmp_path: Path) -> None:
    refresh = Refresh([Slow(0.2)], 60, Telemetry(), pace=0)
    stage = Stage(Workloads(HostFS(str(tmp_path)), refresh, ("*",), Telemetry()), refresh)
    host = Host(tmp_path)
    host.stage = stage
    host.process(1, f"/docker/{A}")
    host.process(2, f"/docker/{B}")
    first = host.read(memory(1)).columns[MEMORY].series[0]
    assert (first.resource or {})["container.name"] == "demo"
    began = time.monotonic()
    series = memory(2)
    assert "container.name" not in (host.read(series).columns[MEMORY].series[0].resource or {})
    assert time.monotonic() - began < 0.1
    refresh.wait(5)
    assert (host.read(series).columns[MEMORY].series[0].resource or {})["container.name"] == "demo"
    stage.close()


def test_a_bug_costs_points_their_workload_and_nothing_else(collector, caplog: pytest.LogCaptureFixture) -> None:
    def broken(source: str, reading: Reading) -> None:
        raise KeyError(source)

    each = collector(broken, memory(1))
    for _ in range(2):
        snapshot = each.collect()
    assert snapshot.statuses["test"].state is State.OK
    assert len(snapshot.readings["test"].columns[MEMORY].series) == 1
    assert caplog.text.count("Traceback") == 1


_steps = st.lists(
    st.tuples(st.lists(st.integers(1, 5), max_size=6), st.dictionaries(st.integers(1, 5), st.sampled_from([A, B, ""]))), max_size=8
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("property")


@given(steps=_steps)
def test_whatever_comes_and_goes_each_point_has_its_workload_now(folder: Path, steps: list[tuple[list[int], dict[int, str]]]) -> None:
    host = Host(folder)
    containers = dict.fromkeys(range(1, 6), "")
    known: dict[int, Series] = {pid: memory(pid)[0] for pid in containers}
    for pids, moves in steps:
        containers |= moves
        for pid, container in containers.items():
            host.process(pid, f"/docker/{container}" if container else "/")
        reading = host.read(tuple(known[pid] for pid in pids)) if pids else Reading()
        if pids:
            assert whose(reading) == [containers[pid] or None for pid in pids]
            resources: dict[object, Attributes | None] = {}
            for each in reading.columns[MEMORY].series:
                container = (each.resource or {}).get("container.id")
                assert resources.setdefault(container, each.resource) is each.resource
