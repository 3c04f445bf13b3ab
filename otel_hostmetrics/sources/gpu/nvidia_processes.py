"""Who uses NVIDIA's GPUs: points that carry the process's pid."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from otel_hostmetrics.catalogue import gpu as rows
from otel_hostmetrics.catalogue.model import Attributes, Metric, Number
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nvml import LOST, Device, Failure, Nvml
from otel_hostmetrics.kernel.nvml_processes import Processes
from otel_hostmetrics.sources.gpu.processes import alive

_Points = dict[Metric, list[tuple[Attributes, Number]]]
_STRANGERS = Unavailable(
    Reason.UNREADABLE, "processes on GPUs", "none of the pids NVML gives is in our PID namespace: run in the host's (hostPID, --pid=host)"
)


class NvidiaProcesses:
    """Of all devices of one session. Where MIG is on, the instances know their processes, and so does their GPU."""

    def __init__(self, fs: HostFS, nvml: Nvml, devices: Sequence[Device]) -> None:
        now_us = time.time_ns() // 1000
        divided = {device.parent for device in devices}
        self._fs = fs
        self._lists = [(device, Processes(nvml, device, now_us)) for device in devices if device.uuid not in divided]
        self.any = False  # somebody used a GPU in the last cycle
        self.problems: list[Unavailable] = []

    def read(self, awake: Collection[str]) -> dict[Metric, Sequence[tuple[Attributes, Number]]]:
        """Of the devices whose UUIDs are in *awake*. Raises Failure where the driver is in trouble; a lost GPU is left out."""
        points: _Points = {rows.PROCESS_MEMORY: [], rows.PROCESS_UTILIZATION: []}
        spoken_of, living = 0, 0
        for device, processes in self._lists:
            if device.uuid not in awake:
                continue
            try:
                pids = processes.memory()
                samples = processes.utilization()
            except Failure as failure:
                if failure.code not in LOST:
                    raise
                continue
            lives = {pid for pid in {*pids, *(sample.pid for sample in samples)} if alive(self._fs, pid)}
            spoken_of, living = spoken_of + len(pids), living + len(lives)
            for pid, used in pids.items():
                if used is not None and pid in lives:
                    points[rows.PROCESS_MEMORY].append(({rows.PID: pid, rows.ID: device.uuid}, used))
            for pid, *shares in samples:
                if pid in lives:
                    for task, share in zip(("general", "encoder", "decoder"), shares, strict=True):
                        points[rows.PROCESS_UTILIZATION].append(({rows.PID: pid, rows.ID: device.uuid, rows.TASK: task}, share / 100))
        self.any = spoken_of > 0
        self.problems = [_STRANGERS] if spoken_of and not living else []
        return {metric: some for metric, some in points.items() if some}
