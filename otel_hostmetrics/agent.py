"""The agent: builds the parts, runs cycles, reloads, stops. The only file that knows all parts."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO

from otel_hostmetrics import __version__, logs, reload, resource
from otel_hostmetrics.attribution import Attribution
from otel_hostmetrics.catalogue import CATALOGUE, hardware
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.collect import Collector
from otel_hostmetrics.enrich import build as build_workloads
from otel_hostmetrics.enrich.examine import examine as examine_workloads
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.pipeline import Pipeline, build_pipeline
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Source, Status
from otel_hostmetrics.schedule import Ticks, phase
from otel_hostmetrics.service import Service
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources import OWN, SOURCES
from otel_hostmetrics.sources.agent import Agent as OwnSource
from otel_hostmetrics.telemetry import Telemetry

if TYPE_CHECKING:
    from otel_hostmetrics.export.otlp.request import Request

_log = logging.getLogger(__name__)

_STOP_BUDGET = 2.0  # s: for the last collection and the last export together


def sources(settings: Settings) -> list[Source]:
    """The chosen sources, not yet opened."""
    fs = _host(settings)
    wanted = settings.general.sources or tuple(SOURCES)
    return [make(fs, settings) for name, make in SOURCES.items() if name in wanted and name not in settings.general.no_sources]


def derived(settings: Settings, chosen: Iterable[Source]) -> list[Source]:
    """What follows from the readings of the chosen sources."""
    measured = any(hardware.ENERGY in source.metrics for source in chosen)
    return [Attribution(_host(settings), settings.attribution)] if settings.attribution.enabled and measured else []


def plugins(settings: Settings) -> list[Source]:
    """The sources of third parties that are wanted. Raises Unavailable for one that is not installed."""
    if not settings.general.plugins:
        return []
    from otel_hostmetrics.plugins import chosen

    return chosen(settings.general)


def _host(settings: Settings) -> HostFS:
    return HostFS(settings.path.root, settings.path.procfs, settings.path.sysfs)


def _warn_of_unknown(patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(metric.name, pattern) for metric in CATALOGUE):
            _log.warning("no metric is called %s; `otel-hostmetrics metrics` lists the names", pattern)


class Generation:
    """Everything that one configuration makes. A reload builds the next one; nothing is carried over."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._telemetry = Telemetry()
        chosen = sources(settings)
        chosen += derived(settings, chosen)
        own = OwnSource(self._telemetry) if OWN not in settings.general.no_sources else None
        rows: dict[str, list[Metric] | None] = {
            source.name: [row for row in source.metrics if settings.general.keeps(row.name, row.enabled)]
            for source in (*chosen, *([own] if own else []))
        }
        enabled = {row for metrics in rows.values() for row in metrics or ()}
        general = settings.general
        third_parties = plugins(settings)
        if not third_parties:  # whose names nobody knows yet
            _warn_of_unknown((*general.include, *general.exclude))
        chosen += third_parties
        rows |= dict.fromkeys([source.name for source in third_parties])
        self._workloads = build_workloads(_host(settings), settings.workloads, self._telemetry) if settings.workloads.enabled else None
        self.collector = Collector(chosen, own, enabled, self._telemetry, general.deadline, general.max_series, enrich=self._workloads)
        attributes = resource.attributes(settings.resource, settings.path, dict(os.environ))
        self.pipeline: Pipeline = build_pipeline(settings, attributes, rows, self.collector.collect, self._telemetry)

    def start(self, undelivered: list[Request]) -> None:
        """Open what can fail for a wrong configuration. Raises Unavailable, ValueError or OSError, with nothing left open.

        *undelivered* is what the generation before this one left for the same collector.
        """
        try:
            self.pipeline.start()
        except BaseException:
            self.close(0)
            raise
        self.pipeline.take_over(undelivered)

    def close(self, budget: float, successor: Settings | None = None) -> list[Request]:
        """Export a last time if there is time for it, within *budget* seconds; give everything back.

        Returns what its *successor* is to deliver, which is nothing if that has another collector.
        """
        left = self.pipeline.close(budget, successor is not None and successor.otlp == self.settings.otlp)
        self.collector.close()
        if self._workloads:
            self._workloads.close()
        return left


class _Signals:
    """SIGTERM and SIGINT stop, SIGHUP reloads. Blocked, and taken with sigtimedwait(2) between cycles.

    A Python handler would run inside whatever the main thread does at that moment, such as holding a lock that it needs itself.
    """

    _STOP = frozenset({signal.SIGTERM, signal.SIGINT})
    _ALL = _STOP | {signal.SIGHUP}

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        signal.pthread_sigmask(signal.SIG_BLOCK, self._ALL)  # before any thread starts: they inherit it

    def wait(self, timeout: float) -> None:
        """Sleep until a signal came, at most *timeout* seconds."""
        came = signal.sigtimedwait(self._ALL, max(timeout, 0))
        if came:
            self.stop |= came.si_signo in self._STOP
            self.reload |= came.si_signo == signal.SIGHUP


class Agent:
    """Runs generations until told to stop."""

    def __init__(self, settings: Settings, arguments: list[str]) -> None:
        self._settings = settings
        self._arguments = arguments  # of the command line, to resolve the configuration again
        self._service = Service(dict(os.environ))
        self._signals = _Signals()

    def run(self) -> int:
        """The exit code: 0 when stopped by a signal, 1 when it could not start."""
        generation = self._start(self._settings, [])
        while generation and self._cycles(generation):
            generation = self._reload(generation)
        if generation is None:
            return 0 if self._signals.stop else 1
        self._service.stopping()
        generation.close(_STOP_BUDGET)
        return 0

    def _start(self, settings: Settings, undelivered: list[Request]) -> Generation | None:
        """None, and one line in the log, where these settings cannot work here."""
        try:
            generation = Generation(settings)
            generation.start(undelivered)
        except (Unavailable, ValueError, OSError) as error:
            _log.error("cannot start: %s", _why(error))
            return None
        logs.setup(settings.log)
        self._service.ready(generation.pipeline.describe())
        _log.info("otel-hostmetrics %s runs: %s", __version__, generation.pipeline.describe())
        return generation

    def _cycles(self, generation: Generation) -> bool:
        """Run cycles until a signal; True if it asks for a reload."""
        interval, signals = generation.settings.general.interval, self._signals
        identity = resource.machine_id(generation.settings.path.root) + resource.host_name()
        ticks = Ticks(interval, phase(identity, interval))
        generation.pipeline.tick()  # values at once; the grid begins after
        while not (signals.stop or signals.reload):
            self._service.alive()
            remaining = ticks.remaining(time.monotonic())
            signals.wait(min(remaining, self._service.watchdog or remaining))
            if ticks.remaining(time.monotonic()) > 0 or signals.stop:
                continue
            generation.pipeline.tick()
            if missed := ticks.advance(time.monotonic()):
                _log.warning("%d cycles skipped: one took longer than the interval of %s", missed, interval)
        return not signals.stop

    def _reload(self, old: Generation) -> Generation | None:
        """The next generation, or one with the last good configuration; None where not even that starts any more."""
        self._signals.reload = False
        self._service.reloading()
        new = reload.resolve(self._arguments, self._alive)
        if self._signals.stop:
            return old
        if new is None or new == old.settings:
            _log.info("configuration unchanged") if new else _log.warning("reload failed: the last good configuration stays")
            self._service.ready(old.pipeline.describe())
            return old
        left = old.close(_STOP_BUDGET, new)
        self._signals.wait(0)
        if self._signals.stop:
            _log.info("stopped while reloading, with %d requests undelivered", len(left))
            return None
        started = self._start(new, left)
        if started is None:
            _log.warning("reload failed: back to the last good configuration")
            started = self._start(old.settings, left)
        return started

    def _alive(self) -> None:
        """Called every second of a reload. Raises Unavailable when the agent is to stop instead."""
        self._service.alive()
        self._signals.wait(0)
        if self._signals.stop:
            raise Unavailable(Reason.GONE, "the new configuration", "not waited for: the agent is to stop")


def _why(error: Exception) -> str:
    """Of what is Unavailable, the plain facts and the cure: its reason is a word for values."""
    if not isinstance(error, Unavailable) or not error.detail:
        return str(error)
    return f"{error.what}: {error.detail}{f'; needs {error.needs}' if error.needs else ''}"


def once(settings: Settings, form: str, out: BinaryIO) -> int:
    """One collection in *form* to *out*; also delivered if an OTLP endpoint is set. 0, or 1 if that failed."""
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print would spoil a document
        generation = Generation(settings)
        try:
            text, failure = generation.pipeline.once(form)
            out.write(text)
            out.flush()
        finally:
            generation.close(0)
    if failure:
        _log.error("not delivered: %s", failure)
    return 1 if failure else 0


def examine(settings: Settings) -> Mapping[str, tuple[Status, list[Unavailable]]]:
    """Every source opened and read twice, as ``doctor`` shows it: name -> (status, problems); then the ways to names of workloads."""
    chosen = sources(settings)
    chosen += derived(settings, chosen)
    chosen += plugins(settings)
    rows = {row for source in chosen for row in source.metrics}
    collector = Collector(chosen, None, rows, Telemetry(), settings.general.deadline, settings.general.max_series)
    try:
        collector.collect()
        snapshot = collector.collect()
    finally:
        collector.close()
    found = {source.name: (snapshot.statuses[source.name], snapshot.readings[source.name].problems) for source in chosen}
    return found | (examine_workloads(_host(settings), settings.workloads) if settings.workloads.enabled else {})
