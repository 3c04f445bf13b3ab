"""The whole BPF source on the running kernel: its points, compared with what bpftool says and with what was created."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, LINK_TYPES, MAP_TYPES, PROGRAM_TYPES
from otel_hostmetrics.kernel.bpf_stats import sysctl_enabled
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Reading, State
from otel_hostmetrics.settings import Bpf as BpfSettings
from otel_hostmetrics.settings import General, Seconds, Settings
from otel_hostmetrics.sources.bpf import Bpf
from otel_hostmetrics.telemetry import Telemetry
from tests.live.bpfload import Loader
from tests.live.test_ids import Zoo, bpftool, known
from tests.live.zoo import LONG_NAME

Points = dict[frozenset[tuple[str, object]], Any]


def made(**settings: Any) -> Bpf:
    return Bpf(HostFS(), Settings(bpf=BpfSettings(**{"slow_interval": Seconds(0.0001), **settings})))


@contextlib.contextmanager
def opened(**settings: Any) -> Iterator[Bpf]:
    """The source, looking around in every cycle unless told otherwise. Skips where the engine cannot be had."""
    source = made(**settings)
    try:
        source.open()
    except Unavailable as reason:
        pytest.skip(f"{settings}: {reason}")
    try:
        yield source
    finally:
        source.close()


def points(reading: Reading, metric: Metric) -> Points:
    """Value by attributes. Fails if two points have the same attributes."""
    column = reading.columns.get(metric)
    found: Points = {}
    for series, value in zip(column.series, column.values, strict=True) if column else ():
        assert series.metric is metric
        assert frozenset(series.attributes.items()) not in found, series
        found[frozenset(series.attributes.items())] = value
    return found


def by(reading: Reading, metric: Metric, key: str) -> dict[Any, tuple[dict[str, Any], Any]]:
    """(attributes, value) by one attribute that tells the points apart."""
    found = {dict(attributes)[key]: (dict(attributes), value) for attributes, value in points(reading, metric).items()}
    assert len(found) == len(points(reading, metric))
    return found


@pytest.mark.system
@pytest.mark.parametrize("engine", ["auto", "ids"])
def test_programs_of_the_zoo_as_bpftool_shows_them(zoo: Zoo, engine: str) -> None:
    theirs = bpftool("prog")
    with opened(engine=engine) as source:
        reading = source.read()
    code = points(reading, rows.PROGRAM_CODE)
    information, memory, loaded, translated, jited = (
        by(reading, row, "id")
        for row in (rows.PROGRAM_INFO, rows.PROGRAM_MEM, rows.PROGRAM_LOAD_TIME, rows.PROGRAM_TRANSLATED, rows.PROGRAM_JITED)
    )
    for number in zoo[0].ids["program"]:
        other, (ours, one) = theirs[number], information[str(number)]
        assert one == 1
        assert known(other["type"], PROGRAM_TYPES, PROGRAM_TYPES.index(ours["type"]))
        assert ours.get("full_name", ours["name"]) == other["name"]
        assert (ours["tag"], ours["gpl_compatible"], ours["uid"]) == (other["tag"], other["gpl_compatible"], str(other["uid"]))
        assert ours["tag_decimal"] == str(int(other["tag"], 16))
        assert ours["map_ids"] == str(other.get("map_ids", []))
        assert abs(loaded[str(number)][1] - other["loaded_at"]) <= 2
        assert translated[str(number)][1] == other["bytes_xlated"]
        assert jited[str(number)][1] == other["bytes_jited"]
        assert memory[str(number)][1] == other["bytes_memlock"]
        sizes = {dict(each)["bpf.program.code"]: value for each, value in code.items() if dict(each)["bpf.program.id"] == number}
        assert sizes == {"translated": other["bytes_xlated"], "jited": other["bytes_jited"]}
    names = {attributes["bpf.program.name"] for attributes, _ in by(reading, rows.PROGRAM_MEMORY, "bpf.program.id").values()}
    assert LONG_NAME in names or "long_name" in zoo[0].refused


@pytest.mark.system
def test_maps_as_bpftool_shows_them(loader: Loader) -> None:
    loader.bulk(0, 12, 0)
    theirs = bpftool("map")
    with opened(engine="ids") as source:
        reading = source.read()
    information, memory = by(reading, rows.MAP_INFO, "id"), by(reading, rows.MAP_MEMORY, "bpf.map.id")
    sizes = [by(reading, row, "id") for row in (rows.MAP_KEY_SIZE, rows.MAP_VALUE_SIZE, rows.MAP_MAX_ENTRIES)]
    limits = by(reading, rows.MAP_LIMIT, "bpf.map.id")
    for number in loader.ids["map"]:
        other, (ours, one) = theirs[number], information[str(number)]
        assert one == 1
        assert known(other["type"], MAP_TYPES, int(ours["type"]))
        assert ours["type_name"] == MAP_TYPES[int(ours["type"])]
        expected = [other["bytes_key"], other["bytes_value"], other["max_entries"]]
        assert [ours[key] for key in ("key_size", "value_size", "max_entries")] == [str(size) for size in expected]
        assert [size[str(number)][1] for size in sizes] == expected
        assert (ours["name"], ours["flags"], ours["frozen"]) == (other["name"], str(other["flags"]), bool(other["frozen"]))
        assert memory[number][1] == other["bytes_memlock"]
        assert limits[number][1] == other["max_entries"]


@pytest.mark.system
def test_links_of_the_zoo_as_bpftool_shows_them(zoo: Zoo) -> None:
    theirs = bpftool("link")
    with opened() as source:
        reading = source.read()
    information, attachments = by(reading, rows.LINK_INFO, "id"), by(reading, rows.LINK_ATTACHMENT, "bpf.link.id")
    for number in zoo[0].ids["link"]:
        other, (ours, one), (attached, _) = theirs[number], information[str(number)], attachments[number]
        assert one == 1
        assert known(other["type"], LINK_TYPES, int(ours["type"]))
        assert ours["type_name"] == LINK_TYPES[int(ours["type"])] == attached["bpf.link.type"]
        assert ours["prog_id"] == str(other["prog_id"])
        assert attached["bpf.program.id"] == other["prog_id"]
        if isinstance(other.get("attach_type"), str):
            assert attached["bpf.attach.type"] == other["attach_type"]
        if "ifindex" in other or ours["type_name"] == "xdp":
            assert (attached["bpf.interface.index"], attached["bpf.interface.name"]) == (1, "lo")


def test_counts_are_those_of_the_lists(zoo: Zoo) -> None:
    with opened() as source:
        reading = source.read()
    for count, information, kind in (
        (rows.PROGRAM_COUNT, rows.PROGRAM_INFO, "bpf.program.type"),
        (rows.MAP_COUNT, rows.MAP_INFO, "bpf.map.type"),
        (rows.LINK_COUNT, rows.LINK_INFO, "bpf.link.type"),
    ):
        counts = {dict(each)[kind]: value for each, value in points(reading, count).items()}
        word = "type" if kind == "bpf.program.type" else "type_name"
        listed = [dict(each)[word] for each in points(reading, information)]
        assert counts == {name: listed.count(name) for name in set(listed)}


def test_entries_of_a_hash(loader: Loader) -> None:
    fd = loader.map("hash", entries=16, name="counted")
    with opened(engine="iterator") as source:
        if points(source.read(), rows.MAP_ENTRIES) == {}:
            pytest.skip("entries are counted from Linux 6.6 on")
        for number in range(5):
            _update(fd, number)
        reading = source.read()
    number = loader.ids["map"][0]
    attributes, entries = by(reading, rows.MAP_ENTRIES, "bpf.map.id")[number]
    assert (attributes["bpf.map.name"], attributes["bpf.map.type"], entries) == ("counted", "hash", 5)
    assert by(reading, rows.MAP_UTILIZATION, "bpf.map.id")[number][1] == 5 / 16


def _update(fd: int, key: int) -> None:
    """BPF_MAP_UPDATE_ELEM of a map with keys of 4 and values of 8 bytes."""
    keys, values = ctypes.c_uint32(key), ctypes.c_uint64(key)
    bpf.bpf(2, struct.pack("=IxxxxQQQ", fd, ctypes.addressof(keys), ctypes.addressof(values), 0))


@pytest.mark.parametrize("engine", ["iterator", "ids"])
def test_holders_are_found_with_their_pid(engine: str) -> None:
    command = [sys.executable, "-m", "tests.live.bpfload", "--progs", "2", "--maps", "1", "--links", "1"]
    with opened(engine=engine) as source, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        ids = json.loads(child.stdout.readline())["ids"]
        held = [(dict(each), value) for each, value in points(source.read(), rows.OBJECT_HOLDER).items() if pid_of(each) == child.pid]
        assert child.stdin is not None
        child.stdin.close()
        child.wait(10)
        after = [each for each in points(source.read(), rows.OBJECT_HOLDER) if pid_of(each) == child.pid]
    found = {(attributes["bpf.object.type"], attributes["bpf.object.id"]) for attributes, _ in held}
    assert found == {(kind, number) for kind in ("program", "map", "link") for number in ids[kind]}
    assert {attributes["bpf.holder.comm"] for attributes, _ in held} == {os.path.basename(sys.executable)[:15]}
    assert {value for _, value in held} == {1}
    assert after == []


def pid_of(attributes: frozenset[tuple[str, object]]) -> object:
    return dict(attributes)["process.pid"]


def test_pins_are_found_with_their_path(loader: Loader, bpffs: Path) -> None:
    program, hash_ = loader.program(), loader.map()
    loader.pin(program, f"{bpffs}/a program")
    loader.pin(hash_, f"{bpffs}/map")
    with opened() as source:
        found = points(source.read(), rows.OBJECT_PIN)
        (bpffs / "map").unlink()
        time.sleep(0.06)
        after = points(source.read(), rows.OBJECT_PIN)
    expected = {
        f"{bpffs}/a program": ("program", loader.ids["program"][0]),
        f"{bpffs}/map": ("map", loader.ids["map"][0]),
    }
    ours = [dict(each) for each in found if str(dict(each)["bpf.pin.path"]).startswith(str(bpffs))]
    assert {each["bpf.pin.path"]: (each["bpf.object.type"], each["bpf.object.id"]) for each in ours} == expected
    assert [str(dict(each)["bpf.pin.path"]) for each in after if str(bpffs) in str(dict(each))] == [f"{bpffs}/a program"]


@pytest.mark.parametrize("engine", ["iterator", "ids"])
def test_a_program_on_a_cgroup_that_no_process_holds(cgroup: str, engine: str) -> None:
    """Attached as container runtimes do it, whose process then exits: the program stays, with nobody to be asked."""
    with Loader() as loader, opened(engine=engine) as source:
        program = os.dup(loader.program("cgroup_device", 1, "orphan"))
        number, device = loader.ids["program"][0], ATTACH_TYPES.index("cgroup_device")
        with directory(cgroup) as fd:
            bpf.bpf(bpf.PROG_ATTACH, struct.pack("=IIIII", fd, program, device, 2, 0))  # BPF_F_ALLOW_MULTI
            try:
                first = source.read()
                loader.close()
                os.close(program)
                second = source.read()
            finally:
                again = bpf.bpf(bpf.PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
                bpf.bpf(bpf.PROG_DETACH, struct.pack("=IIIII", fd, again, device, 0, 0))
                os.close(again)
    path = f"/{os.path.basename(cgroup)}"
    attributes = {"bpf.cgroup.path": path, "bpf.attach.type": "cgroup_device", "bpf.program.id": number, "bpf.program.name": "orphan"}
    for reading, held in ((first, True), (second, False)):
        # Where some process hides its descriptors it may be the holder: not known, not false.
        unseen = [problem for problem in reading.problems if problem.what.endswith("/PID/fd")]
        expected = {**attributes, "bpf.program.held": held} if held or not unseen else attributes
        assert by(reading, rows.CGROUP_PROGRAM, "bpf.program.id")[number] == (expected, 1)
    assert engine == "ids" or {problem.what for problem in (*first.problems, *second.problems)} == {"BPF objects by iterator"}


@pytest.mark.parametrize("engine", ["iterator", "ids"])
def test_a_link_follows_the_program_that_it_runs(cgroup: str, engine: str) -> None:
    with Loader() as loader, opened(engine=engine, holders=False) as source, directory(cgroup) as fd:
        programs = [loader.program("cgroup_device", 1, name) for name in ("old", "new")]
        link = loader.link(programs[0], fd, "cgroup_device")
        number, told = loader.ids["link"][0], []
        for program in (None, programs[1]):
            if program is not None:
                bpf.bpf(bpf.LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0))
            for _ in range(2):
                reading = source.read()
                time.sleep(0.06)  # links are looked at again at the slower pace
            told.append(by(reading, rows.LINK_ATTACHMENT, "bpf.link.id")[number][0]["bpf.program.name"])
    assert told == ["old", "new"]


@contextlib.contextmanager
def directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def test_which_program_uses_which_map(loader: Loader) -> None:
    first, second = loader.map(name="one"), loader.map(name="two")
    loader.program(name="user", maps=[first, second])
    number = loader.ids["program"][0]
    with opened() as source:
        found = [dict(each) for each in points(source.read(), rows.PROGRAM_MAP) if dict(each)["bpf.program.id"] == number]
        loader.bind(loader.fds[-1], loader.map(name="three"))
        source.read()
        later = [dict(each)["bpf.map.name"] for each in points(source.read(), rows.PROGRAM_MAP) if dict(each)["bpf.program.id"] == number]
    assert {(each["bpf.program.name"], each["bpf.map.name"], each["bpf.map.id"]) for each in found} == {
        ("user", name, each) for name, each in zip(("one", "two"), loader.ids["map"], strict=False)
    }
    assert sorted(later) == ["one", "three", "two"], "a map bound after loading is seen"


def test_both_engines_give_the_same_points_where_both_know(zoo: Zoo) -> None:
    """Memory of maps is known only by id, numbers of entries and ids of later times only by iterator."""
    only_ids, only_iterator = {rows.MAP_MEMORY}, {rows.MAP_ENTRIES, rows.MAP_UTILIZATION}
    with opened(engine="ids", stats="on") as by_id, opened(engine="iterator", stats="on") as walking:
        # Twice: at the second look-around every object is described once more.
        a, b = [(by_id.read(), walking.read()) for _ in range(2)][-1]
    assert [problem.what for problem in b.problems] == ["BPF objects by iterator"], "memory of maps, and said so"
    assert {problem.what for problem in a.problems} <= {"/proc/PID/fd"}, "processes whose descriptors even root may not see"
    assert a.columns.keys() - b.columns.keys() <= only_ids
    assert b.columns.keys() - a.columns.keys() <= only_iterator
    mine = {kind: set(zoo[0].ids[kind]) for kind in ("program", "map", "link")}  # type: ignore[index]
    compared = 0
    for metric in (a.columns.keys() & b.columns.keys()) - {rows.STATS_TIME}:
        first, second = (
            {each: value for each, value in points(reading, metric).items() if _concerns(dict(each), metric, mine)} for reading in (a, b)
        )
        if metric in (rows.PROGRAM_RUN_COUNT, rows.PROGRAM_RUN_TIME):
            assert first.keys() == second.keys()  # they run while we read
        elif metric in (rows.PROGRAM_INFO, rows.MAP_INFO, rows.LINK_ATTACHMENT, rows.CGROUP_PROGRAM):
            assert len(first) == len(second)
            assert_compatible(first, second, metric.attributes[0] if metric is not rows.CGROUP_PROGRAM else "bpf.program.id")
        else:
            assert first == second, metric
        compared += len(first)
    assert compared > 100


def _concerns(attributes: dict[str, Any], metric: Metric, mine: dict[str, set[int]]) -> bool:
    """Whether a point is about an object of the zoo: other tests and agents may load and unload theirs meanwhile."""
    for kind in ("program", "map", "link"):
        if f"bpf.{kind}.id" in attributes and not metric.name.startswith("bpf.link"):
            return attributes[f"bpf.{kind}.id"] in mine[kind]
        if metric.name.startswith(f"bpf_{kind}_"):
            return int(attributes["id"]) in mine[kind]
    if "bpf.object.id" in attributes:
        return attributes["bpf.object.id"] in mine.get(attributes["bpf.object.type"], ())
    return attributes.get("bpf.link.id") in mine["link"]


def assert_compatible(first: Points, second: Points, key: str) -> None:
    """What one engine leaves out the other may say, but they never contradict each other."""
    others = {dict(each)[key]: dict(each) for each in second}
    for each in map(dict, first):
        both = each.keys() & others[each[key]].keys()
        assert {name: each[name] for name in both} == {name: others[each[key]][name] for name in both}


def test_columns_are_the_same_objects_while_nothing_changes(zoo: Zoo) -> None:
    """As far as the rest of the machine lets it be: the same listing twice gives the same tuples."""
    with opened(slow_interval=Seconds(3600)) as source:
        for _ in range(20):
            first, second = source.read(), source.read()
            if all(points(first, row).keys() == points(second, row).keys() for row in (rows.PROGRAM_INFO, rows.MAP_INFO, rows.LINK_INFO)):
                break
        for metric, column in first.columns.items():
            if points(first, metric).keys() == points(second, metric).keys():
                assert second.columns[metric].series is column.series, metric


def test_a_group_s_info_counts_its_objects(loader: Loader) -> None:
    for _ in range(3):
        loader.program("socket_filter", name="same_name")
    with opened(aggregate=True) as source:
        reading = source.read()
    found = {dict(each)["name"]: (dict(each), value) for each, value in points(reading, rows.PROGRAM_INFO).items()}
    attributes, value = found["same_name"]
    assert value == 3
    assert attributes.keys() == {"name", "type", "gpl_compatible"}
    assert rows.OBJECT_PIN not in reading.columns
    ids = {"id", "bpf.program.id", "bpf.map.id", "bpf.link.id", "process.pid"}
    assert not [series for column in reading.columns.values() for series in column.series if ids & series.attributes.keys()]


@pytest.mark.parametrize("engine", ["iterator", "ids"])
def test_sampled_statistics_measure_one_interval_of_several(loader: Loader, engine: str) -> None:
    if sysctl_enabled(HostFS()):
        pytest.skip("kernel.bpf_stats_enabled is on")
    fd = loader.program("socket_filter", name="measured")
    number = loader.ids["program"][0]
    seen, enabled, times = [], [], []
    with opened(engine=engine, stats="sampled", stats_every=3, slow_interval=Seconds(3600)) as source:
        for _ in range(7):
            reading = source.read()
            seen.append(by(reading, rows.PROGRAM_RUN_COUNT, "bpf.program.id")[number][1])
            enabled.append(*points(reading, rows.STATS_ENABLED).values())
            times.append(*points(reading, rows.STATS_TIME).values())
            time.sleep(0.02)
            loader.run(fd, 100)
    assert enabled == [1, 0, 0, 1, 0, 0, 1]
    assert times == sorted(times)
    assert times[1] == times[2] == times[3] < times[4] == times[6]
    assert 0.02 <= times[1] < 0.2
    if any(count not in (0, 100, 200) for count in seen):
        pytest.skip("another process has statistics switched on")
    assert seen == [0, 100, 100, 100, 200, 200, 200]


def test_two_seconds_of_churn_leave_no_error_and_no_descriptor() -> None:
    """Objects come and go all the time; the fixture counts descriptors."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                with Loader() as loader:
                    loader.bulk(30, 20, 10)
        finally:
            os._exit(1)
    cycles = 0
    try:
        for engine in ("iterator", "ids"):
            source = made(engine=engine, slow_interval=Seconds(0.05), stats="sampled", aggregate=engine == "ids")
            with contextlib.closing(Collector([source], None, rows.ALL, Telemetry(), 1, 50_000)) as collector:
                deadline = time.monotonic() + 1
                while time.monotonic() < deadline:
                    snapshot = collector.collect()
                    assert snapshot.statuses["bpf"].state in (State.OK, State.PARTIAL), snapshot.statuses["bpf"]
                    for metric, column in snapshot.readings["bpf"].columns.items():
                        assert len(column.series) == len(column.values)
                        points(snapshot.readings["bpf"], metric)
                    cycles += 1
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the loading process stopped"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert cycles > 20


def test_include_keeps_only_what_is_named(loader: Loader) -> None:
    loader.bulk(2, 2, 1)
    general = General(include=("bpf.programs", "bpf_map_*"), exclude=("*_size",))
    enabled = [row for row in rows.ALL if general.keeps(row.name, row.enabled)]
    with contextlib.closing(Collector([made()], None, enabled, Telemetry(), 1, 1000)) as collector:
        reading = collector.collect().readings["bpf"]
    assert {metric.name for metric in reading.columns} == {"bpf.programs", "bpf_map_info", "bpf_map_max_entries"}


@pytest.mark.system
def test_opened_and_closed_it_leaves_no_program(loader: Loader) -> None:
    before = {number for number, entry in bpftool("prog").items() if entry.get("name", "").startswith("otel_")}
    with opened(engine="iterator") as source:
        source.read()
        mine = {number for number, entry in bpftool("prog").items() if entry.get("name", "").startswith("otel_")} - before
    assert mine
    deadline = time.monotonic() + 5
    while mine & bpftool("prog").keys():
        assert time.monotonic() < deadline
        time.sleep(0.05)
