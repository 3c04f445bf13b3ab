"""Objects by id, compared with what bpftool says about the same objects."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, LINK_TYPES, MAP_TYPES, PERF_EVENT_TYPES, PROGRAM_TYPES, name_of
from otel_hostmetrics.kernel.bpf_objects import Kind, LinkDetail
from otel_hostmetrics.kernel.bpf_stats import StatsSwitch, sysctl_enabled
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.kernel.as_nobody import as_nobody
from tests.live.bpfload import Loader
from tests.live.zoo import LONG_NAME, PROBED, cgroup2

Zoo = tuple[Loader, dict[str, int]]


def bpftool(kind: str) -> dict[int, dict[str, Any]]:
    tool = shutil.which("bpftool", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert tool, "bpftool is not installed: apt-get install bpftool"
    output = subprocess.run([tool, "-j", kind, "show"], check=True, capture_output=True, timeout=30).stdout
    return {entry["id"]: entry for entry in json.loads(output)}


def known(theirs: str | int, table: tuple[str, ...], number: int) -> bool:
    """Whether bpftool's word for a type is ours; versions older than the kernel print the number (7.1: netfilter, tcx...)."""
    return theirs in (number, str(number)) or theirs == name_of(table, number)


@pytest.mark.system
def test_programs_as_bpftool_shows_them(zoo: Zoo) -> None:
    theirs = bpftool("prog")
    objects = ObjectsById()
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for number in zoo[0].ids["program"]:
        ours, other = objects.program(number), theirs[number]
        assert ours is not None
        assert known(other["type"], PROGRAM_TYPES, ours.type)
        assert (ours.full_name or ours.name) == other["name"]
        assert (ours.tag, ours.gpl_compatible, ours.uid) == (other["tag"], other["gpl_compatible"], other["uid"])
        assert (ours.translated_bytes, ours.jited_bytes) == (other["bytes_xlated"], other["bytes_jited"])
        assert (ours.memory_bytes, ours.btf_id) == (other["bytes_memlock"], other.get("btf_id", 0))
        assert list(ours.map_ids or ()) == other.get("map_ids", [])
        assert ours.load_time_ns is not None
        assert abs(boot + ours.load_time_ns / 1e9 - other["loaded_at"]) < 2


@pytest.mark.system
def test_maps_as_bpftool_shows_them(loader: Loader) -> None:
    loader.bulk(0, 12, 0)
    theirs = bpftool("map")
    objects = ObjectsById()
    for number in loader.ids["map"]:
        ours, other = objects.map(number), theirs[number]
        assert ours is not None
        assert known(other["type"], MAP_TYPES, ours.type)
        assert (ours.name, ours.flags, ours.max_entries) == (other["name"], other["flags"], other["max_entries"])
        assert (ours.key_bytes, ours.value_bytes) == (other["bytes_key"], other["bytes_value"])
        assert (ours.memory_bytes, ours.frozen) == (other["bytes_memlock"], bool(other["frozen"]))


@pytest.mark.system
def test_links_as_bpftool_shows_them(zoo: Zoo) -> None:
    """bpftool 7.1 names no detail of xdp, perf_event, netfilter, tcx and uprobe_multi: these are in the next test."""
    theirs = bpftool("link")
    objects = ObjectsById()
    for number in zoo[0].ids["link"]:
        ours, other = objects.link(number), theirs[number]
        assert ours is not None
        assert ours.detail is not None
        assert known(other["type"], LINK_TYPES, ours.type)
        assert ours.program_id == other["prog_id"]
        detail = ours.detail
        for value, field in (
            (detail.target_name, "tp_name" if "tp_name" in other and name_of(LINK_TYPES, ours.type) == "raw_tracepoint" else "target_name"),
            (detail.cgroup_id, "cgroup_id"),
            (detail.netns_inode, "netns_ino"),
            (detail.map_id, "map_id"),
            (detail.pid, "pid"),
        ):
            assert value == other.get(field, value)
        if isinstance(other.get("attach_type"), str):
            assert detail.attach_type is not None
            assert name_of(ATTACH_TYPES, detail.attach_type) == other["attach_type"]


def test_links_tell_what_they_were_attached_to(zoo: Zoo) -> None:
    loader, created = zoo
    expected = {
        "cgroup": LinkDetail(attach_type=ATTACH_TYPES.index("cgroup_inet_ingress"), cgroup_id=os.stat(cgroup2()).st_ino),
        "raw_tracepoint": LinkDetail(target_name="sys_enter"),
        "xdp": LinkDetail(ifindex=1),
        "tcx": LinkDetail(ifindex=1, attach_type=ATTACH_TYPES.index("tcx_ingress")),
        "iter_task": LinkDetail(target_name="task", pid=os.getpid()),
        "iter_map": LinkDetail(target_name="bpf_map_elem", map_id=loader.ids["map"][0]),
        "netns": LinkDetail(attach_type=ATTACH_TYPES.index("sk_lookup"), netns_inode=os.stat("/proc/self/ns/net").st_ino),
        "netfilter": LinkDetail(protocol_family=2, hook=0, priority=-128),
        "perf_software": LinkDetail(perf_type=PERF_EVENT_TYPES.index("event")),
        "perf_tracepoint": LinkDetail(perf_type=PERF_EVENT_TYPES.index("tracepoint"), target_name="sched_switch"),
    }
    objects = ObjectsById()
    assert created.keys() >= {"cgroup", "raw_tracepoint", "xdp", "iter_task"}, loader.refused
    for name in expected.keys() & created.keys():
        link = objects.link(created[name])
        assert link is not None
        assert link.detail == expected[name], name


@pytest.mark.parametrize(("species", "expected"), [("perf_uprobe", {"perf_type": 1, "offset": PROBED}), ("uprobe_multi", {"places": 2})])
def test_uprobes_tell_their_file(zoo: Zoo, species: str, expected: dict[str, int]) -> None:
    loader, created = zoo
    if species in loader.refused:
        pytest.skip(f"{species}: {loader.refused[species]}")
    link = ObjectsById().link(created[species])
    assert link is not None
    assert link.detail is not None
    assert {key: getattr(link.detail, key) for key in expected} == expected
    assert str(link.detail.target_name).endswith("/true")


def test_a_cut_name_is_completed_from_btf(zoo: Zoo) -> None:
    programs = map(ObjectsById().program, zoo[0].ids["program"])
    assert LONG_NAME in [program.full_name for program in programs if program and program.name == LONG_NAME[:15]]


def test_a_program_with_more_maps_than_the_first_request_has_room_for(loader: Loader) -> None:
    number_of_maps = 80
    maps = [loader.map(name=f"many_{index}") for index in range(number_of_maps)]
    loader.program(maps=maps[:60])
    small = ObjectsById().program(loader.ids["program"][0], memory=False)
    assert small is not None
    assert set(small.map_ids or ()) == set(loader.ids["map"][:60])
    for fd in maps[60:]:
        loader.bind(loader.fds[-1], fd)
    large = ObjectsById().program(loader.ids["program"][0], memory=False)
    assert large is not None
    assert sorted(large.map_ids or ()) == loader.ids["map"]


def test_what_is_gone_is_none(loader: Loader) -> None:
    loader.bulk(1, 1, 1)
    objects = ObjectsById()
    program, map_, link = loader.ids["program"][0], loader.ids["map"][0], loader.ids["link"][0]
    assert objects.program(program)
    assert objects.map(map_)
    assert objects.link(link)
    loader.close()
    assert _eventually_none(lambda: objects.link(link))
    assert _eventually_none(lambda: objects.run_stats(program))
    assert _eventually_none(lambda: objects.map(map_))


def _eventually_none(read: Any) -> bool:
    """The kernel frees objects a grace period after the last descriptor."""
    deadline = time.monotonic() + 5
    while (value := read()) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    return value is None


def test_run_statistics_count_while_the_switch_is_on(loader: Loader) -> None:
    fd = loader.program("socket_filter")
    objects = ObjectsById()
    number = loader.ids["program"][0]
    if sysctl_enabled(HostFS()):
        pytest.skip("kernel.bpf_stats_enabled is on")
    loader.run(fd, 10)
    assert objects.run_stats(number) == (0, 0, 0)
    with StatsSwitch() as switch:
        assert switch.is_on
        loader.run(fd, 1000)
    assert not switch.is_on
    loader.run(fd, 10)
    stats = objects.run_stats(number)
    assert stats is not None
    assert stats.runs == 1000
    assert 0 < stats.time_ns < 1_000_000_000


def test_enumeration_during_load_and_unload() -> None:
    """Two seconds of objects that come and go: no error, and every record is of the id that was asked for."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                with Loader() as loader:
                    loader.bulk(30, 20, 10)
        finally:
            os._exit(1)
    try:
        objects, read, gone = ObjectsById(), 0, 0
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            for kind, get in (("program", objects.program), ("map", objects.map), ("link", objects.link)):
                for number in objects.ids(kind):  # type: ignore[arg-type]
                    record = get(number)
                    read += 1
                    gone += record is None
                    assert record is None or record.id == number
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the loading process stopped"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert read > 1000
    assert gone > 0


@pytest.mark.parametrize("kind", ["program", "map", "link"])
def test_without_the_capability_it_says_which(kind: Kind) -> None:
    def refused(read: Callable[[], object]) -> str:
        try:
            return repr(read())
        except Unavailable as error:
            return f"{error.reason.name} {error.needs}"

    assert as_nobody(lambda: refused(lambda: ObjectsById().ids(kind))) == "DENIED CAP_SYS_ADMIN"
    assert as_nobody(lambda: refused(lambda: getattr(ObjectsById(), kind)(1))) == "DENIED CAP_SYS_ADMIN"
    assert as_nobody(lambda: refused(StatsSwitch().open)) == "DENIED CAP_SYS_ADMIN"


_NEW_NETWORK, _XDP, _BPF_XDP = 0x40000000, PROGRAM_TYPES.index("xdp"), ATTACH_TYPES.index("xdp")


def _attach_for_ever() -> None:
    """XDP programs on the loopback interface of a network namespace of our own."""
    assert ctypes.CDLL(None).unshare(_NEW_NETWORK) == 0
    with Loader() as loader:
        program = loader.program("xdp", returns=2)
        while True:
            try:
                os.close(bpf.bpf(bpf.LINK_CREATE, struct.pack("=IIII", program, 1, _BPF_XDP, 0)))
            except OSError as error:
                if error.errno != errno.EBUSY:  # who has just opened the last one by its id keeps it attached
                    raise


def test_a_link_that_is_being_attached_is_not_there_yet() -> None:
    """It is listed before it can be opened: EAGAIN."""
    child = os.fork()
    if child == 0:
        try:
            _attach_for_ever()
        finally:
            os._exit(1)
    objects, rounds = ObjectsById(), 0
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            for number in objects.ids("link"):
                objects.link(number)
            rounds += 1
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the attaching process stopped"
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has been waited for
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert rounds > 100
