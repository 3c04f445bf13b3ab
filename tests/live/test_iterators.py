"""The iterator engine, compared with the engine by id, with /proc and with what was put in."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import time
from collections.abc import Iterator

import pytest

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import bpf, btf
from otel_hostmetrics.kernel.bpf_asm import R2, Code, instruction
from otel_hostmetrics.kernel.bpf_holders import Holders
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from otel_hostmetrics.kernel.bpf_iter import BpfIterator, ReadBuffer
from otel_hostmetrics.kernel.bpf_iter_code import IteratorCode
from otel_hostmetrics.kernel.bpf_iter_links import LinkIterators
from otel_hostmetrics.kernel.bpf_iter_maps import NOT_COUNTED, MapIterators
from otel_hostmetrics.kernel.bpf_iter_percpu import learn_offsets, offsets_map
from otel_hostmetrics.kernel.bpf_iter_programs import ProgramIterators, totals_code
from otel_hostmetrics.kernel.bpf_iterators import FIELDS, FUNCTIONS, BpfIterators
from otel_hostmetrics.kernel.bpf_names import LINK_TYPES
from otel_hostmetrics.kernel.bpf_objects import LinkDetail
from otel_hostmetrics.kernel.bpf_stats import StatsSwitch
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.sources.bpf.engines import Inventory
from tests.live.bpfload import Loader
from tests.live.with_capabilities import BPF, PERFMON, with_capabilities

Zoo = tuple[Loader, dict[str, int]]
CLONE_NEWPID = 0x20000000


@pytest.fixture(scope="module")
def engine(_kernel: None) -> Iterator[BpfIterators]:
    with BpfIterators() as engine:
        assert engine.problems == []
        yield engine


def test_ids_are_those_of_the_kernel(engine: BpfIterators, zoo: Zoo) -> None:
    loader = zoo[0]
    assert set(loader.ids["program"]) <= set(engine.programs.totals().ids)
    assert set(loader.ids["map"]) <= set(engine.maps.entries().ids)
    links = engine.links.programs()  # type: ignore[union-attr]
    assert set(loader.ids["link"]) <= set(links.ids)
    programs = dict(zip(links.ids, links.program_ids, strict=True))
    objects = ObjectsById()
    for number in loader.ids["link"]:
        link = objects.link(number)
        assert link is not None
        assert programs[number] == link.program_id


def test_programs_equal_those_read_by_id(engine: BpfIterators, zoo: Zoo, loader: Loader) -> None:
    """Every field, of programs with maps and without, with BTF, with a name that was cut, and of our own iterators."""
    loader.program(maps=[loader.map(name="one"), loader.map(name="two")])
    ours = {program.id: program for program in engine.programs.details()}
    objects = ObjectsById()
    numbers = {*zoo[0].ids["program"], *loader.ids["program"], *engine.own.programs}
    assert numbers <= ours.keys()
    assert any(ours[number].full_name for number in numbers)
    assert any(len(ours[number].map_ids or ()) == 2 for number in numbers)
    for number in numbers:
        assert ours[number] == objects.program(number)


def test_a_program_with_subprograms_has_the_size_of_all(engine: BpfIterators, loader: Loader) -> None:
    call = instruction(0x85, 0, 1, 0, 1) + instruction(0x95)  # BPF_PSEUDO_CALL: what follows the exit is a function of its own
    loader.program(body=call)
    number = loader.ids["program"][0]
    (ours,) = (program for program in engine.programs.details() if program.id == number)
    assert ours == ObjectsById().program(number)
    loader.program(body=b"")
    (single,) = (program for program in engine.programs.details() if program.id == loader.ids["program"][1])
    assert ours.jited_bytes > single.jited_bytes > 0


def test_many_maps_of_one_program(engine: BpfIterators, loader: Loader) -> None:
    maps = [loader.map(name=f"many_{index}") for index in range(150)]
    loader.program(maps=maps[:50])
    for fd in maps[50:]:
        loader.bind(loader.fds[-1], fd)
    (ours,) = (program for program in engine.programs.details() if program.id == loader.ids["program"][0])
    assert sorted(ours.map_ids or ()) == loader.ids["map"]


def test_what_is_known_is_passed_over(engine: BpfIterators, loader: Loader) -> None:
    loader.bulk(3, 3, 3)
    assert engine.links is not None
    for kind, details, ids in (
        ("program", engine.programs.details, engine.programs.totals().ids),
        ("map", engine.maps.details, engine.maps.entries().ids),
        ("link", engine.links.details, engine.links.programs().ids),
    ):
        new = set(loader.ids[kind])  # type: ignore[index]
        assert new <= {record.id for record in details(set(ids) - new)}
        assert not {record.id for record in details(new)} & new


def test_maps_equal_those_read_by_id(engine: BpfIterators, loader: Loader) -> None:
    """But for the memory, which only fdinfo tells, and the device."""
    loader.bulk(0, 20, 0)
    ours = {map_.id: map_ for map_ in engine.maps.details()}
    objects = ObjectsById()
    for number in (*loader.ids["map"], *engine.own.maps):
        theirs = objects.map(number)
        assert theirs is not None
        assert ours[number] == theirs._replace(memory_bytes=None, ifindex=None)


def test_a_frozen_map_is_seen(engine: BpfIterators, loader: Loader) -> None:
    fd = loader.map()
    bpf.bpf(22, struct.pack("=I", fd))  # BPF_MAP_FREEZE
    assert [map_.frozen for map_ in engine.maps.details() if map_.id == loader.ids["map"][0]] == [True]


def test_links_equal_those_read_by_id(engine: BpfIterators, zoo: Zoo, loader: Loader) -> None:
    """Perf events and multi-probes have no detail here; every other link is told completely."""
    assert engine.links is not None
    with contextlib.suppress(OSError):  # links to socket maps: 6.10
        sockets = loader.map("sockmap", 4, 4, 8)
        loader.link(loader.program("sk_msg", 1, attach="sk_msg_verdict"), sockets, "sk_msg_verdict")
    ours = {link.id: link for link in engine.links.details()}
    objects = ObjectsById()
    for number in {*zoo[0].ids["link"], *loader.ids["link"], *engine.own.links}:
        theirs = objects.link(number)
        assert theirs is not None
        if LINK_TYPES[theirs.type] in ("perf_event", "kprobe_multi", "uprobe_multi"):
            theirs = theirs._replace(detail=None)
        elif theirs.detail and theirs.detail.ifindex:  # lo, of our network namespace, of which only iterators tell
            theirs = theirs._replace(detail=theirs.detail._replace(netns_inode=os.stat("/proc/self/ns/net").st_ino))
        assert ours[number] == theirs


def test_an_iterator_over_one_cgroup_or_thread(engine: BpfIterators, loader: Loader, cgroup: str) -> None:
    """union bpf_iter_link_info: for a cgroup {order, fd}, for tasks {tid, pid, pid_fd}."""
    assert engine.links is not None
    fd = loader.keep(os.open(cgroup, os.O_RDONLY | os.O_CLOEXEC))
    limits = {"cgroup": struct.pack("=II", 1, fd), "task": struct.pack("=III", os.getpid(), 0, 0)}
    for target, limit in limits.items():
        buffer = ctypes.create_string_buffer(limit, len(limit))
        loader.link(loader.iterator(target), 0, "trace_iter", struct.pack("=QI", bpf.address(buffer), len(limit)))
    details = {link.id: link.detail for link in engine.links.details()}
    one, other = (details[number] for number in loader.ids["link"])
    assert one is not None
    assert other is not None
    assert (one.target_name, one.cgroup_id, one.tid) == ("cgroup", os.stat(cgroup).st_ino, None)
    assert (other.target_name, other.tid, other.pid) == ("task", os.getpid(), None)


def test_totals_equal_the_kernels_own_sums(engine: BpfIterators, loader: Loader) -> None:
    """Runs on every CPU we may use; exact once nobody counts any more."""
    fd = loader.program("socket_filter")
    number = loader.ids["program"][0]
    cpus = os.sched_getaffinity(0)
    with StatsSwitch():
        for cpu in cpus:
            os.sched_setaffinity(0, {cpu})
            loader.run(fd, 1000 + cpu)
        os.sched_setaffinity(0, cpus)
    stats = ObjectsById().run_stats(number)
    assert stats is not None
    assert stats.runs >= 1000 * len(cpus)
    totals = engine.programs.totals()
    assert totals.run_time_ns is not None
    assert totals.runs is not None
    assert totals.recursion_misses is not None
    at = totals.ids.index(number)
    assert (totals.run_time_ns[at], totals.runs[at], totals.recursion_misses[at]) == stats


@pytest.mark.parametrize("cpus", [1, 256, 8192])
def test_the_totals_program_is_accepted_for_many_cpus(loader: Loader, cpus: int) -> None:
    """8192 is the most a kernel can be built for. Here every CPU past the real ones stands for one of them again."""
    types, buffer = btf.scan(FIELDS, FUNCTIONS), ReadBuffer()
    offsets = learn_offsets(types, buffer)
    fd = loader.program()
    with StatsSwitch():
        loader.run(fd, 100)
    table = loader.keep(offsets_map((offsets * cpus)[:cpus]))
    with BpfIterator("bpf_prog", totals_code(types, table, cpus), types, buffer) as walk:
        runs = {number: runs for number, _, runs, _ in struct.iter_unpack("=4Q", walk.read())}
    assert cpus < len(offsets) or runs[loader.ids["program"][0]] == 100 * cpus // len(offsets)


def _fill(fd: int, count: int, key_bytes: int = 4, value_bytes: int = 64) -> None:
    value = ctypes.create_string_buffer(value_bytes * os.cpu_count() * 2)  # type: ignore[operator]
    for index in range(count):
        key = ctypes.create_string_buffer(struct.pack("=II", 32, index)[-key_bytes:], key_bytes)
        bpf.bpf(bpf.MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", fd, bpf.address(key), bpf.address(value), 0))


@pytest.mark.parametrize(
    ("kind", "flags", "key"),
    [
        ("hash", 0, 4),
        ("hash", 1, 4),
        ("percpu_hash", 0, 4),
        ("percpu_hash", 1, 4),
        ("lru_hash", 0, 4),
        ("lru_percpu_hash", 0, 4),
        ("lpm_trie", 1, 8),
    ],
)
def test_entries_are_what_was_inserted(engine: BpfIterators, loader: Loader, kind: str, flags: int, key: int) -> None:
    """With and without preallocation (BPF_F_NO_PREALLOC is 1), after inserting, replacing and deleting."""
    fd = loader.map(kind, key, 64, 1000, flags)

    def entries() -> int:
        counted = engine.maps.entries()
        return counted.entries[counted.ids.index(loader.ids["map"][0])]

    assert entries() == 0
    _fill(fd, 300, key)
    assert entries() == 300
    _fill(fd, 310, key)
    assert entries() == 310
    for index in range(110):
        buffer = ctypes.create_string_buffer(struct.pack("=II", 32, index)[-key:], key)
        bpf.bpf(bpf.MAP_DELETE_ELEM, struct.pack("=I4xQQQ", fd, bpf.address(buffer), 0, 0))
    assert entries() == 200


def test_a_hash_of_maps_is_counted_and_other_types_are_not(engine: BpfIterators, loader: Loader) -> None:
    inner = [loader.map() for _ in range(3)]
    outer = loader.keep(bpf.bpf(bpf.MAP_CREATE, struct.pack("=7I16s", 13, 4, 4, 10, 0, inner[0], 0, b"outer")), "map")
    for index, fd in enumerate(inner):
        key, value = (ctypes.create_string_buffer(struct.pack("=I", number), 4) for number in (index, fd))
        bpf.bpf(bpf.MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", outer, bpf.address(key), bpf.address(value), 0))
    loader.map("queue", 0, 8, 8)
    counted = engine.maps.entries()
    entries = dict(zip(counted.ids, counted.entries, strict=True))
    assert [entries[number] for number in loader.ids["map"]] == [*[NOT_COUNTED] * 3, 3, NOT_COUNTED]


def test_holders_equal_a_scan_of_proc(engine: BpfIterators, zoo: Zoo) -> None:
    """Of this process and of a child that inherited its descriptors, with BTF and with two descriptors on one object."""
    assert engine.holders is not None
    twice = os.dup(zoo[0].fds[0])
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        ours = {holder for holder in engine.holders.read() if holder.pid in (os.getpid(), child)}
        theirs = {holder for holder in Holders(HostFS()).scan()[0] if holder.pid in (os.getpid(), child)}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(twice)
    assert ours == theirs
    assert {holder.kind for holder in ours} == {"program", "map", "link", "btf"}
    assert {holder.fds for holder in ours} >= {1, 2}


def _first_of_a_pid_namespace() -> str:
    """Its own pid and those of the holders it finds."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        if ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0 and os.fork() == 0:
            try:
                with BpfIterators() as engine:
                    assert engine.holders is not None
                    held = {holder.pid for holder in engine.holders.read()}
                    os.write(send, json.dumps([os.getpid(), sorted(held)]).encode())
            finally:
                os._exit(0)
        os.wait()
        os._exit(0)
    os.close(send)
    with open(receive) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_in_a_pid_namespace_holders_have_the_pids_seen_there() -> None:
    """As in a pod without hostPID: the first process is 1, and processes outside are not seen."""
    assert json.loads(_first_of_a_pid_namespace()) == [1, [1]]


def _everything() -> str:
    with BpfIterators() as engine:
        programs, links = engine.programs.totals(), engine.links
        assert links is not None
        assert engine.holders is not None
        assert engine.own.programs <= set(programs.ids)
        assert engine.own.programs <= {program.id for program in engine.programs.details()}
        assert engine.own.maps <= set(engine.maps.entries().ids) & {map_.id for map_ in engine.maps.details()}
        assert engine.own.links <= set(links.programs().ids) & {link.id for link in links.details()}
        assert os.getpid() in {holder.pid for holder in engine.holders.read()}
        return f"{os.geteuid()} {engine.problems} {programs.runs is not None}"


def test_two_capabilities_are_enough() -> None:
    """Where listing by id needs CAP_SYS_ADMIN."""
    assert with_capabilities((BPF, PERFMON), _everything) == "65534 [] True"


@pytest.mark.parametrize("capabilities", [(), (BPF,), (PERFMON,)])
def test_less_is_denied_and_says_what_is_missing(capabilities: tuple[int, ...]) -> None:
    def refused() -> str:
        before = os.listdir("/proc/self/fd")
        try:
            return _everything()
        except Unavailable as error:
            leaked = len(os.listdir("/proc/self/fd")) - len(before)
            return f"{error.reason.name} {error.needs}, {leaked} descriptors left"

    assert with_capabilities(capabilities, refused) == "DENIED CAP_BPF+CAP_PERFMON|CAP_SYS_ADMIN, 0 descriptors left"


def test_without_kernel_functions_only_the_numbers_of_entries_are_missing(loader: Loader) -> None:
    """Not every JIT can call them. Here the verifier refuses the call: the function is there and is none for programs."""
    now = btf.scan(FIELDS, FUNCTIONS)
    types = now._replace(functions={**now.functions, "bpf_map_sum_elem_count": now.functions["bpf_iter_bpf_map"]})
    loader.map("hash", entries=10)
    with contextlib.closing(MapIterators(types, ReadBuffer())) as maps:
        assert maps.count_problem is not None
        assert maps.count_problem.what == "entries of BPF hash tables"
        found = dict(zip(*maps.entries(), strict=True))
    assert [found[number] for number in loader.ids["map"]][:1] == [NOT_COUNTED]


def test_run_times_come_by_id_where_iterators_have_none(loader: Loader) -> None:
    """Before Linux 5.19. Types without the field stand for such a kernel."""
    now = btf.scan(FIELDS, FUNCTIONS)
    loader.bulk(1, 0, 0)
    with contextlib.closing(StatsSwitch()) as switch, contextlib.closing(Inventory("auto", HostFS())) as inventory:
        switch.open()
        walk = inventory._walk
        assert walk is not None
        walk.programs.close()
        older = {name: field for name, field in now.fields.items() if name != "bpf_prog_stats.cnt"}
        walk.programs = ProgramIterators(now._replace(fields=older), ReadBuffer())
        try:
            assert inventory.programs(with_runs=False).runs is None
            totals = inventory.programs(with_runs=True)
        finally:
            walk.programs.close()
    assert loader.ids["program"][0] in totals.ids
    assert totals.runs is not None


def test_what_an_older_kernel_lacks_is_none(loader: Loader) -> None:
    """Types without the fields and the function that came last stand for such a kernel."""
    now = btf.scan(FIELDS, FUNCTIONS)
    newer = {"bpf_prog_stats.cnt", "bpf_prog_aux.verified_insns", "bpf_prog.gpl_compatible", "btf.id", "bpf_map.map_extra", "tcx_link.link"}
    newer |= {"lpm_trie.n_entries", "bpf_link.attach_type", "bpf_iter_link.aux.task.pid", "bpf_nf_link.hook_ops.priority", "net.ns.inum"}
    functions = {name: number for name, number in now.functions.items() if name.startswith("bpf_iter_")}
    types = btf.Types({name: field for name, field in now.fields.items() if name not in newer}, functions, now.sizes)
    loader.bulk(1, 0, 1)
    loader.map("hash", entries=10)
    with contextlib.ExitStack() as opened:
        programs, maps, links = ProgramIterators(types, ReadBuffer()), MapIterators(types, ReadBuffer()), LinkIterators(types, ReadBuffer())
        for iterators in (programs, maps, links):
            opened.callback(iterators.close)
        assert programs.stats_problem is not None
        assert programs.stats_problem.what == "bpf_prog_stats.cnt"
        totals = programs.totals()
        assert loader.ids["program"][0] in totals.ids
        assert (totals.run_time_ns, totals.runs, totals.recursion_misses) == (None, None, None)
        theirs = ObjectsById().program(loader.ids["program"][0])
        assert theirs is not None
        (program,) = (program for program in programs.details() if program.id == theirs.id)
        assert program == theirs._replace(gpl_compatible=None, verified_instructions=None, btf_id=None, full_name=program.full_name)
        assert set(maps.entries().entries) == {NOT_COUNTED}
        assert {(map_.extra, map_.btf_id) for map_ in maps.details()} == {(None, None)}
        (detail,) = (link.detail for link in links.details() if link.id == loader.ids["link"][0])
        assert detail == LinkDetail(target_name="task")


def test_the_verifiers_last_words_are_told() -> None:
    types = btf.scan(FIELDS, FUNCTIONS)
    code = IteratorCode(types)
    code.load(R2, R2, 0, 8)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Unavailable, match="R2 !read_ok") as caught:
        BpfIterator("bpf_map", code.finish(), types, ReadBuffer())
    assert caught.value.reason.name == "UNSUPPORTED"
    assert os.listdir("/proc/self/fd") == before


def test_a_target_that_the_kernel_lacks_is_unsupported() -> None:
    with pytest.raises(Unavailable, match="BPF iterator bpf_nothing") as caught:
        BpfIterator("bpf_nothing", Code().assemble(), btf.Types({}, {}, {}), ReadBuffer())
    assert caught.value.reason.name == "UNSUPPORTED"


def test_nothing_of_a_killed_process_is_left() -> None:
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        engine = BpfIterators()
        os.write(send, json.dumps([sorted(ids) for ids in engine.own]).encode())
        signal.pause()
        os._exit(0)
    own = dict(zip(("program", "map", "link"), json.loads(os.read(receive, 4096)), strict=True))
    os.close(receive)
    os.close(send)
    objects = ObjectsById()

    def left() -> int:
        return sum(len(set(own[kind]) & set(objects.ids(kind))) for kind in ("program", "map", "link"))

    assert left() == sum(map(len, own.values())) > 3
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 5
    while left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left() == 0


def test_closing_unloads_and_can_be_repeated() -> None:
    engine = BpfIterators()
    own = engine.own
    engine.close()
    engine.close()
    objects, deadline = ObjectsById(), time.monotonic() + 5
    while own.programs & set(objects.ids("program")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not own.links & set(objects.ids("link"))
    assert not own.programs & set(objects.ids("program"))


def test_reading_during_load_and_unload(engine: BpfIterators) -> None:
    """Two seconds of objects that come and go: no error, whole records, and no id twice in one walk."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                with Loader() as loader:
                    loader.bulk(100, 100, 100)
        finally:
            os._exit(1)
    try:
        assert engine.links is not None
        assert engine.holders is not None
        seen: set[int] = set()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            for ids in (engine.programs.totals().ids, engine.maps.entries().ids, engine.links.programs().ids):
                assert ids == sorted(set(ids))
            for program in engine.programs.details():
                assert len(program.tag) == 16
                assert len(program.map_ids or ()) < 100
            assert all(map_.key_bytes <= 64 for map_ in engine.maps.details())
            seen.update(link.id for link in engine.links.details())
            assert all(holder.id for holder in engine.holders.read())
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the loading process stopped"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(seen) > 100, "nothing came and went"
