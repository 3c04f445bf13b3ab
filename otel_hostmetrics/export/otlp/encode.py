"""A batch as OTLP requests (opentelemetry-proto 1.x, ExportMetricsServiceRequest)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import compress
from operator import is_
from typing import Any, NamedTuple

from otel_hostmetrics import settings
from otel_hostmetrics.catalogue.model import Attributes, Kind, Metric, Scope, Series
from otel_hostmetrics.export.otlp import wire
from otel_hostmetrics.export.otlp.block import Block, Filled, Stripe, Whose, picker
from otel_hostmetrics.export.otlp.delta import Deltas, Increments
from otel_hostmetrics.export.otlp.points import Numbers, Points, histograms, moving_head, number_head
from otel_hostmetrics.export.otlp.request import CUMULATIVE, DELTA, Frame, Packer, Piece, Request, by_scope, scope_head
from otel_hostmetrics.model import Batch, Column, Distribution, Family

__all__ = ["Encoder", "Request"]

# Which kinds go out as deltas. As in the stock exporter, "lowmemory" spares the state of observable counters,
# which is what all of ours are.
_DELTA_KINDS = {"cumulative": (), "delta": (Kind.COUNTER, Kind.HISTOGRAM), "lowmemory": (Kind.HISTOGRAM,)}


class Encoder:
    """Encodes batches, one after the other; for one thread.

    While no series comes or goes, a batch costs 0.4 us per metric and 0.05 us per point (the stock encoder: 11 us per point),
    measured at 5 attributes. When one does, 4 us per metric and 0.1 to 0.4 us per point more, and 1.7 us for each new one.
    *start_ns* is the start time of series that have none. Points have the time of their column, and like those of
    the stock SDK a start time unless they are gauges'. *scope* and *version* are of this agent's own metrics.
    """

    def __init__(self, resource: Attributes, scope: str, version: str, settings: settings.Otlp, start_ns: int) -> None:
        self._resource = resource
        self._own = scope_head(Scope(scope, version))
        self._foreign = False  # whether any metric is a third party's
        self._limit = settings.max_request_bytes
        self._start_ns = start_ns
        self._delta_kinds = _DELTA_KINDS[settings.temporality]
        self._deltas = Deltas(start_ns)
        self._families: dict[Metric, _Numbers | _Histograms] = {}
        self._bound: list[object] = []  # the metrics and the columns' series of the last batch
        self._inside: list[bool] = []  # which of the columns go into the block
        self._outside: list[int] | None = None  # which of the families do not; None: there is no block
        self._resources: dict[int, tuple[Attributes | None, bytes]] = {}
        self._block = Block(lambda workload: wire.attributes(1, {**resource, **(workload or {})}), settings.max_request_bytes)

    def encode(self, batch: Batch) -> list[Request]:
        """One request, or several if one would reach max_request_bytes; none if there is no point."""
        families = batch.families
        columns = [each for family in families for each in family.columns]
        bound: list[object] = [family.metric for family in families]  # empty columns are all the same object
        bound += [column.series for _, column in columns]
        if len(bound) != len(self._bound) or not all(map(is_, bound, self._bound)):
            self._bind(families)
            self._bound = bound
        filled = self._fill(columns)
        host = filled.host if filled else []
        pieces: dict[int, tuple[Attributes | None, list[Piece]]] = {id(None): (None, host)}
        for index in self._outside if filled and self._outside is not None else range(len(families)):
            encoder = self._families[families[index].metric]
            gains = self._deltas.family(families[index]) if encoder.delta else None
            for resource, encoded in encoder.encode(families[index], gains):
                target = host if resource is None else pieces.setdefault(id(resource), (resource, []))[1]
                target.append(Piece(encoder.frame, encoded))
        return self._pack(pieces, filled.workloads if filled else [])

    def _bind(self, families: Sequence[Family]) -> None:
        """Compile what is new and forget what is gone.

        A workload is to have one ResourceMetrics only, so that if one has points that cannot go into the block, there is none.
        """
        self._families = {family.metric: self._families.get(family.metric) or self._family(family.metric) for family in families}
        found = [self._families[family.metric].bind(family) for family in families]
        self._inside = [stripes is not None for family, stripes in zip(families, found, strict=True) for _ in family.columns]
        self._outside = [index for index, stripes in enumerate(found) if stripes is None]
        if any(self._families[families[index].metric].of_workloads(families[index]) for index in self._outside):
            self._outside = None
        else:
            self._block.bind([stripe for stripes in found for stripe in stripes or ()])

    def _fill(self, columns: Sequence[tuple[int, Column]]) -> Filled | None:
        if self._outside is None:
            return None
        chosen = list(compress(columns, self._inside))
        return self._block.fill([time_ns for time_ns, _ in chosen], [column.values for _, column in chosen])  # type: ignore[misc] # no distributions

    def _family(self, metric: Metric) -> _Numbers | _Histograms:
        make = _Histograms if metric.kind is Kind.HISTOGRAM else _Numbers
        self._foreign |= metric.scope is not None
        delta = metric.kind in self._delta_kinds
        frame = Frame(metric, DELTA if delta else CUMULATIVE, self._own if metric.scope is None else scope_head(metric.scope))
        return make(metric, frame, delta, self._start_ns)

    def _pack(self, pieces: dict[int, tuple[Attributes | None, list[Piece]]], block: list[tuple[bytes, int]]) -> list[Request]:
        resources = {}
        packer = Packer(self._limit)
        for key, (resource, group) in pieces.items():
            known = self._resources.get(key) or (resource, wire.attributes(1, {**self._resource, **(resource or {})}))
            resources[key] = known  # with the mapping itself, so that its identity is not given to another
            packer.resource(known[1], by_scope(group) if self._foreign else ((self._own, group),))
        self._resources = resources
        for encoded, points in block:
            packer.whole(encoded, points)
        return packer.requests()


_Encoded = list[tuple[Attributes | None, list[Points]]]  # a family's points by resource


class _Part(NamedTuple):
    """The series of a column that belong to one resource."""

    resource: Attributes | None
    pick: Callable[[Sequence[Any]], Any]  # their values out of the column's
    numbers: Numbers


class _Template:
    """What was precompiled for a tuple of series."""

    def __init__(self, series: tuple[Series, ...], heads: list[bytes], make: Callable[[Sequence[bytes]], Numbers]) -> None:
        self.series = series  # also keeps the tuple alive, so that its identity is not given to another
        self.heads = heads
        self._make = make
        groups: dict[int, list[int]] = {}
        for index, one in enumerate(series):
            groups.setdefault(id(one.resource), []).append(index)
        self.whose: Whose = [(series[indices[0]].resource, indices) for indices in groups.values()]

    @cached_property
    def parts(self) -> list[_Part]:
        """Made when first needed: most points go out in a block."""
        return [self._part(resource, indices) for resource, indices in self.whose]

    def _part(self, resource: Attributes | None, indices: list[int]) -> _Part:
        pick = _all if len(self.whose) == 1 else picker(indices)
        return _Part(resource, pick, self._make(pick(self.heads)))


class _Numbers:
    """A family of counters, updowncounters or gauges."""

    def __init__(self, metric: Metric, frame: Frame, delta: bool, start_ns: int) -> None:
        self.frame = frame
        self.delta = delta
        self._metric = metric
        self._start_ns = start_ns
        self._templates: dict[int, _Template] = {}  # by identity of Column.series

    def bind(self, family: Family) -> list[Stripe] | None:
        """What a block is to hold; None if it cannot: start times of deltas move, too."""
        present = {id(column.series): column.series for _, column in family.columns}
        if present.keys() != self._templates.keys():
            self._rebuild(present)
        if self.delta:
            return None
        code = "q" if self._metric.integer else "d"
        found = (self._templates[id(column.series)] for _, column in family.columns)
        return [Stripe(self.frame, code, each.heads, each.whose) for each in found]

    def of_workloads(self, _: Family) -> bool:
        """Whether any point is a workload's."""
        return any(resource is not None for template in self._templates.values() for resource, _ in template.whose)

    def encode(self, family: Family, gains: list[Increments] | None) -> _Encoded:
        """All points, after bind()."""
        encoded: dict[int, tuple[Attributes | None, list[Points]]] = {}
        for index, (time_ns, column) in enumerate(family.columns):
            values, starts = gains[index] if gains else (column.values, None)
            for part in self._templates[id(column.series)].parts:
                points = part.numbers.encode(time_ns, part.pick(values), starts and part.pick(starts))
                if points.number:
                    encoded.setdefault(id(part.resource), (part.resource, []))[1].append(points)
        return list(encoded.values())

    def _rebuild(self, columns: dict[int, tuple[Series, ...]]) -> None:
        """Compile new columns, with the heads of series that were there before; forget those that are gone."""
        heads = {one: head for old in self._templates.values() for one, head in zip(old.series, old.heads, strict=True)}
        self._templates = {key: self._templates.get(key) or self._compile(series, heads) for key, series in columns.items()}

    def _compile(self, series: tuple[Series, ...], known: dict[Series, bytes]) -> _Template:
        heads = [known.get(one) or self._head(one) for one in series]
        return _Template(series, heads, lambda chosen: Numbers(chosen, self._metric.integer, self.delta))

    def _head(self, series: Series) -> bytes:
        if self.delta:
            return moving_head(series)
        return number_head(series, 0 if self._metric.kind is Kind.GAUGE else series.start_ns or self._start_ns)


def _all(values: Sequence[Any]) -> Sequence[Any]:
    return values


_Row = tuple[Series, Distribution, int]


class _Histograms:
    """A family of histograms: few points, so nothing is precompiled."""

    def __init__(self, metric: Metric, frame: Frame, delta: bool, start_ns: int) -> None:
        self.frame = frame
        self.delta = delta
        self._boundaries = metric.boundaries
        self._start_ns = start_ns

    def bind(self, _: Family) -> None:
        """As of numbers; histograms have no fixed size."""

    def of_workloads(self, family: Family) -> bool:
        return any(one.resource for _, column in family.columns for one in column.series)

    def encode(self, family: Family, gains: list[Increments] | None) -> _Encoded:
        encoded: dict[int, tuple[Attributes | None, list[Points]]] = {}
        for index, (time_ns, column) in enumerate(family.columns):
            for resource, rows in self._by_resource(column, gains[index] if gains else None).values():
                points = histograms(rows, time_ns, self._boundaries)
                if points.number:
                    encoded.setdefault(id(resource), (resource, []))[1].append(points)
        return list(encoded.values())

    def _by_resource(self, column: Column, gains: Increments | None) -> dict[int, tuple[Attributes | None, list[_Row]]]:
        values, starts = gains or (column.values, [series.start_ns or self._start_ns for series in column.series])
        groups: dict[int, tuple[Attributes | None, list[_Row]]] = {}
        for row in zip(column.series, values, starts, strict=True):
            resource = row[0].resource
            groups.setdefault(id(resource), (resource, []))[1].append(row)
        return groups
