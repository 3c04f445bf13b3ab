"""Whatever happens, the parts are the whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_hostmetrics.attribution import Attribution
from otel_hostmetrics.catalogue import gpu
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Attribution as AttributionSettings
from otel_hostmetrics.sources.rapl import Rapl
from otel_hostmetrics.telemetry import Telemetry
from tests.attribution.cycles import DRAM, GPU, PACKAGE, Cycles, microjoules, part, points
from tests.attribution.machine import Machine
from tests.sources import energy_hosts

PARTS = (PACKAGE, DRAM, GPU)
PATHS = [f"{top}/{name}" for top in ("/kubepods/pod9a1b2c3d-1111-4222-8333-444455556666", "/system.slice") for name in
         ("a1" * 32, "b2" * 32, "c.service", "d", "d/e")]  # fmt: skip

Action = tuple[str, object, int]
_ACTIONS = st.one_of(
    st.tuples(st.just("make"), st.sampled_from(PATHS), st.just(0)),
    st.tuples(st.just("remove"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("run"), st.integers(0, 100), st.integers(0, 3 * 10**9)),
    st.tuples(st.just("root"), st.just(0), st.integers(0, 10**9)),
    st.tuples(st.just("pass"), st.just(0), st.integers(0, 3 * 10**9)),
    st.tuples(st.just("joules"), st.sampled_from(PARTS), st.integers(0, 10**9)),
    st.tuples(st.just("reset"), st.sampled_from(PARTS), st.just(0)),
    st.tuples(st.just("unreadable"), st.sampled_from(PARTS), st.just(0)),
    st.tuples(st.just("gpu"), st.sampled_from((1, 2, 3)), st.integers(0, 1000)),
    st.tuples(st.just("idle"), st.just(0), st.integers(0, 1)),
    st.tuples(st.just("processes"), st.sampled_from((None, 0, 1)), st.just(0)),
    st.tuples(st.just("wait"), st.just(0), st.integers(0, 20 * 10**9)),
)


class Script:
    """Carries out actions and remembers what was measured: the growth of every counter that was seen to grow."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.joules = dict.fromkeys(PARTS, 5.0)
        self.away: set[tuple[str, str]] = set()
        self.shares: dict[int, float] = {}
        self.processes: int | None = None
        self.waited = 0  # ns since the last cycle
        self.seen = dict(self.joules)
        self.measured = dict.fromkeys(("cpu", "memory", "gpu"), 0)

    def do(self, action: Action) -> None:
        what, which, amount = action
        paths = self.machine.paths()
        actions: dict[str, Callable[[], object]] = {
            "make": lambda: self.machine.make(str(which)),
            "remove": lambda: paths and self.machine.remove(paths[int(which) % len(paths)]),  # type: ignore[call-overload]
            "run": lambda: paths and self.machine.run(paths[int(which) % len(paths)], amount, amount // 2),  # type: ignore[call-overload]
            "root": lambda: self.machine.run("", amount, amount),
            "pass": lambda: self.machine.run("", 0, amount),
            "joules": lambda: self.joules.update({which: self.joules[which] + amount / 1e6 + 1e-9}),  # type: ignore[index,dict-item]
            "reset": lambda: self.joules.update({which: 0.25}),  # type: ignore[dict-item]
            "unreadable": lambda: self.away.add(which),  # type: ignore[arg-type]
            "gpu": lambda: self.shares.update({which: amount / 1000}),  # type: ignore[dict-item]
            "idle": self.shares.clear,
            "processes": lambda: setattr(self, "processes", which),
            "wait": lambda: setattr(self, "waited", self.waited + amount),
        }
        actions[what]()

    def seen_on_gpu(self) -> dict[Metric, Column]:
        told = points(
            gpu.PROCESS_UTILIZATION,
            *(({"process.pid": pid, "hw.id": "GPU-1", "hw.gpu.task": "general"}, share) for pid, share in self.shares.items()),
        )
        return told if self.processes is None else told | points(gpu.PROCESSES, ({"hw.id": "GPU-1"}, self.processes))

    def visible(self) -> dict[tuple[str, str], float]:
        found = {each: value for each, value in self.joules.items() if each not in self.away}
        for each, value in found.items():
            self.measured[each[1]] += max(round(value * 1e6) - round(self.seen[each] * 1e6), 0)
            self.seen[each] = value
        self.away.clear()
        return found


@pytest.mark.parametrize("version", [1, 2])
@given(st.lists(st.lists(_ACTIONS, max_size=8), max_size=6), st.sampled_from((0.0, 0.0, 1e-6, 33.3)))
@settings(max_examples=40, deadline=None)
def test_measured_is_idle_and_unattributed_and_workloads_in_every_cycle_and_nothing_ever_falls(
    version: int, script: list[list[Action]], idle_watts: float
):
    with tempfile.TemporaryDirectory() as directory:
        machine = Machine(Path(directory), version)
        machine.make(PATHS[0])
        for pid in (1, 2):
            machine.process(pid, PATHS[0])
        run = Script(machine)
        with Cycles(machine, run.joules, processes=5, gpu_idle_power=idle_watts) as cycles:
            before = dict(microjoules(cycles.reading))
            kept = [cycles.reading]  # series stay alive, so that ids are not used again
            for actions in script:
                for action in actions:
                    run.do(action)
                kept.append(cycles.cycle(run.visible(), run.seen_on_gpu(), run.waited / 1e9))
                run.waited = 0
                now = dict(microjoules(cycles.reading))
                steps = {key: value - before.get(key, 0) for key, value in now.items()}
                assert all(step >= 0 for step in steps.values())
                for component, measured in run.measured.items():
                    assert round(part(cycles.reading, rows.MEASURED, component) * 1e6) == measured
                    of = {key: step for key, step in steps.items() if component in key}
                    whole = sum(step for key, step in of.items() if key[0] == rows.MEASURED.name)
                    assert whole == sum(step for key, step in of.items() if key[0] != rows.MEASURED.name)
                before = now


@given(st.lists(st.tuples(st.integers(0, 60_000_000), st.integers(0, 200_000_000)), min_size=1, max_size=8), st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_register_that_wraps_loses_nothing_on_its_way_from_powercap_to_workloads(steps: list[tuple[int, int]], wanted: bool):
    """From energy_uj to joules of workloads through the real source, also where its own metrics are not wanted."""
    with tempfile.TemporaryDirectory() as directory:
        fs = energy_hosts.host("two-sockets", Path(directory))
        machine = Machine(Path(directory))
        machine.make("/a.service")
        file, turn = energy_hosts.zone(fs, "intel-rapl:0") / "energy_uj", 65_532_610_987 + 15
        energy_hosts.count(file, turn - 30_000_000)
        rapl, stage = Rapl(fs, energy_hosts.settings()), Attribution(fs, AttributionSettings())
        collector = Collector([stage, rapl], None, [*rows.ALL, *(rapl.metrics if wanted else ())], Telemetry(), 1, 1000)
        try:
            collector.collect()
            for energy, ns in steps:
                machine.run("/a.service", ns, 10**9)
                energy_hosts.count(file, (int(file.read_text()) + energy) % turn)
                reading = collector.collect().readings[stage.name]
            assert round(part(reading, rows.MEASURED) * 1e6) == pytest.approx(sum(energy for energy, _ in steps), abs=len(steps))
            of = {key[0]: 0 for key, _ in microjoules(reading)}
            for key, value in microjoules(reading):
                of[key[0]] += value if "cpu" in key else 0
            assert of.pop(rows.MEASURED.name) == sum(of.values())
        finally:
            collector.close()
