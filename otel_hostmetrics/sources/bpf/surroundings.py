"""What is around the objects: who holds them, where they are pinned, which cgroups they are attached to.

Looking it up costs more than the objects themselves, so it is done at its own pace and replayed in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric, Number, Series
from otel_hostmetrics.catalogue.process import CREATION_TIME, process
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.bpf_cgroups import CgroupAttachment, CgroupPrograms
from otel_hostmetrics.kernel.bpf_holders import Holder
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, name_of
from otel_hostmetrics.kernel.bpf_objects import Link, Program
from otel_hostmetrics.kernel.bpf_pins import Pin, Pins
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.proc_exe import Executables
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Bpf

_Labels = dict[str, AttributeValue]


class _Table:
    """The points of one metric, keeping Series and tuple as long as what they stand for stays."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._series: dict[object, Series] = {}
        self.column = Column((), ())

    def fill(self, points: Iterable[tuple[object, Callable[[], _Labels], Number]]) -> None:
        """*points* are (key, attributes, value); attributes are made only for keys not seen the last time."""
        series: dict[object, Series] = {}
        values: dict[object, Number] = {}
        for key, labels, value in points:
            series[key] = self._series.get(key) or self._metric.series(labels())
            values[key] = value
        same = series.keys() == self._series.keys()
        self._series = self._series if same else series
        bound = self.column.series if same else tuple(series.values())
        self.column = Column(bound, tuple(values[key] for key in self._series))


class Surroundings:
    """*scan_holders* is the engine's way to list holders."""

    def __init__(self, fs: HostFS, settings: Bpf, scan_holders: Callable[[], tuple[list[Holder], list[Unavailable]]]) -> None:
        self._settings = settings
        self._scan_holders = scan_holders
        self._executables = Executables(fs.proc())
        self._pins = Pins(fs)
        self._cgroups = CgroupPrograms(fs)
        self._tables = {metric: _Table(metric) for metric in (rows.OBJECT_HOLDER, rows.OBJECT_PIN, rows.CGROUP_PROGRAM)}
        self._held: dict[str, set[int]] = {}
        self._all_seen = False  # of every process it is known what it holds
        self.holders: list[Holder] = []
        self.attachments: list[CgroupAttachment] = []
        self.cgroup_paths: dict[int, str] = {}
        self.problems: list[Unavailable] = []

    def refresh(self, programs: Mapping[int, Program], links: Mapping[int, Link]) -> None:
        """Look everything up that is wanted; what cannot be looked up is a problem, and has no points."""
        self.problems = []
        if self._settings.holders:
            self._try(rows.OBJECT_HOLDER, self._look_up_holders)
        if self._settings.pins:
            self._try(rows.OBJECT_PIN, self._look_up_pins)
        if self._settings.cgroups:
            self._try(rows.CGROUP_PROGRAM, lambda: self._look_up_cgroups(programs, links))

    def columns(self) -> Iterable[tuple[Metric, Column]]:
        """What the last refresh found."""
        return ((metric, table.column) for metric, table in self._tables.items())

    def _try(self, metric: Metric, look_up: Callable[[], None]) -> None:
        try:
            look_up()
        except Unavailable as error:
            self.problems.append(error)
            self._tables[metric].fill(())

    def _look_up_holders(self) -> None:
        self._held, self._all_seen, self.holders = {}, False, []
        self.holders, problems = self._scan_holders()
        self.problems += problems
        objects = [each for each in self.holders if each.kind != "btf"]
        self._executables.begin()
        named = [(each, self._executables.name(each.pid, (each.start_ns, each.comm))) for each in objects]
        self._tables[rows.OBJECT_HOLDER].fill(
            ((each[:5], name), lambda each=each, name=name: _holder(each, name), each.fds)  # type: ignore[misc]
            for each, name in named
        )
        self.problems += self._executables.problems
        self._held = {kind: {each.id for each in objects if each.kind == kind} for kind in ("program", "link")}
        self._all_seen = not problems

    def _look_up_pins(self) -> None:
        pins, problems = self._pins.scan()
        self.problems += problems
        self._tables[rows.OBJECT_PIN].fill((pin, lambda pin=pin: _pin(pin), 1) for pin in pins)  # type: ignore[misc]

    def _look_up_cgroups(self, programs: Mapping[int, Program], links: Mapping[int, Link]) -> None:
        self.attachments = []
        attachments, problems = self._cgroups.scan({program.type for program in programs.values()})
        self.attachments = attachments
        self.problems += problems
        self.cgroup_paths = {each.cgroup_id: each.cgroup for each in attachments}
        held = self._held_programs(links)
        unheld = False if self._all_seen else None
        self._tables[rows.CGROUP_PROGRAM].fill(
            ((each, frozenset(labels.items())), lambda labels=labels: labels, 1)  # type: ignore[misc]
            for each, labels in ((each, _attachment(each, programs, each.program_id in held or unheld)) for each in attachments)
        )

    def _held_programs(self, links: Mapping[int, Link]) -> set[int]:
        """Programs that some process is known to hold, itself or by a link."""
        by_link = self._held.get("link", set())
        return self._held.get("program", set()) | {link.program_id for number, link in links.items() if number in by_link}


def _holder(holder: Holder, executable: str) -> _Labels:
    return {
        "bpf.object.type": holder.kind,
        "bpf.object.id": holder.id,
        **process(holder.pid, executable),
        CREATION_TIME: _iso(holder.start_ns),
        "bpf.holder.comm": holder.comm,
    }


def _iso(since_boot_ns: int) -> str:
    """ISO 8601 to the millisecond, as the semantic conventions want process.creation.time."""
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    milliseconds = (boot_ns + since_boot_ns) // 10**6
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03d}Z"


def _pin(pin: Pin) -> _Labels:
    return {"bpf.object.type": pin.kind, "bpf.object.id": pin.id, "bpf.pin.path": pin.path}


def _attachment(each: CgroupAttachment, programs: Mapping[int, Program], held: bool | None) -> _Labels:
    """*held* is None where it is not known: some process does not show what it holds."""
    labels: _Labels = {
        "bpf.cgroup.path": each.cgroup,
        "bpf.attach.type": name_of(ATTACH_TYPES, each.attach_type),
        "bpf.program.id": each.program_id,
    }
    program = programs.get(each.program_id)
    if program:
        labels["bpf.program.name"] = program.full_name or program.name
    if held is not None:
        labels["bpf.program.held"] = held
    return labels
