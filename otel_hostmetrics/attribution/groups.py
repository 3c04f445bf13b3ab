"""The CPU time of each workload: of all its cgroups, to the end of their lives."""

from __future__ import annotations

from collections.abc import Iterable

from otel_hostmetrics.attribution.identity import Workload, workload
from otel_hostmetrics.attribution.split import split
from otel_hostmetrics.catalogue.model import Series
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import proc_cgroup
from otel_hostmetrics.kernel.cgroup_cpu import Cgroup, CgroupTimes

_PATIENCE = 10  # readings for which a workload that has ended waits for energy to be readable again


class Account:
    """One series of a counter and its value in microjoules."""

    __slots__ = ("series", "total")

    def __init__(self, series: Series) -> None:
        self.series = series
        self.total = 0


class Group:
    """One workload."""

    __slots__ = ("accounts", "cgroups", "charged", "own", "path", "workload")

    def __init__(self, identity: Workload, path: str) -> None:
        self.workload = identity
        self.path = path  # of its first cgroup
        self.cgroups = 0  # that exist
        self.own = 0  # ns, not yet charged
        self.charged = 0  # ns, in the last interval in which any was
        self.accounts: dict[str, Account] = {}  # by component


class Groups:
    """Workloads by identity."""

    def __init__(self, times: CgroupTimes) -> None:
        self._times = times
        self._of: dict[Cgroup, Group] = {}
        self._aligned: list[Group] = []  # with the cgroups below
        self._cgroups: list[Cgroup] = []
        self._ending: dict[Group, int] = {}  # and the readings since
        self.waiting = False  # whether time that was not charged may still be
        self.by_workload: dict[Workload, Group] = {}

    def read(self) -> list[Workload]:
        """Add what was used since the last reading. Returns the workloads that had ended by then and were told of a last time.

        While *waiting*, one whose time was not charged stays for some more readings: who used it was there.
        """
        ending, self._ending = self._ending, {}
        self._bequeath(self._times.read())
        self._align()
        for each, group in zip(self._cgroups, self._aligned, strict=True):
            if each.own:
                group.own += each.own
        over = [group.workload for group, readings in ending.items() if self._is_over(group, readings)]
        for identity in over:
            self.by_workload.pop(identity, None)
        return over

    def _is_over(self, group: Group, readings: int) -> bool:
        if group.cgroups or group in self._ending:  # it is there again, or was and ended again
            return False
        if self.waiting and group.own and readings < _PATIENCE:
            self._ending[group] = readings + 1
            return False
        return True

    def of_process(self, proc: str, pid: int) -> Group | None:
        """By /proc/PID/cgroup below *proc*; None for a process that is gone, and for one in the root cgroup.

        Its place in the hierarchy whose times these are: in others of a hybrid host it may be in its runtime's service.
        """
        try:
            path = proc_cgroup.path_in(proc_cgroup.read(proc, pid), self._times.controller)
        except Unavailable:
            return None
        return self.by_workload.get(workload(path))

    def _align(self) -> None:
        cgroups = self._times.cgroups
        if self._cgroups is not cgroups or len(self._aligned) != len(cgroups):
            self._cgroups = cgroups
            self._aligned = [self._of.get(each) or self._join(each) for each in cgroups]

    def _join(self, each: Cgroup) -> Group:
        identity = workload(each.path)
        group = self.by_workload.get(identity)
        if group is None:
            group = self.by_workload[identity] = Group(identity, each.path)
        group.cgroups += 1
        self._of[each] = group
        return group

    def _bequeath(self, lost: Iterable[Cgroup]) -> None:
        """What the nearest living cgroup around them used beyond its children was theirs, in proportion to the time before.

        Of those directly below the root it is not known: the root's own time is that of the kernel's threads too.
        """
        around: dict[Cgroup, list[tuple[Group, int]]] = {}
        for each in lost:
            group = self._of.get(each) or self._join(each)
            del self._of[each]
            group.cgroups -= 1
            if not group.cgroups:
                self._ending[group] = 0
            around.setdefault(_living(each), []).append((group, each.own))
        for heir, some in around.items():
            if heir.parent is not None:
                weights = [before for _, before in some]
                for (group, _), part in zip(some, split(heir.own, weights if any(weights) else [1] * len(some)), strict=True):
                    group.own += part
                heir.own = 0


def _living(cgroup: Cgroup) -> Cgroup:
    while cgroup.gone and cgroup.parent is not None:
        cgroup = cgroup.parent
    return cgroup
