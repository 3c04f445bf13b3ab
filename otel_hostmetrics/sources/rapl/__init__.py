"""Energy of processors, memory and host: RAPL and its relatives.

Zones are found (discovery.py) through one of the kernel's interfaces (interfaces.py), named and freed of second views
(zones.py). Every zone has a meter (meters.py) that outlives its counter, so energy only grows; power is the mean over a
window of at least a second (power.py), the same for all who read.
"""

from __future__ import annotations

import threading
import time
from typing import ClassVar

from otel_hostmetrics.catalogue import energy as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import powercap
from otel_hostmetrics.kernel.counterfiles import sweep
from otel_hostmetrics.kernel.hostfs import CounterFile, HostFS
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.rapl.columns import Columns, about, labels_of
from otel_hostmetrics.sources.rapl.discovery import Found, discover
from otel_hostmetrics.sources.rapl.limits import Limits
from otel_hostmetrics.sources.rapl.meters import Meter, meter
from otel_hostmetrics.sources.rapl.power import SHORTEST, Window
from otel_hostmetrics.sources.rapl.sampler import Sampler, pace


class Rapl:
    name: ClassVar[str] = "rapl"
    metrics: ClassVar[tuple[Metric, ...]] = rows.ALL
    blocking: ClassVar[bool] = False

    def __init__(self, fs: HostFS, settings: Settings) -> None:
        self._fs = fs
        self._settings = settings.rapl
        self._interval = settings.general.interval
        self._meters: dict[str, Meter] = {}  # of every zone ever seen, by its key
        self._window = Window()
        self._found: Found | None = None
        self._off: Unavailable | None = None  # why this host has no counters
        self._sampler: Sampler | None = None
        self._lock = threading.Lock()  # between the cycle and the sampler

    def open(self) -> None:
        """Raises Unavailable: DENIED with what would cure it. That a host has no counters is worth a point."""
        with self._lock:
            self._look()

    def read(self) -> Reading:
        with self._lock:
            if self._off and time.monotonic() >= self._look_at:
                self._look()
            if self._off:
                return Reading(self._none, off=self._off)
            if time.monotonic() >= self._look_at or self._lost:
                self._look_again()
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            failed = self._sample(now_ns)
            if len(failed) == len(self._bound):
                raise next(iter(failed.values()))
            self._window.update(self._bound, now_ns)
            columns = self._columns.fill(frozenset(failed), self._window.number)
            columns.update(self._limits.columns)
            again = 0.0 if self._window.number > 1 else SHORTEST
            return Reading(columns, problems=[*self._problems, *failed.values()], facts=self._facts, again=again)

    def close(self) -> None:
        sampler, self._sampler = self._sampler, None
        if sampler:
            sampler.close()  # without the lock, which it may be waiting for
        with self._lock:
            found, self._found = self._found, None
            if found:
                found.close()

    def _look(self) -> None:
        """Find the zones of a host of which none is known."""
        self._off = None
        try:
            self._bind()
        except Unavailable as error:
            if error.reason not in (Reason.ABSENT, Reason.UNSUPPORTED) or self._settings.energy_source == "off":
                raise
            self._off = error
            self._none = about(0)
            self._look_at = time.monotonic() + self._settings.slow_interval
            return
        period = pace(zone.scale for zone in self._zones)
        if self._interval > period:
            self._sampler = Sampler(period, self._sample_between)

    def _bind(self) -> None:
        """Find the zones and give each its meter, the one it had before if it was seen before."""
        found = discover(self._fs, self._settings)
        self._found, self._zones, self._problems = found, found.zones, found.problems
        started_ns = time.time_ns()
        for zone in found.zones:
            if zone.key not in self._meters:
                self._meters[zone.key] = meter(zone.scale, started_ns)
            elif zone.scale.since_open:
                self._meters[zone.key].begin_again()
        self._bound = [self._meters[zone.key] for zone in found.zones]
        self._counters = found.counters
        files = [counter.descriptor for counter in found.counters if isinstance(counter, CounterFile)]
        self._files = files if len(files) == len(found.counters) else []
        self._columns = Columns(found.zones, self._bound, self._settings.psys_is_host)
        self._limits = Limits(self._fs, [(zone.limits, labels_of(zone)) for zone in found.zones if zone.limits])
        self._facts = _facts(found)
        self._lost = False
        self._listed = self._listing()
        self._look_at = 0.0

    def _look_again(self) -> None:
        """At its slower pace: limits, and whether zones came or went; at once if a counter is gone."""
        if self._lost or self._listing() != self._listed:
            assert self._found is not None  # open() came first
            self._found.close()
            self._bind()
        self._limits.refresh()
        self._look_at = time.monotonic() + self._settings.slow_interval

    def _listing(self) -> list[str]:
        try:
            return powercap.listing(self._fs)
        except Unavailable:
            return []  # energy comes from elsewhere

    def _sample(self, now_ns: int) -> dict[int, Unavailable]:
        """Every counter into its meter; the places of those that could not be read, and why."""
        counts = sweep(self._files) if self._files else None
        if counts is None:
            return self._sample_each(now_ns)
        for each, count in zip(self._bound, counts, strict=True):
            each.take(count, now_ns)
        return {}

    def _sample_each(self, now_ns: int) -> dict[int, Unavailable]:
        failed: dict[int, Unavailable] = {}
        for place, (each, counter) in enumerate(zip(self._bound, self._counters, strict=True)):
            try:
                each.take(counter.read(), now_ns)
            except Unavailable as error:
                failed[place] = error
                self._lost |= error.reason is Reason.GONE
        return failed

    def _sample_between(self) -> None:
        """A failure is told by the next cycle, which meets it too."""
        with self._lock:
            if self._found:
                self._sample(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def _facts(found: Found) -> dict[str, object]:
    zones = [{**labels_of(zone), "key": zone.key, "counted": zone.counted} for zone in found.zones]
    return {"energy_source": found.interface, "zones": zones}
