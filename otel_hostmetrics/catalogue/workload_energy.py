"""Whose the energy of processors, memory and GPUs was.

For each component, in every interval: ``energy.measured`` = ``energy.idle`` + ``energy.unattributed`` + the sum of
``workload.energy``, exact to the microjoule. A workload's energy is its own, without that of workloads inside it, so that sums
never count twice: what a pod took is the sum by its ``k8s.pod.uid``, of its containers and of itself.
"""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.catalogue.process import EXECUTABLE, PID

TYPE, NAME, COMPONENT = "workload.type", "workload.name", "energy.component"
CONTAINER, POD, SERVICE, CGROUP = "container", "pod", "service", "cgroup"
CPU, MEMORY, GPU = "cpu", "memory", "gpu"

WORKLOAD = Metric(
    "workload.energy", Kind.COUNTER, "J",
    "Active energy by container (its id), pod (its uid: what none of its containers used), systemd service, or other cgroup (its path).",
    "hw.energy x busy share of /proc/stat, by cpu.stat usage_usec or cpuacct.usage of the cgroup; of GPUs: hw.energy less energy.idle, by "
    "process.gpu.utilization or process.gpu.time of its processes",
    (TYPE, NAME, COMPONENT), integer=False,
)  # fmt: skip
PROCESS = Metric(
    "workload.process.energy", Kind.COUNTER, "J",
    "The part of workload.energy of processors that a process used, of those that used most (attribution.processes).",
    "its workload's energy by /proc/PID/stat utime + stime; what exited between two readings is in the workload's only",
    (PID, TYPE, NAME), (EXECUTABLE,), integer=False,
)  # fmt: skip
IDLE = Metric(
    "energy.idle", Kind.COUNTER, "J",
    "Energy that no work took: of the time in which the component had nothing to do; of GPUs, where known, what they take anyway.",
    "hw.energy x (1 - busy share): of processors and memory by /proc/stat, of GPUs by hw.gpu.utilization; of GPUs whose idle power is "
    "known (attribution.gpu_idle_power, or the least seen while hw.gpu.processes was 0): that power x time; all while no process is there",
    (COMPONENT,), integer=False,
)  # fmt: skip
UNATTRIBUTED = Metric(
    "energy.unattributed", Kind.COUNTER, "J",
    "Active energy of no workload: interrupts, kernel threads, processes in the root cgroup, GPU work of which no process is told, "
    "GPUs kept awake by processes that do nothing.",
    "hw.energy less energy.idle and workload.energy", (COMPONENT,), integer=False,
)  # fmt: skip
MEASURED = Metric(
    "energy.measured", Kind.COUNTER, "J", "The energy that was split: of all parts of the component, since attribution began.",
    "hw.energy", (COMPONENT,), integer=False,
)  # fmt: skip

PARTS = (MEASURED, IDLE, UNATTRIBUTED)
ALL = (WORKLOAD, PROCESS, *PARTS)
