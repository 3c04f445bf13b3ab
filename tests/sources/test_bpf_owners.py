"""Whose BPF objects are: by who holds them, by the links to them, by the cgroups they are attached to."""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import Owner
from otel_hostmetrics.kernel.bpf_cgroups import CgroupAttachment
from otel_hostmetrics.kernel.bpf_holders import Holder
from otel_hostmetrics.kernel.bpf_objects import Kind, Link, LinkDetail, Program
from otel_hostmetrics.sources.bpf.owners import owners


def program(number: int, *maps: int) -> Program:
    return Program(number, 1, "00" * 8, "p", None, 0, 0, None, None, None, maps, None, None, None, None, None)


def programs(*those: Program) -> dict[int, Program]:
    return {each.id: each for each in those}


def link(number: int, program_id: int, cgroup: int = 0) -> Link:
    return Link(number, 3, program_id, LinkDetail(cgroup_id=cgroup) if cgroup else None)


def links(*those: Link) -> dict[int, Link]:
    return {each.id: each for each in those}


def holder(kind: Kind, number: int, pid: int, start: int = 0) -> Holder:
    return Holder(kind, number, pid, start, "comm", 1)


def test_the_oldest_holder_owns() -> None:
    found = owners([holder("map", 1, 30, 5), holder("map", 1, 20, 7), holder("program", 2, 8, 9), holder("program", 2, 7, 9)], [], {}, {})
    assert found.maps == {1: Owner(30)}
    assert found.programs == {2: Owner(7)}


def test_who_holds_a_link_owns_its_program_and_the_programs_maps() -> None:
    found = owners([holder("link", 9, 30)], [], programs(program(1, 5, 6), program(2, 6, 7)), links(link(9, 1)))
    assert found.links == {9: Owner(30)}
    assert found.programs == {1: Owner(30)}
    assert found.maps == {5: Owner(30), 6: Owner(30)}


def test_who_holds_a_program_owns_links_that_nobody_holds() -> None:
    found = owners([holder("program", 1, 30), holder("link", 8, 40)], [], programs(program(1)), links(link(8, 1), link(9, 1, cgroup=77)))
    assert found.programs == {1: Owner(30)}
    assert found.links == {8: Owner(40), 9: Owner(30)}


def test_without_a_holder_it_is_the_cgroups() -> None:
    attached = [CgroupAttachment("/b", 2, 0, 1), CgroupAttachment("/a", 1, 0, 1), CgroupAttachment("/c", 3, 0, 2)]
    found = owners([holder("program", 2, 30)], attached, programs(program(1, 5), program(2, 5)), {})
    assert found.programs == {1: Owner(cgroup="/a"), 2: Owner(30)}
    assert found.maps == {5: Owner(cgroup="/a")}


def test_a_link_to_a_cgroup_tells_it_by_its_id() -> None:
    found = owners([], [], programs(program(1)), links(link(9, 1, cgroup=77), link(10, 3)))
    assert found.programs == {1: Owner(cgroup_id=77)}
    assert found.links == {9: Owner(cgroup_id=77)}
    with_path = owners([], [CgroupAttachment("/a", 77, 0, 1)], programs(program(1)), links(link(9, 1, cgroup=77)))
    assert with_path.links == {9: Owner(cgroup="/a")}


def test_a_map_of_its_own_holder_is_not_the_programs() -> None:
    found = owners([holder("program", 1, 30), holder("map", 5, 40)], [], programs(program(1, 5)), {})
    assert found.maps == {5: Owner(40)}


def test_nothing_known_nobodys() -> None:
    assert owners([], [], programs(program(1, 5)), links(link(9, 1))) == ({}, {}, {})
