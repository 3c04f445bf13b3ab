"""What one cycle yields, and who takes part in it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import msgspec

from otel_hostmetrics.catalogue.model import Metric, Number, Series
from otel_hostmetrics.errors import Reason, Unavailable


class Distribution(NamedTuple):
    """One cumulative histogram value. ``counts`` has one entry more than the metric has boundaries."""

    counts: tuple[int, ...]
    sum: float
    min: float
    max: float

    @property
    def total(self) -> int:
        return sum(self.counts)


class Column(NamedTuple):
    """The points of one metric from one source: ``values[i]`` belongs to ``series[i]``.

    As long as the set of series stays the same, ``series`` is the very same tuple object in every cycle;
    exporters keep what they precompiled for it and compare with ``is``. A value that could not be read
    has no entry in either: absent is not zero.
    """

    series: tuple[Series, ...]
    values: Sequence[Number] | Sequence[Distribution]


class Measurement(NamedTuple):
    """One value for a histogram, to be recorded once."""

    series: Series
    value: float


class Reading(msgspec.Struct):
    """What one source saw in one cycle."""

    columns: dict[Metric, Column] = {}
    measurements: Sequence[Measurement] = ()  # what histograms are to record, each once
    problems: list[Unavailable] = []  # what could not be read, and why
    off: Unavailable | None = None  # this host has nothing for the source, which has something to say all the same: "0 GPUs"
    facts: Mapping[str, object] = {}  # slow-changing, JSON-able: firmware, topology, relations
    time_ns: int = 0  # Unix time of the values; the collector fills it in
    dropped: int = 0  # series cut off by the source's limit
    again: float = 0.0  # s after which another reading tells what takes two of them: watts


class Source(Protocol):
    """One family of kernel or driver counters."""

    @property
    def name(self) -> str: ...
    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What it may emit, as far as that is known beforehand."""

    @property
    def blocking(self) -> bool:
        """Whether it may hang in a driver or a peer: read in a thread of its own, with a deadline."""

    def open(self) -> None:
        """Find the hardware and bind a Series to every value it has. Raises Unavailable if it has none."""

    def read(self) -> Reading:
        """Read every bound value once. One bad device is a problem in the Reading, not an exception."""

    def close(self) -> None:
        """Give back descriptors. Safe to call twice, and after a failed open."""


@runtime_checkable
class Derived(Source, Protocol):
    """A source of what follows from the readings of others: read after them, and told first what they read in the same cycle."""

    def take(self, columns: Mapping[str, Mapping[Metric, Column]]) -> None:
        """All columns of this cycle by source, also of metrics that nobody wants. Called before open() and read()."""


class State(enum.Enum):
    """How a source fared in one cycle."""

    OK = "ok"
    PARTIAL = "partial"  # some values could not be read; see problems
    OFF = "off"  # this host has nothing for the source
    FAILED = "failed"  # nothing could be read, and that is not normal
    LATE = "late"  # still inside a call when the cycle closed


class Status(msgspec.Struct, frozen=True):
    """What the agent says of a source in its own metrics, in ``doctor``, in JSON and on screen."""

    state: State
    reason: Reason | None = None
    detail: str = ""
    needs: str = ""  # what cures a DENIED, see Unavailable
    took_ns: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """The host at one moment. Immutable; every exporter of a cycle is given the same one."""

    number: int
    time_ns: int  # Unix time
    monotonic_ns: int
    readings: Mapping[str, Reading]  # by source name
    statuses: Mapping[str, Status]


class Family(msgspec.Struct, frozen=True):
    """One metric as exporters see it: a row of the catalogue and its points, a column per source."""

    metric: Metric
    columns: tuple[tuple[int, Column], ...]  # (Unix time of the values, column)


class Batch(msgspec.Struct, frozen=True):
    """What every exporter of a cycle writes: the snapshot and its metrics in the order of registration."""

    snapshot: Snapshot
    families: tuple[Family, ...]
