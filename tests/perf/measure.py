"""How the benchmarks measure: interleaved, by CPU time, with medians.

Subjects of one comparison take turns (A B C A B C ...), so that a slow moment of the machine meets all of them, and a
ratio is the median of the ratios within each turn. CPU time is what counts: wall time, shown beside it, grows with
whatever else the machine does.
"""

from __future__ import annotations

import gc
import math
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

NOISE = 3.0  # how much more CPU time than its target a busy CI machine may need


class Cost(NamedTuple):
    """Microseconds per unit of work."""

    cpu: float
    wall: float


class Bound(NamedTuple):
    """At most *value*; where only the order of magnitude can be asserted, at most *slack* times it."""

    value: float
    slack: float = NOISE


class Subject(NamedTuple):
    """One of the things compared. *run* measures once."""

    name: str
    run: Callable[[], Cost]
    bound: Bound | None = None
    against: str | None = None  # the subject it is compared with


class Mode(NamedTuple):
    """How thorough a run is."""

    quick: bool
    rounds: int
    seconds: float  # CPU time of one sample in this process


FULL, QUICK = Mode(False, 9, 0.05), Mode(True, 3, 0.01)


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    case: str  # its heading
    name: str
    unit: str
    samples: Sequence[float]
    wall: float | None = None  # median
    bound: Bound | None = None
    against: str | None = None
    ratio: float | None = None  # how many times less than *against*

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def failure(self) -> str:
        """What is wrong if even the bound with its slack is exceeded, else nothing."""
        if self.bound is None or self.median <= self.bound.value * self.bound.slack:
            return ""
        return f"{self.case}: {self.name}: {self.median:.3g} {self.unit}, more than {self.bound.slack:g} x {self.bound.value:g}"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "bound": self.bound and self.bound._asdict()}


@dataclass
class Report:
    """What one part found, and what it could not measure."""

    results: list[Result] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # what, and why


def in_process(call: Callable[[], object], units: int, seconds: float) -> Callable[[], Cost]:
    """Measures *call*, which does *units* of work, in a loop that takes about *seconds*. Calls it here to warm it up."""
    call()
    begin = time.process_time()
    call()
    times = math.ceil(seconds / max(time.process_time() - begin, 1e-6))

    def run() -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(times):
            call()
        return Cost(*(spent / (times * units) * 1e6 for spent in (time.process_time() - cpu, time.perf_counter() - wall)))

    return run


def process(command: Sequence[str], units: int) -> Callable[[], Cost]:
    """Measures a program from its start to its end."""

    def run() -> Cost:
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return Cost(cpu / units * 1e6, (time.perf_counter() - wall) / units * 1e6)

    return run


def compare(case: str, unit: str, subjects: Sequence[Subject], rounds: int) -> list[Result]:
    """Run all subjects in turn, *rounds* times."""
    gc.collect()
    gc.freeze()  # else garbage of one subject makes the collector walk over what the others keep: 10 times our JSON's cost
    try:
        turns = [{subject.name: subject.run() for subject in subjects} for _ in range(rounds)]
    finally:
        gc.unfreeze()
    results = []
    for name, _, bound, against in subjects:
        ratio = statistics.median(turn[against].cpu / turn[name].cpu for turn in turns) if against else None
        wall = statistics.median(turn[name].wall for turn in turns)
        results.append(Result(case, name, unit, [turn[name].cpu for turn in turns], wall, bound, against, ratio))
    return results


def machine() -> str:
    """What the figures depend on, in one line."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} CPUs, load {load:.1f}, Linux {platform.release()}, Python {platform.python_version()}"


def table(results: Sequence[Result]) -> str:
    """Results under their headings. A '*' marks a missed target."""
    lines: list[str] = []
    heading = ""
    for each in results:
        if heading != (heading := ", ".join(filter(None, (each.case, each.unit)))):
            lines += ["", f"{heading:<50}{'median':>9}{'min':>9}{'max':>9}{'wall':>9}   {'target':<10}times less than"]
        figures = [each.median, min(each.samples), max(each.samples), each.wall]
        numbers = "".join(f"{'' if figure is None else f'{figure:.3g}':>9}" for figure in figures)
        target = f"<= {each.bound.value:g}{' *' if each.median > each.bound.value else ''}" if each.bound else ""
        ratio = f"{each.ratio:.3g} x {each.against}" if each.ratio is not None else ""
        lines.append(f"  {each.name:<48}{numbers}   {target:<10}{ratio}".rstrip())
    return "\n".join(lines)
