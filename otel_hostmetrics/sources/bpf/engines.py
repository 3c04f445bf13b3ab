"""How objects are listed and described: by BPF iterators, or by id. Two engines behind one set of records.

Iterators (kernel/bpf_iter_*.py) need CAP_BPF and CAP_PERFMON and read everything of a kind in one go, run times and
entry counts included. Ids (kernel/bpf_ids.py) need CAP_SYS_ADMIN, work on every kernel from 5.4, and alone know what only
fdinfo tells, such as the memory of maps. ``auto`` lists by iterator and describes by id where the rights allow both; each
kind of object falls back on its own, because iterators came one after the other (maps 5.8, programs 5.9, links 5.19).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, TypeVar

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_holders import Holder, Holders
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from otel_hostmetrics.kernel.bpf_iter_maps import NOT_COUNTED, MapEntries
from otel_hostmetrics.kernel.bpf_iter_programs import ProgramTotals
from otel_hostmetrics.kernel.bpf_iterators import BpfIterators
from otel_hostmetrics.kernel.bpf_objects import Kind, Link, Map, Program
from otel_hostmetrics.kernel.hostfs import HostFS, in_first_pid_namespace

_R = TypeVar("_R", Program, Map, Link)
_CONTAINED = Unavailable(
    Reason.DENIED,
    "holders of BPF objects",
    "only the container's own processes are visible: use hostPID, or mount the host's /proc for --path.procfs",
)
_UNKNOWN = "memory of maps and details of some links are not known"
_DENIED_BY_ID = Unavailable(Reason.DENIED, "BPF objects by id", _UNKNOWN, "CAP_SYS_ADMIN")
_WITHOUT_ID = Unavailable(Reason.UNSUPPORTED, "BPF objects by iterator", f"{_UNKNOWN}; bpf.engine: auto reads them by id")


class Inventory:
    """Everything the source asks of the kernel. Not thread-safe. Raises Unavailable if no engine works at all."""

    def __init__(self, engine: Literal["auto", "iterator", "ids"], fs: HostFS) -> None:
        self.problems: list[Unavailable] = []  # what this host cannot give, told in every cycle
        refused: list[Unavailable] = []
        self._by_id = _opened(_by_id, refused) if engine != "iterator" else None
        self._walk = _opened(BpfIterators, refused) if engine != "ids" else None
        if self._by_id is None and self._walk is None:
            raise refused[-1]  # the iterators' word, which asks for less
        if self._by_id is None and self._walk:
            self.problems += self._walk.problems  # ids cannot stand in for what an old kernel lacks
            self.problems.append(_DENIED_BY_ID if engine == "auto" else _WITHOUT_ID)
        self._fs = fs
        self._first_namespace = in_first_pid_namespace()
        self._scan: Holders = Holders(fs)
        walked = {
            "programs": self._walk,
            "maps": self._walk,
            "links": self._walk and self._walk.links,
            "holders": self._walk and self._walk.holders,
        }
        self.engines = {
            kind: "iterator" if found else "ids" if self._by_id or kind == "holders" else "none" for kind, found in walked.items()
        }

    def programs(self, with_runs: bool) -> ProgramTotals:
        """Ids and run times now. By id, run times cost a descriptor and a call each, so they are read only *with_runs*."""
        if self._walk and (self._by_id is None or self._walk.programs.stats_problem is None):
            return self._walk.programs.totals()
        ids = self._walk.programs.totals().ids if self._walk else self._ids("program")  # before 5.19 iterators have no run times
        return self._runs(self._by_id, ids) if with_runs and self._by_id else ProgramTotals(ids, None, None, None)

    def _runs(self, by_id: ObjectsById, ids: list[int]) -> ProgramTotals:
        # One that vanished between listing and asking is left out: with zeros its counters would go down.
        known = {each: found for each in ids if (found := by_id.run_stats(each)) is not None}
        stats = known.values()
        misses = [each.recursion_misses for each in stats if each.recursion_misses is not None]  # from 5.12 on
        return ProgramTotals(
            list(known), [each.time_ns for each in stats], [each.runs for each in stats], misses if len(misses) == len(known) else None
        )

    def maps(self) -> MapEntries:
        """Ids and numbers of entries now."""
        if self._walk:
            return self._walk.maps.entries()
        ids = self._ids("map")
        return MapEntries(ids, [NOT_COUNTED] * len(ids))

    def links(self) -> tuple[list[int], list[int] | None]:
        """Ids and, where the engine tells, the program of each, which BPF_LINK_UPDATE may have replaced."""
        return self._walk.links.programs() if self._walk and self._walk.links else (self._ids("link"), None)

    def _ids(self, kind: Kind) -> list[int]:
        if self._by_id is None:
            return []
        try:
            return self._by_id.ids(kind)
        except Unavailable as error:
            if error.reason is not Reason.UNSUPPORTED:  # links came with 5.8
                raise
            return []

    def describe_programs(self, ids: Collection[int]) -> dict[int, Program]:
        """Records of these programs; one that is gone is left out."""
        if self._by_id:
            return _found(ids, self._by_id.program)
        return {each.id: each for each in self._walk.programs.details(_AllBut(ids))} if self._walk and ids else {}

    def describe_maps(self, ids: Collection[int]) -> dict[int, Map]:
        """Records of these maps; memory is known only by id."""
        if self._by_id:
            return _found(ids, self._by_id.map)
        return {each.id: each for each in self._walk.maps.details(_AllBut(ids))} if self._walk and ids else {}

    def describe_links(self, ids: Collection[int]) -> dict[int, Link]:
        """Records of these links."""
        walk = self._walk and self._walk.links
        if self._by_id is None:
            return {each.id: each for each in walk.details(_AllBut(ids))} if walk and ids else {}
        found = _found(ids, self._by_id.link)
        devices = {number: detail for number, link in found.items() if (detail := link.detail) and detail.ifindex}
        for each in walk.details(_AllBut(devices)) if walk and devices else ():
            netns = each.detail.netns_inode if each.detail else None  # which only iterators tell
            found[each.id] = found[each.id]._replace(detail=devices[each.id]._replace(netns_inode=netns))
        return found

    def holders(self) -> tuple[list[Holder], list[Unavailable]]:
        """Which process holds what, and for which processes that is not known.

        Iterators see the processes of our own PID namespace only: in a container it takes the host's procfs.
        """
        if not self._first_namespace:
            if self._fs.own_processes_only():
                raise _CONTAINED
            return self._scan.scan()
        walk = self._walk and self._walk.holders
        return (walk.read(), []) if walk else self._scan.scan()

    def close(self) -> None:
        """Unload our iterators."""
        if self._walk:
            self._walk.close()


class _AllBut:
    """What a walk need not decode, as it wants to know it: everything except *ids*."""

    def __init__(self, ids: Collection[int]) -> None:
        self._ids = frozenset(ids)

    def __contains__(self, each: object) -> bool:
        return each not in self._ids


def _found(ids: Collection[int], read: Callable[[int], _R | None]) -> dict[int, _R]:
    return {each: record for each in ids if (record := read(each)) is not None}


_Engine = TypeVar("_Engine", ObjectsById, BpfIterators)


def _opened(make: Callable[[], _Engine], refused: list[Unavailable]) -> _Engine | None:
    try:
        return make()
    except Unavailable as error:
        refused.append(error)
        return None


def _by_id() -> ObjectsById:
    """The id engine, if the rights for it are there."""
    engine = ObjectsById()
    engine.ids("map")
    return engine
