"""Whose an object is: of the process that holds it, else of the cgroup it is attached to.

Many programs have no holder of their own: loaders close it and keep the link, or attach to a cgroup and exit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from otel_hostmetrics.catalogue.model import Owner
from otel_hostmetrics.kernel.bpf_cgroups import CgroupAttachment
from otel_hostmetrics.kernel.bpf_holders import Holder
from otel_hostmetrics.kernel.bpf_objects import Kind, Link, Program

_Ids = Mapping[int, Owner]


class Owners(NamedTuple):
    """By id; without those of which nothing is known."""

    programs: _Ids
    maps: _Ids
    links: _Ids


def owners(
    holders: Iterable[Holder], attachments: Iterable[CgroupAttachment], programs: Mapping[int, Program], links: Mapping[int, Link]
) -> Owners:
    """Of several holders the oldest process counts: children inherit descriptors."""
    held: dict[Kind, dict[int, Owner]] = {"program": {}, "map": {}, "link": {}, "btf": {}}
    for holder in sorted(holders, key=lambda each: (each.start_ns, each.pid)):
        held[holder.kind].setdefault(holder.id, Owner(holder.pid))
    ordered = sorted(links.items(), reverse=True)  # of several the one with the lowest id counts: later items replace earlier ones
    of_programs = {
        **{link.program_id: Owner(cgroup_id=cgroup) for _, link in ordered if (cgroup := _cgroup(link))},
        **{each.program_id: Owner(cgroup=each.cgroup) for each in sorted(attachments, reverse=True)},
        **{link.program_id: held["link"][each] for each, link in ordered if each in held["link"]},
        **held["program"],
    }
    of_maps = {
        each: of_programs[number]
        for number, program in sorted(programs.items(), reverse=True)
        if number in of_programs
        for each in program.map_ids or ()
    }
    of_links = {each: of_programs[link.program_id] for each, link in links.items() if link.program_id in of_programs}
    return Owners(of_programs, {**of_maps, **held["map"]}, {**of_links, **held["link"]})


def _cgroup(link: Link) -> int:
    return (link.detail and link.detail.cgroup_id) or 0
