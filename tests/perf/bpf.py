"""What it costs to read the BPF subsystem, per object: our two engines, the same calls from C, and bpftool.

Our cycles run here back to back with warm caches, as the C loop does; what one cycle a second costs is in agent.py.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from otel_hostmetrics import settings
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.sources.bpf import Bpf
from otel_hostmetrics.sources.bpf.engines import Inventory
from tests.perf.measure import Bound, Cost, Mode, Report, Subject, compare, in_process, process

CHECKOUT = Path(__file__).parents[2]
_LOADER = CHECKOUT / "tests/live/bpfload.py"
_C_LOOP = Path(__file__).with_name("bpf_loop.c")
_PER_STEP = 11  # 5 programs, 5 maps and a link
_SIZES = (220, 2_200, 11_000)
_NEVER = settings.Seconds(1e9)
_FLOOR = "C: next id, open, describe, close"  # what every reader by id must at least do
_ENGINES: tuple[tuple[str, Literal["auto", "ids"], Bound], ...] = (  # CPU us per object
    ("iterators", "auto", Bound(0.5)),
    ("cached ids", "ids", Bound(1.3)),
)


def obstacle() -> str:
    """Why BPF objects cannot be made and read here; empty if they can."""
    try:
        ObjectsById().ids("program")
    except Unavailable as reason:
        return f"needs root and a kernel with BPF: {reason}"
    return ""


@contextlib.contextmanager
def loaded(objects: int) -> Iterator[None]:
    """Another process holds that many programs, maps and links."""
    step = objects // _PER_STEP
    command = [sys.executable, str(_LOADER), f"--progs={5 * step}", f"--maps={5 * step}", f"--links={step}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        if not holder.stdout.readline():
            raise RuntimeError(f"{_LOADER.name} could not load {objects} BPF objects; its reason is above")
        try:
            yield
        finally:
            holder.stdin.close()


def run(mode: Mode) -> Report:
    report = Report()
    if why := obstacle():
        report.skipped.append(f"BPF: {why}")
        return report
    with tempfile.TemporaryDirectory() as directory:
        loop = _compiled(Path(directory), report)
        if not shutil.which("bpftool"):
            report.skipped.append("bpftool: not installed")
        for size in _SIZES[: 2 if mode.quick else None]:
            with loaded(size), contextlib.ExitStack() as stack:
                calls = _ours(stack)
                objects = _present()
                against = _FLOOR if loop else None
                subjects = [Subject(name, in_process(call, objects, mode.seconds), bound, against) for name, call, bound in calls]
                subjects += _others(loop, objects)
                report.results += compare(f"BPF, {objects} objects", "us/object", subjects, mode.rounds)
    return report


def _present() -> int:
    by_id = ObjectsById()
    return len(by_id.ids("program")) + len(by_id.ids("map")) + len(by_id.ids("link"))


def _compiled(directory: Path, report: Report) -> str | None:
    compiler = shutil.which("cc")
    if compiler is None:
        report.skipped.append("C loop: no C compiler (cc)")
        return None
    program = str(directory / "bpf_loop")
    subprocess.run([compiler, "-O2", "-o", program, str(_C_LOOP)], check=True)
    return program


def _ours(stack: contextlib.ExitStack) -> list[tuple[str, Callable[[], object], Bound]]:
    """Our engines, opened: what each does in a cycle. Their iterators are objects too, and so counted after this."""
    calls: list[tuple[str, Callable[[], object], Bound]] = []
    for name, engine, bound in _ENGINES:
        inventory = Inventory(engine, HostFS())
        stack.callback(inventory.close)
        source = Bpf(HostFS(), settings.Settings(bpf=settings.Bpf(engine=engine, slow_interval=_NEVER)))
        source.open()
        stack.callback(source.close)
        calls += [(f"{name}: list", _listing(inventory), bound), (f"{name}: Bpf.read(), unchanged host", source.read, bound)]
    return calls


def _listing(inventory: Inventory) -> Callable[[], object]:
    return lambda: (inventory.programs(with_runs=False), inventory.maps(), inventory.links())


def _others(loop: str | None, objects: int) -> Iterator[Subject]:
    if loop:
        times = max(1, 20_000 // objects)
        yield Subject("C: next id", _c_loop(loop, "walk", times), against=_FLOOR)
        yield Subject(_FLOOR, _c_loop(loop, "describe", times))
    if bpftool := shutil.which("bpftool"):
        calls = " && ".join(f"{bpftool} -j {kind} show" for kind in ("prog", "map", "link"))
        yield Subject("bpftool -j prog, map, link show", process(["sh", "-c", calls], objects), against=_FLOOR if loop else None)


def _c_loop(program: str, what: str, times: int) -> Callable[[], Cost]:
    """The loop counts and measures itself, without the start of its process."""

    def run() -> Cost:
        output = subprocess.run([program, what, str(times)], check=True, capture_output=True).stdout
        objects, cpu, wall = map(int, output.split())
        return Cost(cpu / 1e3 / (times * objects), wall / 1e3 / (times * objects))

    return run
