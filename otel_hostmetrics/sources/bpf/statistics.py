"""Whether the kernel measures run times: our own switch, on always or in sampled intervals, and the administrator's."""

from __future__ import annotations

import time
from collections.abc import Iterable

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import Metric, Number
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.bpf_stats import StatsSwitch, sysctl_enabled
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Bpf


class Statistics:
    """Steps once per cycle. With ``sampled``, one interval out of ``stats_every`` is measured, the first one included."""

    def __init__(self, settings: Bpf, fs: HostFS) -> None:
        self._settings = settings
        self._fs = fs
        self._switch = StatsSwitch()
        self._cycle = 0
        self._on_ns = 0  # how long our switch has been on
        self._since_ns = 0
        self.problem: Unavailable | None = None
        self._enabled_series = (rows.STATS_ENABLED.series({}),)
        self._time_series = (rows.STATS_TIME.series({}, time.time_ns()),)

    def step(self) -> None:
        """Account for the interval that ends and switch for the one that begins."""
        now = time.monotonic_ns()
        if self._switch.is_on:
            self._on_ns += now - self._since_ns
        self._since_ns = now
        wanted = self._settings.stats == "on" or (self._settings.stats == "sampled" and self._cycle % self._settings.stats_every == 0)
        self._cycle += 1
        if wanted and not self._switch.is_on:
            try:
                self._switch.open()
                self.problem = None
            except Unavailable as error:
                self.problem = error
        elif not wanted:
            self._switch.close()

    @property
    def wanted(self) -> bool:
        """Whether the user asked for run times at all."""
        return self._settings.stats != "off"

    def enabled(self) -> bool:
        """Whether somebody has statistics on for certain; other processes' descriptors cannot be seen."""
        if self._switch.is_on:
            return True
        try:
            return sysctl_enabled(self._fs)
        except Unavailable:
            return False

    def columns(self, enabled: bool) -> Iterable[tuple[Metric, Column]]:
        """bpf.stats.enabled, and bpf.stats.time where we measure."""
        value: list[Number] = [int(enabled)]
        yield rows.STATS_ENABLED, Column(self._enabled_series, value)
        if self.wanted and self.problem is None:
            yield rows.STATS_TIME, Column(self._time_series, [self._on_ns / 1e9])

    def close(self) -> None:
        self._switch.close()
