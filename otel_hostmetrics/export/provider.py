"""A MeterProvider on the public API classes, made for observable instruments with many stable series.

Unlike the stock SDK it forgets a series that is no longer observed, has no limit of 2 000 series an instrument, runs each
callback once per cycle whatever the number of exporters, and takes columns as they are (facts in DESIGN of this project:
collect + encode of 3 000 points 1.4 ms against 66 ms). It has no views, exemplars or attribute filters.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from opentelemetry import metrics as api

from otel_hostmetrics.catalogue.model import Kind, Metric, Scope
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.export.instruments import Counter, Gauge, Histogram, Observable
from otel_hostmetrics.export.metering import OWN
from otel_hostmetrics.export.observed import NotAllowed, number, shown
from otel_hostmetrics.export.observed import attributes as checked
from otel_hostmetrics.export.streams import Callback, Observed, Recorded, Stream
from otel_hostmetrics.model import Column, Family, Snapshot

_log = logging.getLogger(__name__)

_Cell = tuple[int, Column]  # with the Unix time of its values
_Pick = Callable[[Sequence[_Cell]], tuple[_Cell, ...]]
_Identity = tuple[Scope | None, str]  # Metric.identity
_S = TypeVar("_S", bound=Stream)
# The SDK specification's default for explicit bucket histograms.
_DEFAULT_BOUNDARIES = (0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0)
_INSTRUMENT = "an OpenTelemetry instrument"
_NAME, _UNIT = re.compile(r"[a-zA-Z][-_./a-zA-Z0-9]{0,254}"), re.compile(r"[\x00-\x7f]{0,63}")  # the API specification's syntax


class Meter(api.Meter):
    """Creates instruments; all meters of a provider write into its one list of streams.

    Each create_...() raises ValueError for a name or unit that OpenTelemetry does not allow, as the stock SDK does.
    """

    def __init__(self, provider: Provider, scope: Scope) -> None:
        super().__init__(scope.name, scope.version or None, scope.schema_url or None)
        self._scope = None if scope == OWN else scope
        self._add = provider.add
        self._histogram = provider.histogram

    def create_counter(self, name: str, unit: str = "", description: str = "") -> api.Counter:
        return Counter(self._recorded(name, Kind.COUNTER, unit, description))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> api.UpDownCounter:
        return Counter(self._recorded(name, Kind.UPDOWNCOUNTER, unit, description))

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> api._Gauge:
        return Gauge(self._recorded(name, Kind.GAUGE, unit, description))

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", *, explicit_bucket_boundaries_advisory: Sequence[float] | None = None
    ) -> api.Histogram:
        boundaries = _boundaries(name, explicit_bucket_boundaries_advisory)
        return self._histogram(self._metric(name, Kind.HISTOGRAM, unit, description, _INSTRUMENT, boundaries))

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> api.ObservableCounter:
        return self._observed(name, Kind.COUNTER, callbacks, unit, description)

    def create_observable_up_down_counter(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> api.ObservableUpDownCounter:
        return self._observed(name, Kind.UPDOWNCOUNTER, callbacks, unit, description)

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Callback] | None = None, unit: str = "", description: str = ""
    ) -> api.ObservableGauge:
        return self._observed(name, Kind.GAUGE, callbacks, unit, description)

    def _observed(self, name: str, kind: Kind, callbacks: Sequence[Callback] | None, unit: str, description: str) -> Observable:
        self._add(Observed(self._metric(name, kind, unit, description, "an OpenTelemetry callback"), callbacks))
        return Observable()

    def _recorded(self, name: str, kind: Kind, unit: str, description: str) -> Recorded:
        return self._add(Recorded(self._metric(name, kind, unit, description, _INSTRUMENT)))

    def _metric(self, name: str, kind: Kind, unit: str, description: str, reads: str, boundaries: tuple[float, ...] = ()) -> Metric:
        if not all(isinstance(each, str) for each in (name, unit or "", description or "")):
            raise ValueError(f"instrument {shown(name)} in {shown(unit)}: expected text for its name, unit and description")
        if not _NAME.fullmatch(name) or not _UNIT.fullmatch(unit or ""):
            raise ValueError(f"instrument {name!r} in {unit!r}: expected a name of letters, digits, _ - . / and a unit in ASCII")
        name, unit, description = (str.__str__(each or "") for each in (name, unit, description))  # as observed.py
        return Metric(name, kind, unit, description, reads, boundaries=boundaries, scope=self._scope)


def _boundaries(name: str, advised: Sequence[float] | None) -> tuple[float, ...]:
    """Those of a histogram; what cannot be any is said and, as by the stock SDK, not taken."""
    if advised is None:
        return _DEFAULT_BOUNDARIES
    try:
        found = tuple(map(number, advised))
        if all(map(math.isfinite, found)) and all(low < high for low, high in itertools.pairwise(found)):
            return found
    except (NotAllowed, TypeError):
        pass
    _log.warning("boundaries of %s are the default's: %s are not finite numbers, each larger than the one before", name, shown(advised))
    return _DEFAULT_BOUNDARIES


class Provider(api.MeterProvider):
    """Collects every instrument of every meter into families, in the order of their creation.

    An instrument whose name *keeps* refuses is never asked, and what is recorded by it goes nowhere.
    """

    def __init__(self, keeps: Callable[[str], bool] = lambda _: True) -> None:
        self._keeps = keeps
        self._streams: dict[_Identity, Stream] = {}
        self._positions = itertools.count(1)  # no two threads get the same
        self._asked: dict[_Identity, Stream] = {}  # those that must be asked in each cycle
        self._replayed: dict[Callable[[], Snapshot | None], dict[str, dict[Metric, Stream]]] = {}  # by snapshot, source, metric
        self._owners: list[Stream] = []  # of the cells of the last collect()
        self._picks: list[_Pick] = []  # of each family, in the order of creation: its cells among those

    def get_meter(self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Any = None) -> Meter:
        return Meter(self, Scope(name, version or "", schema_url or "", tuple(sorted(checked(attributes or {}).items()))))

    def add(self, stream: _S) -> _S:
        """Register a stream. A second instrument of the same name in the same scope adds its callbacks to the first, if they agree."""
        metric = stream.metric
        if not self._keeps(metric.name):
            return stream
        known = self._streams.setdefault(metric.identity, stream)
        if known is stream:
            stream.position = next(self._positions)
            self._index(stream, stream)
            return stream
        if (known.metric.kind, known.metric.unit) != (metric.kind, metric.unit) or not isinstance(known, type(stream)):
            _log.warning(
                "metric %s exists as %s in %r; the second one is not exported", metric.name, known.metric.kind.value, known.metric.unit
            )
            return stream
        known.merge(stream)
        self._index(known, stream)
        return known

    def histogram(self, metric: Metric) -> api.Histogram:
        """The instrument of a histogram."""
        return Histogram(self.add(Recorded(metric)))

    def problems(self) -> list[Unavailable]:
        """Callbacks that failed in the last collect(), and why."""
        return [problem for stream in list(self._asked.values()) for problem in stream.problems]

    def _index(self, stream: Stream, new: Stream) -> None:
        """Where collect() finds *stream*, for the callbacks that *new* brought."""
        for each in new.replayed if isinstance(new, Observed) else ():
            self._replayed.setdefault(each.current, {}).setdefault(each.source, {})[each.metric] = stream
        if not isinstance(stream, Observed) or stream.callbacks:
            self._asked[stream.metric.identity] = stream

    def collect(self) -> tuple[Family, ...]:
        """What every instrument has now, in the order of their creation.

        A loop over what the snapshot has, not over what could be: of some 300 instruments a host has points for 60.
        """
        owners: list[Stream] = []
        cells: list[_Cell] = []
        for current, sources in self._replayed.items():
            readings = snapshot.readings if (snapshot := current()) is not None else {}
            for source, streams in sources.items():
                if (reading := readings.get(source)) is not None:
                    for metric, column in reading.columns.items():
                        if column.series and (stream := streams.get(metric)) is not None:
                            owners.append(stream)
                            cells.append((reading.time_ns, column))
        if self._asked:
            self._ask(owners, cells)
        if owners != self._owners:  # quick, as most are the same objects
            self._owners, self._picks = owners, _arranged(owners)
        found = tuple(cells)
        # The first series' metric is the catalogue's row, if it is one of ours.
        return tuple([Family((members := pick(found))[0][1].series[0].metric, members) for pick in self._picks])

    def _ask(self, owners: list[Stream], cells: list[_Cell]) -> None:
        for stream in list(self._asked.values()):
            for cell in stream.columns():
                if cell[1].series:
                    owners.append(stream)
                    cells.append(cell)


def _arranged(owners: Sequence[Stream]) -> list[_Pick]:
    """For each stream what picks its cells, in the order in which streams were created."""
    found: dict[Stream, list[int]] = {}
    for place, stream in enumerate(owners):
        found.setdefault(stream, []).append(place)
    return [_pick(found[stream]) for stream in sorted(found, key=lambda one: one.position)]


def _pick(places: Sequence[int]) -> _Pick:
    """One place alone as a slice: itemgetter makes a tuple of several only."""
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))
