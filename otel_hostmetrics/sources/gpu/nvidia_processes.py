"""Who uses NVIDIA's GPUs: points that carry the process's pid."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, Metric, Number
from otel_hostmetrics.catalogue.process import process
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS, in_first_pid_namespace
from otel_hostmetrics.kernel.nvml import LOST, Device, Failure, Nvml
from otel_hostmetrics.kernel.nvml_processes import Processes, Sample
from otel_hostmetrics.kernel.proc_exe import Executables
from otel_hostmetrics.sources.gpu.nvidia_device import identity
from otel_hostmetrics.sources.gpu.processes import hidden, living

_Points = dict[Metric, list[tuple[Attributes, Number]]]
_STRANGERS = Unavailable(
    Reason.UNREADABLE, "processes on GPUs", "none of the pids NVML gives is in our PID namespace: run in the host's (hostPID, --pid=host)"
)
_HIDDEN = Unavailable(Reason.DENIED, "processes on GPUs", "procfs hides those of other users (hidepid)", "CAP_SYS_PTRACE")


class NvidiaProcesses:
    """Of all devices of one session. Where MIG is on, the instances know their processes, and so does their GPU."""

    def __init__(self, fs: HostFS, nvml: Nvml, devices: Sequence[Device]) -> None:
        now_us = time.time_ns() // 1000
        divided = {device.parent for device in devices}
        self._fs = fs
        self._all_seen = in_first_pid_namespace()  # whatever procfs shows: the driver lists the processes of the caller's namespace
        self._executables = Executables(fs.proc())
        self._lists = [(device, Processes(nvml, device, now_us)) for device in devices if device.uuid not in divided]
        # Of every device by itself, and of GPUs of which each instance is known.
        self._counts = [
            (
                identity(device).attributes(rows.PROCESSES, {}),
                frozenset(each.uuid for each in devices if each.parent == device.uuid) or {device.uuid},
            )
            for device in devices
        ]
        self._hidden = False  # somebody whom procfs does not show did so
        self.any = False  # somebody used a GPU in the last cycle
        self.problems: list[Unavailable] = []

    def read(self, awake: Collection[str]) -> dict[Metric, Sequence[tuple[Attributes, Number]]]:
        """Of the devices whose UUIDs are in *awake*. Raises Failure where the driver is in trouble; a lost GPU is left out."""
        points: _Points = {rows.PROCESSES: [], rows.PROCESS_MEMORY: [], rows.PROCESS_UTILIZATION: []}
        users: dict[str, set[int]] = {}
        spoken_of, found, now_us = 0, 0, time.time_ns() // 1000
        self._executables.begin()
        self._hidden = False
        for device, processes in self._lists:
            if device.uuid not in awake:
                continue
            try:
                pids = processes.memory()
                samples = processes.utilization(now_us)
            except Failure as failure:
                if failure.code not in LOST:
                    raise
                continue
            who = self._who({*pids, *(sample.pid for sample in samples)}) if pids or samples else {}
            spoken_of, found = spoken_of + len(pids), found + len(who)
            if processes.complete and self._all_seen and not self._hides(pids.keys() - who.keys()):
                users[device.uuid] = who.keys() & pids.keys()
            if not who:
                continue
            points[rows.PROCESS_MEMORY] += _memory(device, pids, who)
            points[rows.PROCESS_UTILIZATION] += _utilization(device, samples, who)
        points[rows.PROCESSES] += self._counted(users)
        self.any = spoken_of > 0
        self.problems = [_HIDDEN] if self._hidden else [_STRANGERS] if spoken_of and not found else []
        self.problems += self._executables.problems
        return {metric: some for metric, some in points.items() if some}

    def _hides(self, pids: Collection[int]) -> bool:
        """Whether one of those that procfs does not show lives all the same: their number is then not known."""
        hides = any(hidden(self._fs, pid) for pid in pids)
        self._hidden |= hides
        return hides

    def _counted(self, users: Mapping[str, set[int]]) -> Iterator[tuple[Attributes, Number]]:
        for attributes, parts in self._counts:
            if users.keys() >= parts:
                yield attributes, len(set().union(*[users[part] for part in parts]))

    def _who(self, pids: Collection[int]) -> dict[int, Attributes]:
        """Of those that live."""
        found = ((pid, living(self._fs, pid)) for pid in pids)
        return {pid: process(pid, self._executables.name(pid, mark)) for pid, mark in found if mark is not None}


def _memory(device: Device, pids: Mapping[int, int | None], who: Mapping[int, Attributes]) -> Iterator[tuple[Attributes, Number]]:
    for pid, used in pids.items():
        if used is not None and pid in who:
            yield {**who[pid], rows.ID: device.uuid}, used


def _utilization(device: Device, samples: Sequence[Sample], who: Mapping[int, Attributes]) -> Iterator[tuple[Attributes, Number]]:
    for pid, *shares in samples:
        if pid in who:
            for task, share in zip(("general", "encoder", "decoder"), shares, strict=True):
                yield {**who[pid], rows.ID: device.uuid, rows.TASK: task}, share / 100
