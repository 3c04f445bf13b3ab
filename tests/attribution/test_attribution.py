"""Whose energy it was."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from otel_hostmetrics.agent import examine
from otel_hostmetrics.attribution import Attribution
from otel_hostmetrics.attribution.identity import Workload, workload
from otel_hostmetrics.catalogue import gpu
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.catalogue.process import EXECUTABLE
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import Column, Reading, State
from otel_hostmetrics.settings import Attribution as Settings
from otel_hostmetrics.settings import General, Paths
from otel_hostmetrics.settings import Settings as Everything
from tests.attribution.cycles import DRAM, GPU, PACKAGE, Cycles, part, points, workloads
from tests.attribution.machine import Machine
from tests.hosts.recorded import unpack

A, B = "a1" * 32, "b2" * 32
UID = "9a1b2c3d-1111-4222-8333-444455556666"
POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
IN_A, IN_B = f"{POD}/cri-containerd-{A}.scope", f"{POD}/cri-containerd-{B}.scope"
SERVICE = "/system.slice/nginx.service"
S = 10**9  # ns


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    machine = Machine(tmp_path, request.param)
    for path in (IN_A, IN_B, SERVICE):
        machine.make(path)
    return machine


def test_active_energy_goes_by_cpu_time_and_the_rest_is_idle_or_of_nobody(machine: Machine) -> None:
    """In two seconds on two processors: 3 s of A, 0.5 s of a service, 0.1 s of kernel threads; 90 % busy."""
    with Cycles(machine, {PACKAGE: 7, DRAM: 1}) as cycles:
        machine.run(IN_A, 3 * S, 2 * S)
        machine.run(SERVICE, S // 2)
        machine.run("", S // 10)
        reading = cycles.cycle({PACKAGE: 107, DRAM: 11})
        assert workloads(reading) == {A: 75, "nginx.service": 12.5}
        assert workloads(reading, "memory") == {A: 7.5, "nginx.service": 1.25}
        assert [part(reading, row) for row in (rows.MEASURED, rows.IDLE, rows.UNATTRIBUTED)] == [100, 10, 2.5]
        owners = {each.attributes[rows.NAME]: each.owner.cgroup for each in reading.columns[rows.WORKLOAD].series if each.owner}
        assert owners == {A: IN_A, "nginx.service": SERVICE}


def test_series_stay_the_same_objects_while_nobody_comes_or_goes(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, S, S)
        first = cycles.cycle({PACKAGE: 1})
        machine.run(IN_A, S, S)
        second = cycles.cycle({PACKAGE: 2})
        assert all(second.columns[metric].series is first.columns[metric].series for metric in first.columns)


def test_a_container_that_came_and_one_that_went_between_two_readings(machine: Machine) -> None:
    """The new one has all its time, the old one its last interval, told once; what lived in between is its pod's."""
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, S, S)
        assert workloads(cycles.cycle({PACKAGE: 10})) == {A: 5}
        machine.run(IN_A, S, 2 * S)
        machine.remove(IN_A)
        machine.run(IN_B, S)
        reading = cycles.cycle({PACKAGE: 30})
        assert workloads(reading) == {A: 10, B: 5}
        machine.make(f"{POD}/cri-containerd-{'c3' * 32}.scope")
        machine.run(f"{POD}/cri-containerd-{'c3' * 32}.scope", S, S)
        assert workloads(cycles.cycle({PACKAGE: 40})) == {B: 5, "c3" * 32: 5}
        machine.make(f"{POD}/cri-containerd-{'d4' * 32}.scope")
        machine.run(f"{POD}/cri-containerd-{'d4' * 32}.scope", S, S)
        machine.remove(f"{POD}/cri-containerd-{'d4' * 32}.scope")
        assert workloads(cycles.cycle({PACKAGE: 50})) == {B: 5, "c3" * 32: 5, UID: 5}


def test_a_pod_that_went_with_its_containers(machine: Machine) -> None:
    """Both shares are by what they used before. Files are opened each time: there is no descriptor to outlive them."""
    with Cycles(machine, {PACKAGE: 0}, descriptors=0) as cycles:
        machine.run(IN_A, 3 * S, 2 * S)
        machine.run(IN_B, S)
        assert workloads(cycles.cycle({PACKAGE: 40})) == {A: 30, B: 10}
        machine.run(IN_A, 4 * S, 2 * S)
        machine.remove(POD)
        reading = cycles.cycle({PACKAGE: 80})
        assert (workloads(reading)[A], workloads(reading)[B]) == (60, 20)
        assert workloads(cycles.cycle({PACKAGE: 80})) == {}


def test_a_service_that_is_started_again_goes_on_with_its_counter(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(SERVICE, S, S)
        cycles.cycle({PACKAGE: 10})
        machine.run(SERVICE, S, S)
        machine.remove(SERVICE)
        assert workloads(cycles.cycle({PACKAGE: 20})) == {"nginx.service": 10}
        machine.make(SERVICE)
        machine.run(SERVICE, S, S)
        assert workloads(cycles.cycle({PACKAGE: 30})) == {"nginx.service": 15}


def test_energy_that_could_not_be_read_is_split_with_the_next_by_the_time_of_both(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, 2 * S, S)
        assert part(cycles.cycle({}), rows.MEASURED) == 0
        machine.run(IN_B, 2 * S, S)
        assert workloads(cycles.cycle({PACKAGE: 8})) == {A: 4, B: 4}


def test_a_workload_that_ended_while_energy_could_not_be_read_has_its_last_interval(machine: Machine) -> None:
    """Its container goes with its time not charged; the next energy is for that too, and it is told once with it."""
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, S, S)
        assert workloads(cycles.cycle({PACKAGE: 10})) == {A: 5}
        machine.run(IN_A, S, S)
        machine.remove(IN_A)
        assert workloads(cycles.cycle({})) == {A: 5}
        assert workloads(cycles.cycle({})) == {A: 5}
        machine.run(IN_B, S, S)
        reading = cycles.cycle({PACKAGE: 30})
        assert workloads(reading) == {A: 10, B: 5}
        assert part(reading, rows.UNATTRIBUTED) == 0
        assert workloads(cycles.cycle({PACKAGE: 40})) == {B: 5}


def test_a_workload_that_ended_does_not_wait_for_ever(machine: Machine) -> None:
    """Energy that nobody can read any more; and where only that of GPUs is read there is none to wait for."""
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, S, S)
        cycles.cycle({PACKAGE: 10})
        machine.run(IN_A, S, S)
        machine.remove(IN_A)
        told = [workloads(cycles.cycle({})) for _ in range(20)]
        assert (told[0], told[-1]) == ({A: 5}, {})
    machine.process(11, IN_B)
    use = points(gpu.PROCESS_UTILIZATION, ({"process.pid": 11, "hw.id": "GPU-1", "hw.gpu.task": "general"}, 1.0))
    with Cycles(machine, {GPU: 0}) as cycles:
        machine.run(IN_B, S, S)
        assert workloads(cycles.cycle({GPU: 10}, use), "gpu") == {B: 10}
        machine.run(IN_B, S, S)
        machine.remove(IN_B)
        assert workloads(cycles.cycle({GPU: 10}), "gpu") == {B: 10}
        assert workloads(cycles.cycle({GPU: 10}), "gpu") == {}


def test_a_workload_that_waits_and_comes_and_goes_again_is_told_to_its_end(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(SERVICE, S, S)
        machine.remove(SERVICE)
        assert workloads(cycles.cycle({})) == {}
        machine.make(SERVICE)
        machine.run(SERVICE, S, S)
        assert workloads(cycles.cycle({})) == {}
        machine.run(SERVICE, S, S)
        machine.remove(SERVICE)
        assert workloads(cycles.cycle({PACKAGE: 30})) == {"nginx.service": 15}
        assert workloads(cycles.cycle({PACKAGE: 30})) == {}


def test_cgroups_that_used_more_than_ticks_tell_get_no_more_than_there_is(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, 3 * S, S)
        reading = cycles.cycle({PACKAGE: 10})
        assert workloads(reading) == {A: 10}
        assert (part(reading, rows.IDLE), part(reading, rows.UNATTRIBUTED)) == (0, 0)


def test_gpu_energy_goes_by_its_processes(machine: Machine) -> None:
    """80 % busy: half of it by A's process, a quarter by one that is gone, the rest by nobody who is told of."""
    machine.process(11, IN_A)
    use = points(gpu.UTILIZATION, ({"hw.id": "GPU-1", "hw.gpu.task": "general"}, 0.8))
    use |= points(
        gpu.PROCESS_UTILIZATION,
        ({"process.pid": 11, "hw.id": "GPU-1", "hw.gpu.task": "general"}, 0.4),
        ({"process.pid": 11, "hw.id": "GPU-1", "hw.gpu.task": "encoder"}, 0.1),
        ({"process.pid": 12, "hw.id": "GPU-1", "hw.gpu.task": "general"}, 0.2),
    )
    with Cycles(machine, {GPU: 1000}) as cycles:
        reading = cycles.cycle({GPU: 1100}, use)
        assert workloads(reading, "gpu") == {A: 40}
        assert [part(reading, row, "gpu") for row in (rows.MEASURED, rows.IDLE, rows.UNATTRIBUTED)] == [100, 20, 40]


def test_processes_that_together_use_more_than_a_gpu_share_all_of_it(machine: Machine) -> None:
    """Time-slicing: shares are samples of different moments."""
    machine.process(11, IN_A)
    machine.process(12, IN_B)
    use = points(gpu.PROCESS_UTILIZATION, *(({"process.pid": pid, "hw.id": "GPU-1", "hw.gpu.task": "general"}, 0.8) for pid in (11, 12)))
    with Cycles(machine, {GPU: 0}) as cycles:
        reading = cycles.cycle({GPU: 100}, use)
        assert workloads(reading, "gpu") == {A: 50, B: 50}
        assert (part(reading, rows.IDLE, "gpu"), part(reading, rows.UNATTRIBUTED, "gpu")) == (0, 0)


def test_a_gpu_that_tells_nothing_of_its_use_has_energy_of_nobody(machine: Machine) -> None:
    with Cycles(machine, {GPU: 0}) as cycles:
        reading = cycles.cycle({GPU: 50})
        assert (part(reading, rows.IDLE, "gpu"), part(reading, rows.UNATTRIBUTED, "gpu")) == (0, 50)


def test_gpu_time_is_a_share_of_the_interval(machine: Machine) -> None:
    """Drivers that tell seconds by engine: as long as an interval, so all of it."""
    machine.process(11, IN_A)
    attributes = {"process.pid": 11, "hw.id": "GPU-1", "hw.gpu.engine": "gfx"}
    with Cycles(machine, {GPU: 0}) as cycles:
        cycles.cycle({GPU: 0}, points(gpu.PROCESS_TIME, (attributes, 100.0)))
        reading = cycles.cycle({GPU: 50}, points(gpu.PROCESS_TIME, (attributes, 200.0)))
        assert workloads(reading, "gpu") == {A: 50}


def on_gpu(processes: int | None, busy: float, **shares: float) -> dict[Metric, Column]:
    """*shares* are those of the processes p11, p12..."""
    part: dict[str, Any] = {"hw.id": "GPU-1"}
    told = points(gpu.UTILIZATION, ({**part, "hw.gpu.task": "general"}, busy))
    told |= points(gpu.PROCESSES, (part, processes)) if processes is not None else {}
    return told | points(
        gpu.PROCESS_UTILIZATION,
        *(({**part, "process.pid": int(pid[1:]), "hw.gpu.task": "general"}, share) for pid, share in shares.items()),
    )


def of_gpu(reading: Reading) -> list[float]:
    return [part(reading, row, "gpu") for row in (rows.MEASURED, rows.IDLE, rows.UNATTRIBUTED)]


def of_process_11(machine: Machine) -> dict[str, float]:
    """Who gets the energy of a GPU that this process uses alone."""
    use = points(gpu.PROCESS_UTILIZATION, ({"process.pid": 11, "hw.id": "GPU-1", "hw.gpu.task": "general"}, 1.0))
    with Cycles(machine, {GPU: 0}) as cycles:
        return workloads(cycles.cycle({GPU: 10}, use), "gpu")


def test_a_process_is_where_its_cpu_time_is_accounted(tmp_path: Path) -> None:
    """On a hybrid host the hierarchy of v2 may have it in its runtime's service, which is a workload as well."""
    machine, runtime = Machine(tmp_path, version=1), "/system.slice/containerd.service"
    machine.make(IN_A)
    machine.make(runtime)
    machine.process(11, IN_A)
    (tmp_path / "proc/11/cgroup").write_text(f"4:cpu,cpuacct:{IN_A}\n1:name=systemd:{IN_A}\n0::{runtime}\n")
    assert of_process_11(machine) == {A: 10}


def test_a_process_seen_from_another_cgroup_namespace(machine: Machine) -> None:
    job = "/system.slice/slurmstepd.scope/job_123/step_0"
    machine.make(job)
    machine.process(11, f"/../../..{job}")
    assert of_process_11(machine) == {job: 10}


def test_what_a_gpu_takes_anyway_is_idle_once_it_was_seen_without_processes(machine: Machine) -> None:
    """30 W with nobody there. Then 10 s at 100 W, half busy by A: 700 J are A's, where its busy share would be 500."""
    machine.process(11, IN_A)
    with Cycles(machine, {GPU: 0}) as cycles:
        cycles.cycle({GPU: 0}, on_gpu(0, 0.0), 10)
        cycles.cycle({GPU: 300}, on_gpu(0, 0.0), 10)
        reading = cycles.cycle({GPU: 1300}, on_gpu(1, 0.5, p11=0.5), 10)
        assert workloads(reading, "gpu") == {A: 700}
        assert of_gpu(reading) == [1300, 600, 0]
        assert reading.facts["gpu_idle_watts"] == {"GPU-1": 30}
        reading = cycles.cycle({GPU: 1500}, on_gpu(1, 0.5, p11=0.5), 10)  # less than idle: all of it is
        assert of_gpu(reading) == [1500, 800, 0]
        reading = cycles.cycle({GPU: 2000}, on_gpu(1, 0.0), 10)  # kept awake by a process that does nothing
        assert of_gpu(reading) == [2000, 1100, 200]


def test_a_gpu_without_processes_is_idle_whatever_it_takes(machine: Machine) -> None:
    """But not where something used it all the same: a guest, or a process that came and went."""
    with Cycles(machine, {GPU: 0}) as cycles:
        cycles.cycle({GPU: 0}, on_gpu(0, 0.0), 10)
        assert of_gpu(cycles.cycle({GPU: 900}, points(gpu.PROCESSES, ({"hw.id": "GPU-1"}, 0)), 10)) == [900, 900, 0]
        assert of_gpu(cycles.cycle({GPU: 2900}, on_gpu(0, 0.5), 10)) == [2900, 1800, 1100]


@pytest.mark.parametrize("between", [1, None])
def test_idle_power_is_not_learned_while_a_process_was_or_may_have_been_there(machine: Machine, between: int | None) -> None:
    """Where it is not known, the busy share decides: with nothing busy all is idle, as before."""
    with Cycles(machine, {GPU: 0}) as cycles:
        cycles.cycle({GPU: 0}, on_gpu(0, 0.0), 10)
        cycles.cycle({}, on_gpu(between, 0.0), 10)
        cycles.cycle({}, on_gpu(0, 0.0), 10)
        cycles.cycle({GPU: 300}, on_gpu(0, 0.0), 10)  # the energy of 30 s
        reading = cycles.cycle({GPU: 400}, on_gpu(1, 0.25), 10)
        assert reading.facts["gpu_idle_watts"] == {}
        assert of_gpu(reading) == [400, 375, 25]


def test_configured_idle_power_needs_no_learning(machine: Machine) -> None:
    machine.process(11, IN_A)
    with Cycles(machine, {GPU: 0}, gpu_idle_power=20) as cycles:
        reading = cycles.cycle({GPU: 1000}, on_gpu(None, 0.8, p11=0.4), 10)
        assert workloads(reading, "gpu") == {A: 400}
        assert of_gpu(reading) == [1000, 200, 400]
        assert of_gpu(cycles.cycle({GPU: 1500}, {}, 10)) == [1500, 200, 900]  # nothing tells of its use


def processes(cycles: Cycles) -> dict[int, float]:
    column = cycles.reading.columns[rows.PROCESS]
    return {int(each.attributes["process.pid"]): value for each, value in zip(column.series, column.values, strict=True)}  # type: ignore[misc]


def test_processes_share_what_their_workload_got(machine: Machine) -> None:
    """A's two seconds: 1.2 s and 0.4 s by two that live, the rest by some that exited. A pid used again begins at nothing."""
    for pid in (11, 12, 13):
        machine.process(pid, IN_A, ticks=50)
    with Cycles(machine, {PACKAGE: 0}, processes=2) as cycles:
        machine.run(IN_A, 2 * S, S)
        for pid, ticks in ((11, 120), (12, 40), (13, 1)):
            machine.process(pid, IN_A, ticks=50 + ticks)
        assert workloads(cycles.cycle({PACKAGE: 20})) == {A: 20}
        assert processes(cycles) == {11: 12, 12: 4}
        machine.run(IN_A, S, S)
        machine.process(11, IN_A, ticks=10, start=999)
        cycles.cycle({PACKAGE: 30})
        assert processes(cycles) == {11: 0.5, 12: 4}


def test_a_process_has_the_name_of_what_it_executes(machine: Machine) -> None:
    """Also after execve(2), with the energy it had; a pid used again has nothing of the one before; a kernel thread has no name."""

    joules = itertools.count(10, 10)

    def named(ticks: int, **who: int | str) -> dict[tuple[object, object], float]:
        machine.run(IN_A, S, S)
        machine.process(11, IN_A, ticks=ticks, **who)  # type: ignore[arg-type]
        cycles.cycle({PACKAGE: next(joules)})
        column = cycles.reading.columns[rows.PROCESS]
        return {(each.attributes["process.pid"], each.attributes.get(EXECUTABLE)): value for each, value in zip(*column, strict=True)}  # type: ignore[misc]

    machine.process(11, IN_A, executable="sh")
    with Cycles(machine, {PACKAGE: 0}, processes=2) as cycles:
        assert named(100, executable="sh") == {(11, "sh"): 5}
        first = cycles.reading.columns[rows.PROCESS].series
        (machine.root / "proc/11/exe").unlink()  # nobody looks at it again
        cycles.cycle({PACKAGE: 10})
        assert cycles.reading.columns[rows.PROCESS].series is first
        assert named(200, executable="server") == {(11, "server"): 10}
        owner = cycles.reading.columns[rows.PROCESS].series[0].owner
        assert owner is not None
        assert owner.pid == 11
        assert named(100, start=999, executable="next") == {(11, "next"): 5}
        assert named(100, start=1000) == {(11, None): 5}


def test_doctor_examines_it_with_the_energy_of_the_same_reading(machine: Machine) -> None:
    unpack("energy-two-sockets", machine.root)
    found = examine(Everything(path=Paths(root=str(machine.root)), general=General(sources=("rapl",))))
    assert [(name, status.state) for name, (status, _) in found.items()][:2] == [("rapl", State.OK), ("workload-energy", State.OK)]


def test_off_where_nobody_measures_energy(tmp_path: Path) -> None:
    stage = Attribution(Machine(tmp_path).fs, Settings())
    stage.take({"bpf": {}})
    with pytest.raises(Unavailable) as refused:
        stage.open()
    assert refused.value.reason is Reason.ABSENT
    stage.close()


def test_opened_again_it_begins_anew(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}) as cycles:
        machine.run(IN_A, S, S)
        cycles.cycle({PACKAGE: 10})
        cycles.stage.close()
        cycles.stage.open()
        assert workloads(cycles.cycle({PACKAGE: 20})) == {}
        machine.run(IN_B, S, S)
        assert workloads(cycles.cycle({PACKAGE: 30})) == {B: 5}


def test_more_cgroups_than_allowed_count_as_those_around_them(machine: Machine) -> None:
    with Cycles(machine, {PACKAGE: 0}, max_cgroups=4) as cycles:
        machine.run(IN_A, S, S)
        reading = cycles.cycle({PACKAGE: 10})
        assert sum(workloads(reading).values()) == 5
        assert [problem.what for problem in reading.problems] == ["attribution.max_cgroups"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (IN_A, Workload("container", A)),
        (f"{IN_A}/system.slice/inner.service", Workload("container", A)),
        (POD, Workload("pod", UID)),
        (SERVICE, Workload("service", "nginx.service")),
        (f"{SERVICE}/worker", Workload("service", "nginx.service")),
        ("/user.slice/user@1000.service/app.slice/a.service", Workload("service", "user@1000.service/a.service")),
        ("/user.slice/session-3.scope", Workload("cgroup", "/user.slice/session-3.scope")),
        ("/a\udcff", Workload("cgroup", "/a\\xff")),
    ],
)
def test_what_a_cgroup_is(path: str, found: Workload) -> None:
    assert workload(path) == found
