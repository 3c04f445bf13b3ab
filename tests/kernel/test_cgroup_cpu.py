"""CPU time of cgroups: found, read, come and gone; the running kernel's are in tests/live."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cgroup_cpu import CgroupTimes
from otel_hostmetrics.kernel.counterfiles import Budget
from tests.attribution.machine import Machine

MS = 10**6  # ns
CONTAINER = "/docker/" + "a1" * 32


@pytest.fixture(autouse=True)
def _no_descriptor_left():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


class Times(CgroupTimes):
    def __init__(self, machine: Machine, kept: int = 100, most: int = 100) -> None:
        self.budget = Budget(kept)
        super().__init__(machine.fs, self.budget, most)

    def own(self) -> dict[str, int]:
        return {each.path: each.own for each in self.cgroups}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        free, kept = self.budget.free, sum(each.fd >= 0 for each in self.cgroups)
        self.close()
        self.close()
        assert self.budget.free == free + kept


@pytest.mark.parametrize("kept", [100, 2, 0])
def test_own_time_is_without_that_of_children_whatever_is_kept_open(machine: Machine, kept: int) -> None:
    machine.make("/a/b/c")
    machine.run("/a/b/c", 7 * MS)
    with Times(machine, kept) as times:
        assert times.read() == []
        assert times.own() == {"/a": 0, "/a/b": 0, "/a/b/c": 0}
        for path, ns in (("/a", 1), ("/a/b", 10), ("/a/b/c", 100)):
            machine.run(path, ns * MS)
        times.read()
        assert times.own() == {"/a": MS, "/a/b": 10 * MS, "/a/b/c": 100 * MS}
        times.read()
        assert times.own() == {"/a": 0, "/a/b": 0, "/a/b/c": 0}


def test_what_came_has_all_its_time_and_what_went_leaves_it_to_its_parent(machine: Machine) -> None:
    machine.make("/a/old")
    with Times(machine, 0) as times:
        machine.run("/a/old", 5 * MS)
        times.read()
        machine.make("/a/new/inner")
        machine.run("/a/new/inner", 20 * MS)
        machine.run("/a/old", 3 * MS)
        machine.remove("/a/old")
        lost = times.read()
        assert [(each.path, each.own, each.gone) for each in lost] == [("/a/old", 5 * MS, True)]
        assert times.own() == {"/a": 3 * MS, "/a/new": 0, "/a/new/inner": 20 * MS}


def test_a_directory_in_which_nothing_ran_is_not_looked_at_until_something_does(machine: Machine) -> None:
    machine.make("/a")
    with Times(machine) as times:
        machine.make("/a/b")
        times.read()
        assert times.own() == {"/a": 0}
        machine.run("/a/b", MS)
        times.read()
        assert times.own() == {"/a": 0, "/a/b": MS}


def test_what_a_container_makes_inside_of_it_is_its_own(machine: Machine) -> None:
    machine.make(CONTAINER)
    with Times(machine) as times:
        machine.make(f"{CONTAINER}/init.scope")
        machine.run(f"{CONTAINER}/init.scope", MS)
        times.read()
        assert times.own() == {"/docker": 0, CONTAINER: MS}


def test_one_beyond_the_limit_is_a_part_of_its_parent(machine: Machine) -> None:
    for name in ("a", "b", "c"):
        machine.make(f"/top/{name}")
    with Times(machine, kept=0, most=3) as times:
        assert times.full
        for name in ("a", "b", "c"):
            machine.run(f"/top/{name}", MS)
        times.read()
        assert times.own() == {"/top": MS, "/top/a": MS, "/top/b": MS}
        machine.remove("/top/a")
        times.read()
        machine.run("/top/c", MS)
        times.read()  # there is room: it had 2 ms, of which one was told as its parent's
        assert times.own() == {"/top": 0, "/top/b": 0, "/top/c": MS}


def test_v1_is_preferred_where_both_are_mounted(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 1)
    unified = tmp_path / "sys/fs/cgroup/unified"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("\n")
    machine.make("/a")
    with Times(machine) as times:
        assert list(times.own()) == ["/a"]


def test_no_cgroups_are_absent(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.cgroups / "cgroup.controllers").unlink()
    with pytest.raises(Unavailable) as refused:
        CgroupTimes(machine.fs, Budget(1), 1)
    assert refused.value.reason is Reason.ABSENT


@given(st.lists(st.one_of(st.binary(max_size=40), st.integers(-5, 10**20).map(lambda number: b"usage_usec %d\n" % number)), max_size=6))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_a_time_or_nothing_new(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(Path(directory))
        machine.make("/a")
        with Times(machine) as times:
            for content in contents:
                (machine.cgroups / "a/cpu.stat").write_bytes(content)
                times.read()
                assert all(each.own >= 0 for each in times.cgroups)
