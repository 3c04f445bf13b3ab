"""The processes that used most of their workloads' energy; opt-in, for it reads /proc/PID/stat of every process."""

from __future__ import annotations

import heapq
import os

from otel_hostmetrics.attribution.groups import Account, Group, Groups
from otel_hostmetrics.attribution.split import split
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Owner, Series
from otel_hostmetrics.catalogue.process import EXECUTABLE, PID, process
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.proc_exe import Executables
from otel_hostmetrics.kernel.proc_times import ProcessTime, processes
from otel_hostmetrics.model import Column

_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

_Key = tuple[int, int]  # pid, start: a pid alone would hand joules down to whoever gets it next


class _Process(Account):
    """*name* is the one in /proc/PID/stat when it was last charged."""

    __slots__ = ("name",)

    def __init__(self, series: Series) -> None:
        super().__init__(series)
        self.name = b""


class Processes:
    """Inside their workload: together they never get more than it got."""

    def __init__(self, proc: str, groups: Groups, most: int) -> None:
        self._proc = proc
        self._groups = groups
        self._most = most
        self._ticks: dict[_Key, int] = {}
        self._accounts: dict[_Key, _Process] = {}
        self._charged: dict[Group, int] = {}  # microjoules of processors, as of the last cycle
        self._executables = Executables(proc)
        self._series: tuple[Series, ...] = ()

    @property
    def problems(self) -> list[Unavailable]:
        """Of the last column."""
        return self._executables.problems

    def column(self, start_ns: int) -> Column:
        """Those with most energy so far, of the processes that live; *start_ns* is when the interval began."""
        before, self._ticks = self._ticks, {}
        used: dict[Group, list[tuple[ProcessTime, int]]] = {}
        for each in processes(self._proc):
            key = (each.pid, each.start)
            self._ticks[key] = each.ticks
            step = each.ticks - before.get(key, 0 if before else each.ticks)
            group = self._groups.of_process(self._proc, each.pid) if step > 0 else None
            if group is not None:
                used.setdefault(group, []).append((each, step * _NS_PER_TICK))
        for group, some in used.items():
            self._charge(group, some, start_ns)
        self._charged = {group: _microjoules(group) for group in self._groups.by_workload.values()}
        self._accounts = {key: account for key, account in self._accounts.items() if key in self._ticks}
        return self._top()

    def _charge(self, group: Group, some: list[tuple[ProcessTime, int]], start_ns: int) -> None:
        energy = _microjoules(group) - self._charged.get(group, 0)
        parts = split(energy, [ns for _, ns in some], group.charged)
        for (each, _), part in zip(some, parts, strict=True):
            key = (each.pid, each.start)
            if key not in self._accounts:
                identity = group.workload
                series = rows.PROCESS.series({PID: each.pid, rows.TYPE: identity.type, rows.NAME: identity.name}, start_ns)
                series.owner = Owner(each.pid, group.path)
                self._accounts[key] = _Process(series)
            self._accounts[key].name = each.name
            self._accounts[key].total += part

    def _top(self) -> Column:
        accounts = heapq.nlargest(self._most, self._accounts.items(), key=lambda item: item[1].total)
        accounts.sort()
        self._executables.begin()
        for (pid, start), account in accounts:
            account.series = _named(account.series, pid, self._executables.name(pid, (start, account.name)))
        series = tuple(account.series for _, account in accounts)
        if series != self._series:
            self._series = series
        return Column(self._series, [account.total / 1e6 for _, account in accounts])


def _named(series: Series, pid: int, executable: str) -> Series:
    """The same, unless it executes something else than the last time; its energy goes on."""
    if series.attributes.get(EXECUTABLE, "") == executable:
        return series
    others = {key: value for key, value in series.attributes.items() if key != EXECUTABLE}
    new = rows.PROCESS.series({**others, **process(pid, executable)}, series.start_ns)
    new.owner = series.owner
    return new


def _microjoules(group: Group) -> int:
    account = group.accounts.get(rows.CPU)
    return account.total if account else 0
