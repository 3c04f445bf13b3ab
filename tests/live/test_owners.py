"""Who keeps objects alive: processes, pins and cgroups, on the running kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_cgroups import CgroupAttachment, CgroupPrograms
from otel_hostmetrics.kernel.bpf_holders import Holder, Holders
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, PROGRAM_TYPES
from otel_hostmetrics.kernel.bpf_pins import Pin, Pins
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.kernel.as_nobody import as_nobody
from tests.live.bpfload import Loader

_DEVICE = ATTACH_TYPES.index("cgroup_device")


def held_by(pid: int, holders: list[Holder]) -> set[tuple[str, int, int]]:
    return {(holder.kind, holder.id, holder.fds) for holder in holders if holder.pid == pid}


def test_our_own_objects_are_held_by_us(loader: Loader) -> None:
    loader.bulk(5, 4, 3)
    loader.btf("held")
    second = loader.keep(os.dup(loader.fds[0]))
    assert second >= 0
    holders, _ = Holders(HostFS()).scan()
    expected = {(kind, number, 1) for kind, numbers in loader.ids.items() for number in numbers}
    expected ^= {("map", loader.ids["map"][0], 1), ("map", loader.ids["map"][0], 2)}
    assert held_by(os.getpid(), holders) == expected
    ours = next(holder for holder in holders if holder.pid == os.getpid())
    assert ours.comm == Path("/proc/self/comm").read_text().strip()
    assert 0 < ours.start_ns < time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_process_is_seen_to_open_and_to_exit() -> None:
    """A scan in between believes what is unchanged, and still sees what is new."""
    scanner = Holders(HostFS())
    scanner.scan()
    command = [sys.executable, "-m", "tests.live.bpfload", "--progs", "2", "--maps", "2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert len(held_by(child.pid, scanner.scan()[0])) == 4
        assert len(held_by(child.pid, scanner.scan()[0])) == 4
    assert held_by(child.pid, scanner.scan()[0]) == set()


def test_a_limited_scan_says_what_it_left_out() -> None:
    _, problems = Holders(HostFS(), limit=1).scan()
    assert "left out" in problems[-1].detail
    assert problems[-1].reason is Reason.UNREADABLE


def test_pins_are_found_and_forgotten(loader: Loader, bpffs: Path) -> None:
    program, map_, link = loader.program(), loader.map(), loader.link(loader.iterator(), 0, "trace_iter")
    (bpffs / "deep" / "er").mkdir(parents=True)
    loader.pin(program, f"{bpffs}/program")
    loader.pin(map_, f"{bpffs}/deep/a map")
    loader.pin(link, f"{bpffs}/deep/er/link")
    pins = Pins(HostFS())
    expected = {
        Pin(f"{bpffs}/program", "program", loader.ids["program"][0]),
        Pin(f"{bpffs}/deep/a map", "map", loader.ids["map"][0]),
        Pin(f"{bpffs}/deep/er/link", "link", loader.ids["link"][0]),
    }
    assert ours(bpffs, pins) == expected
    time.sleep(0.06)  # directories are settled now, and remembered
    assert ours(bpffs, pins) == ours(bpffs, pins) == expected
    (bpffs / "deep" / "a map").unlink()
    loader.pin(map_, f"{bpffs}/deep/er/moved")
    moved = Pin(f"{bpffs}/deep/er/moved", "map", loader.ids["map"][0])
    assert ours(bpffs, pins) == expected - {Pin(f"{bpffs}/deep/a map", "map", loader.ids["map"][0])} | {moved}


def test_more_pins_than_the_limit_are_told(loader: Loader, bpffs: Path) -> None:
    map_ = loader.map()
    for number in range(20):
        loader.pin(map_, f"{bpffs}/{number}")
    found, problems = Pins(HostFS(), limit=10).scan()
    assert len(found) == 10
    assert {problem.reason for problem in problems} == {Reason.UNREADABLE}


def ours(bpffs: Path, pins: Pins) -> set[Pin]:
    found, problems = pins.scan()
    assert problems == []
    return {pin for pin in found if pin.path.startswith(f"{bpffs}/")}


def test_programs_of_a_cgroup(loader: Loader, cgroup: str) -> None:
    """Attached the old way, so that no link tells of it, with a second program below."""
    below = f"{cgroup}/below"
    os.mkdir(below)
    try:
        with Loader() as attached:
            attached.attach_cgroup(attached.program("cgroup_device", 1), cgroup, "cgroup_device")
            attached.attach_cgroup(attached.program("cgroup_skb", 1, attach="cgroup_inet_egress"), below, "cgroup_inet_egress")
            device, egress = attached.ids["program"]
            programs = CgroupPrograms(HostFS())
            found, problems = programs.scan()
            name = os.path.basename(cgroup)
            assert problems == []
            on_top = CgroupAttachment(f"/{name}", os.stat(cgroup).st_ino, _DEVICE, device)
            assert on_top in found
            assert CgroupAttachment(f"/{name}/below", os.stat(below).st_ino, ATTACH_TYPES.index("cgroup_inet_egress"), egress) in found
            narrow, _ = programs.scan({PROGRAM_TYPES.index("cgroup_device")})
            assert on_top in narrow
            assert {attachment.attach_type for attachment in narrow} == {_DEVICE}
    finally:
        os.rmdir(below)


def test_no_program_type_no_question() -> None:
    assert CgroupPrograms(HostFS()).scan({PROGRAM_TYPES.index("kprobe")}) == ([], [])


def test_cgroups_without_the_capability(cgroup: str) -> None:
    def scan() -> str:
        try:
            return repr(CgroupPrograms(HostFS()).scan())
        except Unavailable as error:
            return f"{error.reason.name} {error.needs}"

    assert as_nobody(scan) == "DENIED CAP_SYS_ADMIN|CAP_NET_ADMIN"


def test_too_many_cgroups_are_told(cgroup: str) -> None:
    _, problems = CgroupPrograms(HostFS(), limit=1).scan()
    assert [problem.reason for problem in problems] == [Reason.UNREADABLE]


@pytest.mark.parametrize("what", ["program", "map"])
def test_two_holders_of_one_object(loader: Loader, what: str) -> None:
    """A forked child holds what the parent holds."""
    getattr(loader, what)()
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        holders, _ = Holders(HostFS()).scan()
        assert {holder.pid for holder in holders if (holder.kind, holder.id) == (what, loader.ids[what][0])} == {os.getpid(), child}  # type: ignore[index]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
