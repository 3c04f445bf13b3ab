"""What processes use of GPUs whose drivers tell it per client (kernel/drm_fdinfo.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, Metric, Number
from otel_hostmetrics.kernel.drm_fdinfo import Client

_Who: TypeAlias = Callable[[int], Attributes]
_Points: TypeAlias = dict[Metric, Sequence[tuple[Attributes, Number]]]
_Key: TypeAlias = tuple[int, str, str]  # pid, hw.id, and an engine or a region of memory


class Usage:
    """Adds up the clients of each process, over cycles: a client that closes must not make a process's counter fall."""

    def __init__(self, drivers: Collection[str]) -> None:
        self._drivers = drivers
        self._clients: dict[tuple[str, str], Client] = {}  # of the last cycle, by device and id
        self._time_ns: dict[_Key, int] = {}

    def points(self, found: Mapping[int, Sequence[Client]], ids: Mapping[str, str], process: _Who) -> _Points:
        """*found* is by pid; *ids* gives hw.id by PCI address, *process* the attributes of a pid."""
        time_ns: dict[_Key, int] = {}
        shares: dict[_Key, float] = {}
        memory: dict[_Key, int] = {}
        mine = [(pid, each) for pid, some in found.items() for each in some if each.device in ids and each.driver in self._drivers]
        for pid, client in mine:
            gpu, before = ids[client.device], self._clients.get((client.device, client.id))
            for engine, work in client.engines.items():
                key = (pid, gpu, engine)
                step = work - (before.engines.get(engine, 0) if before else 0)
                time_ns[key] = time_ns.get(key, self._time_ns.get(key, 0)) + max(step, 0)
            for engine, share in _shares(before, client).items():
                shares[pid, gpu, engine] = shares.get((pid, gpu, engine), 0.0) + share
            for region, size in client.memory.items():
                memory[pid, gpu, region] = memory.get((pid, gpu, region), 0) + size
        self._clients = {(client.device, client.id): client for _, client in mine}
        self._time_ns = time_ns
        who = {pid: process(pid) for pid in {pid for pid, _ in mine}}
        return {
            rows.PROCESS_TIME: [
                ({**who[pid], rows.ID: gpu, rows.ENGINE: engine}, work / 1e9) for (pid, gpu, engine), work in time_ns.items()
            ],
            rows.PROCESS_UTILIZATION: [
                ({**who[pid], rows.ID: gpu, rows.TASK: engine}, share) for (pid, gpu, engine), share in shares.items()
            ],
            rows.PROCESS_MEMORY: [({**who[pid], rows.ID: gpu, rows.REGION: region}, size) for (pid, gpu, region), size in memory.items()],
        }


def _shares(before: Client | None, now: Client) -> dict[str, float]:
    """The part of its time an engine worked for a client since the last cycle; xe tells cycles instead of time."""
    found = {}
    for engine, (work, clock) in now.cycles.items():
        old_work, old_clock = before.cycles.get(engine, (0, 0)) if before else (0, 0)
        if before and engine in before.cycles and clock > old_clock:
            found[engine] = min(max(work - old_work, 0) / (clock - old_clock), 1.0)
    return found
