"""Who used which GPU in the interval, as far as drivers tell it of processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from otel_hostmetrics.attribution.energy import Columns, points
from otel_hostmetrics.attribution.groups import Group, Groups
from otel_hostmetrics.catalogue import gpu
from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.catalogue.process import PID

WHOLE = 1_000_000  # shares of time are in millionths of the interval

_Engine = tuple[int, str, str]  # pid, hw.id, engine


class Use(NamedTuple):
    """Of one GPU."""

    busy: int
    users: list[tuple[Group, int]]
    shared: int  # by all processes, also those of no workload; at least *busy*


class Gpus:
    """Processes are looked up below the procfs *proc*."""

    def __init__(self, proc: str, groups: Groups) -> None:
        self._proc = proc
        self._groups = groups
        self._seconds: dict[_Engine, float] = {}
        self._read_at = 0.0

    def uses(self, columns: Mapping[str, Columns]) -> dict[str, Use]:
        """By hw.id, of GPUs of which anything is told. Of a process's tasks or engines, which overlap, the busiest counts."""
        shares: dict[str, dict[int, int]] = {}
        for attributes, share in self._shares(columns):
            by_pid = shares.setdefault(str(attributes[gpu.ID]), {})
            pid = int(attributes[PID])
            by_pid[pid] = max(by_pid.get(pid, 0), _millionths(share))
        busy: dict[str, int] = {}
        for attributes, share in points(columns, gpu.UTILIZATION):
            part = str(attributes[gpu.ID])
            busy[part] = max(busy.get(part, 0), _millionths(share))
        return {part: self._use(busy.get(part, 0), shares.get(part, {})) for part in busy.keys() | shares.keys()}

    def _use(self, busy: int, by_pid: Mapping[int, int]) -> Use:
        shared = sum(by_pid.values())
        found = [(self._groups.of_process(self._proc, pid), share) for pid, share in by_pid.items() if share]
        users = [(group, share) for group, share in found if group is not None]
        return Use(min(max(busy, shared), WHOLE), users, max(busy, shared))

    def _shares(self, columns: Mapping[str, Columns]) -> Iterator[tuple[Attributes, float]]:
        """As drivers tell them, or from the time they tell."""
        now = time.monotonic()
        interval, self._read_at = now - self._read_at, now
        yield from points(columns, gpu.PROCESS_UTILIZATION)
        before, self._seconds = self._seconds, {}
        for attributes, seconds in points(columns, gpu.PROCESS_TIME):
            key = int(attributes[PID]), str(attributes[gpu.ID]), str(attributes[gpu.ENGINE])
            self._seconds[key] = seconds
            if key in before and interval > 0:
                yield attributes, (seconds - before[key]) / interval


def _millionths(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * WHOLE)
