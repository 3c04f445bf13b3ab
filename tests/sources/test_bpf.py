"""The BPF source's own arithmetic: what is bound, arranged, grouped and replayed. The kernel's part is in tests/live."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import Combine, Kind, Metric, Series
from otel_hostmetrics.catalogue.process import EXECUTABLE
from otel_hostmetrics.kernel.bpf_cgroups import CgroupAttachment
from otel_hostmetrics.kernel.bpf_holders import Holder
from otel_hostmetrics.kernel.bpf_iter_maps import NOT_COUNTED, MapEntries
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, LINK_TYPES, MAP_TYPES, PROGRAM_TYPES
from otel_hostmetrics.kernel.bpf_objects import Link, LinkDetail, Map, Program
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Bpf as BpfSettings
from otel_hostmetrics.sources.bpf import links, maps, programs
from otel_hostmetrics.sources.bpf.aggregate import Aggregate
from otel_hostmetrics.sources.bpf.objects import Objects
from otel_hostmetrics.sources.bpf.relations import Relations
from otel_hostmetrics.sources.bpf.surroundings import Surroundings, _attachment, _Table


def program(number: int, **changed: object) -> Program:
    record = Program(
        number, 1 + number % 3, f"{number:016x}", f"name{number % 2}", None, 100, 200, 4096, 5_000_000_000 + number, 0, (), True, 0, 0, 7, 0
    )
    return record._replace(**changed)  # type: ignore[arg-type]


def map_(number: int, **changed: object) -> Map:
    return Map(number, 1 + number % 3, f"map{number}", 4, 8, 10 * number, 0, 0, 0, 0, 4096, False)._replace(**changed)  # type: ignore[arg-type]


class World:
    """Programs as the kernel has them."""

    def __init__(self) -> None:
        self.programs: dict[int, Program] = {}
        self.asked: list[int] = []
        self.objects: Objects[Program] = Objects(self.describe, programs.bind, (rows.PROGRAM_COUNT, "bpf.program.type", PROGRAM_TYPES))

    def describe(self, ids: Collection[int]) -> Mapping[int, Program]:
        self.asked += ids
        return {each: self.programs[each] for each in ids if each in self.programs}

    def check(self, listed: list[int]) -> None:
        """Every column is of the listed programs that have a record, in that order, each value with its own series."""
        objects = self.objects
        present = [each for each in listed if each in objects.records]
        for metric in (rows.PROGRAM_INFO, rows.PROGRAM_MEM, rows.PROGRAM_MEMORY):
            column = objects.columns.get(metric, Column((), ()))
            name = "id" if metric.name.startswith("bpf_") else "bpf.program.id"
            assert [int(series.attributes[name]) for series in column.series] == present
        memory = objects.columns.get(rows.PROGRAM_MEM, Column((), ())).values
        assert list(memory) == [objects.records[each].memory_bytes for each in present]
        values = [number * 10 for number in listed]
        for metric in (rows.PROGRAM_RUN_COUNT, rows.PROGRAM_MISSES):
            live = dict(objects.live(metric, values)).get(metric, Column((), ()))
            assert [series.attributes["bpf.program.id"] for series in live.series] == present
            assert list(live.values) == [number * 10 for number in present]
        assert sum(objects.columns.get(rows.PROGRAM_COUNT, Column((), ())).values) == len(present)  # type: ignore[arg-type]

    def tuples(self) -> dict[Metric, tuple[Series, ...]]:
        live = {metric: self.objects.live_series(metric) for metric in (rows.PROGRAM_RUN_TIME, rows.PROGRAM_RUN_COUNT)}
        found = {metric: column.series for metric, column in self.objects.columns.items()} | live
        return {metric: series for metric, series in found.items() if series}


def same(before: dict[Metric, tuple[Series, ...]], after: dict[Metric, tuple[Series, ...]]) -> bool:
    return before.keys() == after.keys() and all(before[metric] is after[metric] for metric in before)


NUMBERS = st.integers(1, 12)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["sync", "again", "refresh", "rebind"]), st.lists(NUMBERS, unique=True, max_size=8), st.sets(NUMBERS, max_size=4)
    ),
    max_size=12,
)


@given(STEPS)
def test_columns_always_match_what_is_listed(steps):
    """Listings in any order, of which some vanish before they are described, and records that change."""
    world, listed = World(), list[int]()
    for version, (step, numbers, special) in enumerate(steps):
        before = world.tuples()
        if step == "sync":
            listed = numbers
            world.programs = {each: program(each) for each in listed if each not in special}
            world.objects.sync(list(listed))
            assert world.objects.records.keys() <= set(listed)
            assert world.objects.records.keys() >= world.programs.keys()
        elif step == "again":
            world.objects.sync(list(listed))
            assert same(before, world.tuples())
        elif step == "refresh":
            world.programs |= {each: program(each, memory_bytes=4096 * version) for each in special & world.programs.keys()}
            world.objects.refresh(special)
            assert same(before, world.tuples()), "a value that changed changes no series"
        else:
            world.objects.rebind()
            assert same(before, world.tuples())
        world.check(listed)


def test_a_listing_that_did_not_change_costs_no_question_and_keeps_every_tuple():
    world = World()
    world.programs = {each: program(each) for each in range(1, 100)}
    world.objects.sync(list(world.programs))
    before, changes = world.tuples(), world.objects.changes
    asked = len(world.asked)
    for _ in range(3):
        world.objects.sync(list(world.programs))
    assert same(before, world.tuples())
    assert (len(world.asked), world.objects.changes) == (asked, changes)


def test_an_id_without_a_record_is_asked_for_again_without_disturbing_the_others():
    world = World()
    world.programs = {1: program(1)}
    world.objects.sync([1, 2])
    before = world.tuples()
    world.objects.sync([1, 2])
    assert world.asked == [1, 2, 2]
    assert same(before, world.tuples())
    world.programs[2] = program(2)
    world.objects.sync([1, 2])
    world.check([1, 2])
    assert list(world.objects.records) == [1, 2]


def test_everything_gone_is_nothing_left():
    world = World()
    world.programs = {1: program(1)}
    world.objects.sync([1, 2])
    world.objects.sync([])
    assert world.objects.records == {}
    world.check([])


def test_a_refreshed_object_keeps_the_series_that_mean_the_same():
    """Else an exporter of deltas would count everything again."""
    world = World()
    world.programs = {1: program(1), 2: program(2)}
    world.objects.sync([1, 2])
    before = world.tuples()
    world.programs[1] = program(1, map_ids=(7,))
    world.objects.refresh([1, 2])
    after = world.tuples()
    assert [metric.name for metric in after if after[metric] is not before[metric]] == ["bpf_program_info"]
    assert after[rows.PROGRAM_INFO][0].attributes["map_ids"] == "[7]"
    assert after[rows.PROGRAM_INFO][1] is before[rows.PROGRAM_INFO][1]


def test_the_time_of_loading_never_flaps():
    """A program bound a thousand times has one load_time and one start."""
    bound = [programs.bind(program(1, load_time_ns=1_000_000_000 * each + 499_999)) for each in range(1, 4) for _ in range(1000)]
    for group in (bound[:1000], bound[1000:2000], bound[2000:]):
        found = {(series.start_ns, str(series.attributes), value) for each in group for series, value in each.fixed}
        assert len(found) == len(group[0].fixed)
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(bound[0].fixed[0][0].start_ns - boot_ns - 1_000_499_999) < 2_000_000


@pytest.mark.parametrize("field", ["load_time_ns", "uid", "map_ids", "gpl_compatible", "memory_bytes", "verified_instructions", "btf_id"])
def test_what_this_kernel_does_not_tell_is_absent_not_zero(field):
    metrics = {series.metric for series, _ in programs.bind(program(1, **{field: None})).fixed}
    missing = {"load_time_ns": {rows.PROGRAM_LOAD_TIME}, "memory_bytes": {rows.PROGRAM_MEM, rows.PROGRAM_MEMORY}}
    missing["verified_instructions"] = {rows.PROGRAM_VERIFIED, rows.PROGRAM_INSTRUCTIONS}
    everything = {series.metric for series, _ in programs.bind(program(1)).fixed}
    assert everything - metrics == missing.get(field, set())


def map_objects(records: dict[int, Map], binder: maps.Binder) -> Objects[Map]:
    count = rows.MAP_COUNT, "bpf.map.type", MAP_TYPES
    return Objects(lambda ids: {each: records[each] for each in ids if each in records}, binder.bind, count)


def test_entries_and_fill_level_of_the_maps_that_have_a_number():
    binder = maps.Binder()
    objects = map_objects({each: map_(each) for each in (1, 2, 3)} | {4: map_(4, max_entries=0)}, binder)
    binder.counted = frozenset({1, 3, 4})
    objects.sync([1, 2, 3, 4])
    for entries in ([5, NOT_COUNTED, 30, 0], [6, NOT_COUNTED, 15, 0]):
        columns = dict(binder.live(objects, MapEntries([1, 2, 3, 4], entries)))
        assert [series.attributes["bpf.map.id"] for series in columns[rows.MAP_ENTRIES].series] == [1, 3]
        assert list(columns[rows.MAP_ENTRIES].values) == [entries[0], entries[2]]
        assert list(columns[rows.MAP_UTILIZATION].values) == [entries[0] / 10, entries[2] / 30]
    limits = objects.columns[rows.MAP_LIMIT]
    assert list(limits.values) == [10, 20, 30, 0]


def test_what_is_no_number_of_entries_is_no_limit_of_them():
    """Bytes of a ring buffer, and nothing of a storage, which is as large as there are sockets."""
    kinds = dict(enumerate(("ringbuf", "sk_storage", "lru_hash")))
    objects = map_objects({each: map_(each, type=MAP_TYPES.index(name)) for each, name in kinds.items()}, maps.Binder())
    objects.sync([*kinds])
    assert [series.attributes["bpf.map.id"] for series in objects.columns[rows.MAP_LIMIT].series] == [2]
    assert len(objects.columns[rows.MAP_MAX_ENTRIES].series) == len(kinds)


def test_a_link_names_what_it_points_to_as_soon_as_that_is_known():
    binder = links.Binder()
    record = Link(5, LINK_TYPES.index("xdp"), 9, LinkDetail(ifindex=1, cgroup_id=0, netns_inode=77))
    ((_, _), (bare, _)) = binder.bind(record).fixed
    assert bare.attributes == {
        "bpf.link.id": 5,
        "bpf.link.type": "xdp",
        "bpf.program.id": 9,
        "bpf.interface.index": 1,
        "bpf.netns.inode": 77,
    }
    binder.programs, binder.interfaces, binder.netns = {9: program(9, full_name="long")}, {1: "lo"}, 77
    ((_, _), (named, _)) = binder.bind(record).fixed
    assert named.attributes == {**bare.attributes, "bpf.program.name": "long", "bpf.interface.name": "lo"}
    for elsewhere in (LinkDetail(ifindex=1, netns_inode=78), LinkDetail(ifindex=1)):  # an interface of a pod, or not known whose
        ((_, _), (other, _)) = binder.bind(record._replace(detail=elsewhere)).fixed
        assert "bpf.interface.name" not in other.attributes
    struct_ops = binder.bind(Link(6, LINK_TYPES.index("struct_ops"), 0, None)).fixed
    assert struct_ops[1][0].attributes == {"bpf.link.id": 6, "bpf.link.type": "struct_ops"}
    assert [series.attributes["prog_id"] for series, _ in struct_ops[:1]] == ["0"]


def test_relations_keep_their_tuple_while_they_stay_the_same():
    world, relations = World(), Relations()
    world.programs = {1: program(1, map_ids=(7, 8)), 2: program(2, map_ids=(7,)), 3: program(3, map_ids=None)}
    known = {7: map_(7)}
    objects = map_objects(known, maps.Binder())
    world.objects.sync([1, 2, 3])
    objects.sync([7, 8])

    def pairs() -> tuple[Column, list[tuple[object, ...]]]:
        ((_, column),) = relations.columns(world.objects, objects)
        keys = ("bpf.program.id", "bpf.map.id", "bpf.map.name")
        return column, [tuple(series.attributes.get(key) for key in keys) for series in column.series]

    first, found = pairs()
    assert found == [(1, 7, "map7"), (1, 8, None), (2, 7, "map7")]
    assert list(first.values) == [1, 1, 1]
    known[7] = map_(7, memory_bytes=8192)
    objects.refresh([7])
    assert pairs()[0].series is first.series
    known[8] = map_(8)
    objects.sync([7, 8])
    second, found = pairs()
    assert found == [(1, 7, "map7"), (1, 8, "map8"), (2, 7, "map7")]
    assert second.series[0] is first.series[0]


# What happens to one member of a group in one cycle: it counts on, or it is gone; and whether the cycle read the metric at all.
CYCLES = st.lists(st.tuples(st.booleans(), st.dictionaries(st.integers(0, 7), st.integers(0, 50), max_size=6)), max_size=15)


def members(metric: Metric) -> dict[int, Series]:
    """Eight objects in three groups, by name; a seed's attributes have other keys."""
    identity, name, kind = metric.attributes
    return {each: metric.series({identity: each, name: f"group{each % 3}", kind: "xdp"}) for each in range(8)}


def group_of(series: Series) -> object:
    return series.attributes.get("bpf.program.name", series.attributes.get("name"))


@given(CYCLES)
def test_a_counter_of_a_group_is_what_all_its_members_ever_counted(cycles):
    """Also of members that are gone, also after cycles that could not read the metric; it never goes down."""
    aggregate, metric = Aggregate(), rows.PROGRAM_RUN_COUNT
    alive: dict[int, Series] = {}
    counted: dict[Series, int] = {}
    bound: tuple[Series, ...] = ()
    groups: dict[object, Series] = {}
    for number, (read, gains) in enumerate(cycles):
        fresh = members(metric)
        alive = {each: alive.get(each) or fresh[each] for each in gains}
        if not read:
            assert aggregate.apply({}, number) == {}
            continue
        for each, series in alive.items():
            counted[series] = counted.get(series, 0) + gains[each]
        if tuple(alive.values()) != bound:
            bound = tuple(alive.values())
        column = aggregate.apply({metric: Column(bound, [counted[series] for series in bound])}, number)[metric]
        assert [group_of(series) for series in column.series] == list(dict.fromkeys(group_of(series) for series in bound))
        for series, value in zip(column.series, column.values, strict=True):
            assert value == sum(count for member, count in counted.items() if group_of(member) == group_of(series))
            assert groups.setdefault(group_of(series), series) is series, "the same stream for ever"
            assert "bpf.program.id" not in series.attributes


@given(CYCLES)
def test_a_level_that_a_seed_calls_a_counter_starts_anew_where_it_falls(cycles):
    aggregate, metric = Aggregate(), rows.PROGRAM_JITED
    assert (metric.kind, metric.combine) == (Kind.COUNTER, Combine.LIVE)
    pool = members(metric)
    last: dict[object, tuple[Series, int]] = {}
    before = Column((), ())
    for number, (read, sizes) in enumerate(cycles, start=1):
        if not read:
            continue
        bound = tuple(pool[each] for each in sizes)
        if bound == before.series:
            bound = before.series
        before = Column(bound, list(sizes.values()))
        column = aggregate.apply({metric: before}, number)[metric]
        for series, value in zip(column.series, column.values, strict=True):
            name = group_of(series)
            assert value == sum(size for each, size in sizes.items() if group_of(pool[each]) == name)
            known, level = last.get(name, (None, 0))
            if known is not None and value < level:
                assert series is not known
                assert series.start_ns == number > known.start_ns
            last[name] = series, int(value)  # type: ignore[arg-type]


def test_a_group_s_tuple_is_the_same_while_its_members_are():
    aggregate, metric = Aggregate(), rows.PROGRAM_RUN_COUNT
    bound = tuple(members(metric).values())
    columns = [aggregate.apply({metric: Column(bound, [each] * 8)}, each)[metric] for each in range(3)]
    assert columns[0].series is columns[1].series is columns[2].series
    assert [list(column.values) for column in columns] == [[0, 0, 0], [3, 3, 2], [6, 6, 4]]


def test_the_highest_of_a_group_and_what_has_no_meaning_for_one():
    aggregate = Aggregate()
    utilization = rows.MAP_UTILIZATION
    series = tuple(utilization.series({"bpf.map.id": each, "bpf.map.name": "m", "bpf.map.type": "hash"}) for each in range(3))
    pin = rows.OBJECT_PIN.series({"bpf.object.type": "map", "bpf.object.id": 1, "bpf.pin.path": "/x"})
    grouped = aggregate.apply({utilization: Column(series, [0.1, 0.7, 0.3]), rows.OBJECT_PIN: Column((pin,), [1])}, 1)
    assert list(grouped) == [utilization]
    assert list(grouped[utilization].values) == [0.7]
    assert grouped[utilization].series[0].attributes == {"bpf.map.name": "m", "bpf.map.type": "hash"}


def test_groups_that_are_gone_are_remembered_within_bounds():
    """Names that are new with every load; the oldest of 10 000 groups without members is forgotten, and starts anew."""
    aggregate, metric = Aggregate(), rows.PROGRAM_RUN_COUNT
    for start in range(0, 12_000, 1000):
        bound = tuple(Series(metric, {"bpf.program.id": each, "bpf.program.name": f"n{each}"}, 1) for each in range(start, start + 1000))
        aggregate.apply({metric: Column(bound, [5] * 1000)}, start)
    aggregate.apply({metric: Column((), [])}, 1)
    back = tuple(Series(metric, {"bpf.program.id": 9, "bpf.program.name": f"n{each}"}, 7) for each in (0, 11_999))
    column = aggregate.apply({metric: Column(back, [1, 1])}, 2)[metric]
    assert list(column.values) == [1, 6]
    assert [series.start_ns for series in column.series] == [7, 1]


def test_a_table_keeps_its_tuple_while_its_keys_are_the_same_in_any_order():
    table = _Table(rows.OBJECT_PIN)

    def fill(*paths: str) -> Column:
        def labels(path: str) -> dict[str, str | int | bool | float]:
            return {"bpf.object.type": "map", "bpf.object.id": 1, "bpf.pin.path": path}

        table.fill((path, lambda path=path: labels(path), len(path)) for path in paths)  # type: ignore[misc]
        return table.column

    first = fill("a", "bb")
    second = fill("bb", "a")
    assert second.series is first.series
    assert list(second.values) == [1, 2]
    third = fill("bb", "ccc")
    assert third.series[0] is first.series[1]
    assert list(third.values) == [2, 3]
    assert fill() == ((), ())


@pytest.mark.parametrize("held", [None, False, True])
def test_a_program_of_a_cgroup_is_held_or_not_or_that_is_not_known(held):
    attachment = CgroupAttachment("/a", 1, ATTACH_TYPES.index("cgroup_device"), 9)
    labels = _attachment(attachment, {9: program(9)}, held)
    assert labels.get("bpf.program.held") is held
    assert labels["bpf.program.name"] == "name1"
    assert rows.CGROUP_PROGRAM.series(labels).attributes["bpf.attach.type"] == "cgroup_device"


def test_a_holder_s_attributes_are_those_of_the_row():
    from otel_hostmetrics.sources.bpf.surroundings import _holder

    labels = _holder(Holder("map", 3, 42, 5_000_000_000, "comm", 2), "loader")
    assert rows.OBJECT_HOLDER.series(labels).attributes["process.pid"] == 42
    assert str(labels["process.creation.time"]).endswith("Z")


def test_a_holder_has_the_name_of_its_executable(tmp_path):
    """Read once for each process, not for each object; the pid of a later one has no part in it."""
    (tmp_path / "proc/42").mkdir(parents=True)
    (tmp_path / "proc/42/exe").symlink_to("/usr/sbin/loader (deleted)")
    found = [Holder("map", 3, 42, 5_000_000_000, "comm", 2), Holder("program", 4, 42, 5_000_000_000, "comm", 1)]
    surroundings = Surroundings(HostFS(str(tmp_path)), BpfSettings(pins=False, cgroups=False), lambda: (found, []))

    def names():
        surroundings.refresh({}, {})
        return [each.attributes.get(EXECUTABLE) for each in dict(surroundings.columns())[rows.OBJECT_HOLDER].series]

    assert names() == ["loader", "loader"]
    (tmp_path / "proc/42/exe").unlink()
    assert names() == ["loader", "loader"]
    found[:] = [each._replace(start_ns=6_000_000_000) for each in found]
    assert names() == [None, None]
    assert surroundings.problems == []
