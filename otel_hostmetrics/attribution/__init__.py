"""Energy by workload: what others measured in this cycle, split by who used the processors and GPUs.

Of a component's energy the share of time in which it was busy is *active*, the rest *idle*; of a GPU whose idle power is known,
idle is what it takes anyway (idle.py). Active energy of processors and of the memory behind them goes to workloads by CPU time of
their cgroups (groups.py), that of GPUs by the use of their processes (gpus.py); what is used by none is *unattributed*. All are
integers and the last one is what is left of the whole, so that the sum is the measured energy, whatever was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from otel_hostmetrics.attribution.energy import Columns, Meters, Step, points
from otel_hostmetrics.attribution.gpus import WHOLE, Gpus, Use
from otel_hostmetrics.attribution.groups import Groups
from otel_hostmetrics.attribution.idle import Idle
from otel_hostmetrics.attribution.ledger import Ledger
from otel_hostmetrics.attribution.processes import Processes
from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import rlimit
from otel_hostmetrics.kernel.cgroup_cpu import CgroupTimes
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.proc_stat import CpuTime, ProcStat
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Attribution as Settings

_APART = 1.0  # s: the first reading of energy has nothing to split
_FULL = "reached: the CPU time of more cgroups counts as that of the ones around them"


class Attribution:
    """Read after all sources; *columns* of them are given first."""

    name: ClassVar[str] = "workload-energy"
    metrics: ClassVar[tuple[Metric, ...]] = rows.ALL
    blocking: ClassVar[bool] = False

    def __init__(self, fs: HostFS, settings: Settings, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._fs = fs
        self._settings = settings
        self._clock = clock
        self._idle = Idle(settings.gpu_idle_power)
        self._columns: Mapping[str, Columns] = {}
        self._again = _APART
        self._cpu = CpuTime(0, 0)
        self._since_ns = 0  # when the interval began
        self._times: CgroupTimes | None = None
        self._stat: ProcStat | None = None

    def take(self, columns: Mapping[str, Columns]) -> None:
        """What the sources read in this cycle, by source."""
        self._columns = columns

    def open(self) -> None:
        """Raises Unavailable: ABSENT where nobody measures energy, or without cgroups."""
        if not any(points(self._columns, hardware.ENERGY)):
            raise Unavailable(Reason.ABSENT, hardware.ENERGY.name, "no source measures it on this host")
        self._since_ns = time.time_ns()
        self._again = _APART
        self._ledger = Ledger()
        self._meters = Meters()
        self._stat = ProcStat(self._fs)
        self._cpu = self._stat.read()
        self._times = CgroupTimes(self._fs, Budget(rlimit.kept(self._settings.descriptors, 2)), self._settings.max_cgroups)
        self._groups = Groups(self._times)
        self._gpus = Gpus(self._fs.proc(), self._groups)
        self._processes = Processes(self._fs.proc(), self._groups, self._settings.processes)

    def read(self) -> Reading:
        assert self._times is not None  # open() came first
        now_ns = time.time_ns()
        self._ledger.forget(self._groups.read())
        clock_ns = self._clock()
        steps = self._meters.steps(self._columns, clock_ns)
        self._charge_processors([step for step in steps if step.component != rows.GPU])
        self._charge_gpus([step for step in steps if step.component == rows.GPU], clock_ns)
        columns = self._ledger.columns()
        problems = [Unavailable(Reason.UNREADABLE, "attribution.max_cgroups", _FULL)] if self._times.full else []
        if self._settings.processes:
            columns[rows.PROCESS] = self._processes.column(self._since_ns)
            problems += self._processes.problems
        self._since_ns = now_ns
        again, self._again = self._again, 0.0
        facts = {"cgroups": len(self._times.cgroups), "gpu_idle_watts": self._idle.watts}
        return Reading(columns, problems=problems, facts=facts, again=again)

    def _charge_processors(self, steps: Sequence[Step]) -> None:
        """Where nobody could read energy in this cycle, the next one splits that of both by the time of both."""
        if not steps:
            return
        assert self._stat is not None  # open() came first
        before, self._cpu = self._cpu, self._stat.read()
        total = max(self._cpu.total - before.total, 0)
        users = [(group, group.own) for group in self._groups.by_workload.values() if group.own]
        used = sum(own for _, own in users)
        busy = max(self._cpu.busy - before.busy, used)  # /proc/stat may count by ticks and miss what cgroups have
        for component in sorted({step.component for step in steps}):
            energy = sum(step.microjoules for step in steps if step.component == component)
            active = energy * min(busy, total) // total if total else 0
            self._ledger.charge(component, energy, active, users, busy, self._since_ns)
        for group, own in users:
            group.own, group.charged = 0, own
        self._groups.waiting = True  # from now on: on a host that tells only the energy of GPUs there is nothing to wait for

    def _charge_gpus(self, steps: Sequence[Step], now_ns: int) -> None:
        uses = self._gpus.uses(self._columns)
        self._idle.look(self._columns, now_ns)
        for step in steps:
            use = uses.get(step.id)
            active = self._active(step, use, now_ns)
            users, shared = (use.users, use.shared) if use else ((), 1)
            self._ledger.charge(rows.GPU, step.microjoules, active, users, shared, self._since_ns)

    def _active(self, step: Step, use: Use | None, now_ns: int) -> int:
        """Of a GPU's energy: nothing if nobody was there, all of it if nothing tells of its use, and else what is not idle."""
        if self._idle.unused(step, now_ns) and not (use and use.busy):
            self._idle.learn(step)
            return 0
        if use is None:
            return step.microjoules
        idle = self._idle.energy(step)
        return step.microjoules * use.busy // WHOLE if idle is None else step.microjoules - idle

    def close(self) -> None:
        """May be called again."""
        for each in (self._times, self._stat):
            if each is not None:
                each.close()
        self._times = self._stat = None
