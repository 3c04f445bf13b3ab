"""Who uses the devices: objects per device and per process, the memory they have registered, and counters of queue pairs.

The kernel tells which thread made an object (drivers/infiniband/core/restrack.c): objects are summed by the process it is of.
Of a thread that has ended the kernel gives no number any more, though its process may live, and of those in another PID
namespace it gives none either: their objects are summed without a process. For the latter, running the agent in the host's
PID namespace is the cure. A thread that ends between the kernel's answer and our look at it stands for its process once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import TypeAlias, TypeVar

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric
from otel_hostmetrics.catalogue.process import process
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.kernel.nldev_names import QUEUE_PAIR_STATES, QUEUE_PAIR_TYPES
from otel_hostmetrics.kernel.nldev_records import (
    CompletionQueue,
    Connection,
    Context,
    MemoryRegion,
    ProtectionDomain,
    QueuePair,
    SharedReceiveQueue,
)  # fmt: skip
from otel_hostmetrics.kernel.proc_exe import Executables, identity
from otel_hostmetrics.kernel.proc_thread import process_of
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.devices import Device, Owner
from otel_hostmetrics.sources.rdma.table import Point, Tables

_R = TypeVar("_R")
_Object: TypeAlias = CompletionQueue | Connection | Context | MemoryRegion | ProtectionDomain | QueuePair | SharedReceiveQueue
_Whose: TypeAlias = tuple[tuple[str, AttributeValue], ...]


class Resources:
    """Asks the kernel in each cycle; what one device refuses costs itself only."""

    def __init__(self, fs: HostFS, settings: Rdma, devices: Sequence[Device], nldev: Nldev) -> None:
        self._settings = settings
        self._nldev = nldev
        self._devices = [(device, device.number) for device in devices if device.number is not None]
        self._proc = fs.proc()
        self._executables = Executables(self._proc)
        self._processes: dict[int, _Whose] = {}  # of this cycle, by thread
        self._leaders: dict[tuple[int, int], int] = {}  # by thread and identity
        self._leaders_before = self._leaders
        self._tables = Tables()
        self.problems: list[Unavailable] = []
        self._lists: dict[str, Callable[[int], Sequence[_Object]]] = {
            "cq": nldev.completion_queues,
            "pd": nldev.protection_domains,
            "ctx": nldev.contexts,
            "srq": nldev.shared_receive_queues,
            "cm_id": nldev.connections,
        }

    def keep(self, before: Resources, present: Container[Owner]) -> None:
        """Go on where *before* has come to: counters of queue pairs of devices that are *present* still."""
        self._tables.keep(before._tables, present)

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        self.problems = []
        self._processes = {}
        self._leaders_before, self._leaders = self._leaders, {}
        self._executables.begin()
        self._tables.fill([point for device, number in self._devices for point in self._of(device, number)])
        self.problems += self._executables.problems
        return self._tables.columns()

    def _of(self, device: Device, number: int) -> Iterator[Point]:
        present = self._tried(self._nldev.summary, number) or {}
        for kind, count in present.items():
            yield Point(rows.RESOURCES, device.owner, ((rows.RESOURCE_TYPE, kind),), count)
        for kind, ask in self._lists.items():
            if present.get(kind, 1):  # nothing there: nothing to list
                yield from self._counted(device.owner, kind, self._tried(ask, number) or ())
        yield from self._memory(device.owner, self._tried(self._nldev.memory_regions, number) or () if present.get("mr", 1) else ())
        if self._settings.qps and present.get("qp", 1):
            yield from self._queue_pairs(device, self._tried(self._nldev.queue_pairs, number) or ())
        if self._settings.qp_counters:
            for port in device.ports:
                yield from self._counter_sets(port.owner, number)

    def _counter_sets(self, owner: Owner, number: int) -> Iterator[Point]:
        sets = self._tried(lambda device: self._nldev.counter_sets(device, owner.number), number) or ()
        for each in sets:
            named: list[tuple[str, AttributeValue]] = [("rdma.qp.counter_set", each.number)]
            if each.type is not None:
                named.append(("rdma.qp.type", QUEUE_PAIR_TYPES.get(each.type, str(each.type))))
            if each.pid is not None:
                named += self._process(each.pid)
            for name, value in (each.counters or {}).items():
                yield Point(rows.QP_STAT, owner, (*named, (rows.STAT, name)), value)

    def _tried(self, ask: Callable[[int], _R], number: int) -> _R | None:
        try:
            return ask(number)
        except Unavailable as error:
            if error.reason not in (Reason.UNSUPPORTED, Reason.ABSENT):  # an older kernel, or this driver; or gone meanwhile
                self.problems.append(error)
            return None

    def _counted(self, owner: Owner, kind: str, objects: Sequence[_Object]) -> Iterator[Point]:
        for whose, count in Counter(map(self._whose, objects)).items():
            yield Point(rows.PROCESS_RESOURCES, owner, ((rows.RESOURCE_TYPE, kind), *whose), count)

    def _memory(self, owner: Owner, regions: Sequence[MemoryRegion]) -> Iterator[Point]:
        """Regions of each process, and their bytes where the length of all of them is known: a part is not the sum."""
        lengths: dict[_Whose, list[int | None]] = {}
        for region in regions:
            lengths.setdefault(self._whose(region), []).append(region.length)
        yield from self._counted(owner, "mr", regions)
        for whose, each in lengths.items():
            known = [length for length in each if length is not None]
            if len(known) == len(each):
                yield Point(rows.PROCESS_MEMORY, owner, whose, sum(known))

    def _queue_pairs(self, device: Device, pairs: Sequence[QueuePair]) -> Iterator[Point]:
        counts = Counter((self._whose(pair), pair.port or 0, pair.type, pair.state, pair.subtype) for pair in pairs)
        for (whose, port, type_, state, subtype), count in counts.items():
            names: _Whose = (
                ("rdma.qp.type", subtype or QUEUE_PAIR_TYPES.get(type_ or 0, str(type_))),
                ("rdma.qp.state", QUEUE_PAIR_STATES.get(state or 0, str(state))),
            )
            yield Point(rows.PROCESS_QPS, Owner(device.name, port), (*names, *whose), count)

    def _whose(self, each: _Object) -> _Whose:
        """The process; for what the kernel holds, the module."""
        if each.pid is not None:
            return self._process(each.pid)
        return (("rdma.kernel.module", each.kernel),) if each.kernel else ()

    def _process(self, tid: int) -> _Whose:
        """Looked up once a cycle, however many objects it has."""
        found = self._processes.get(tid)
        if found is None:
            pid = self._leader(tid)
            name = self._executables.name(pid, identity(self._proc, pid))
            found = self._processes[tid] = tuple(process(pid, name).items())
        return found

    def _leader(self, tid: int) -> int:
        """Read when the thread is seen for the first time; a thread of which nothing can be read is taken for a process."""
        key = (tid, identity(self._proc, tid))
        found = self._leaders_before.get(key)
        if found is None:
            try:
                found = process_of(self._proc, tid)
            except Unavailable:
                return tid
        self._leaders[key] = found
        return found
