"""ExportMetricsServiceRequests out of encoded metrics, each below a size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from otel_hostmetrics.catalogue.model import Kind, Metric, Scope
from otel_hostmetrics.export.otlp import wire
from otel_hostmetrics.export.otlp.points import Points

DELTA, CUMULATIVE = 1, 2  # AggregationTemporality
_DATA = {Kind.GAUGE: 5, Kind.COUNTER: 7, Kind.UPDOWNCOUNTER: 7, Kind.HISTOGRAM: 9}  # Metric.data: gauge, sum, histogram
FRAMING = 16  # at most: tags and lengths of ResourceMetrics and ScopeMetrics, and of a Metric cut in two


_Chunk = bytes | bytearray


class Request(NamedTuple):
    """One complete ExportMetricsServiceRequest, encoded, and how many data points it has."""

    payload: bytes
    points: int


def scope_head(scope: Scope) -> bytes:
    """What stands in front of the metrics in a ScopeMetrics: the InstrumentationScope and the schema's URL."""
    own = wire.text(1, scope.name) + wire.text(2, scope.version) + wire.attributes(3, dict(scope.attributes))
    return wire.delimited(1, own) + wire.text(3, scope.schema_url)


class Frame:
    """What stands around the points of a metric. *scope* is the scope_head() that it goes under."""

    __slots__ = ("_head", "_options", "_prefix", "_size", "_tag", "scope")

    def __init__(self, metric: Metric, temporality: int, scope: bytes) -> None:
        self.scope = scope
        self._head = wire.text(1, metric.name) + wire.text(2, metric.description) + wire.text(3, metric.unit)
        self._tag = wire.varint(_DATA[metric.kind] << 3 | wire.DELIMITED)
        self._options = b"" if metric.kind is Kind.GAUGE else bytes((0x10, temporality))
        if metric.kind is Kind.COUNTER:
            self._options += b"\x18\x01"  # is_monotonic
        self._size = -1
        self._prefix = b""

    def prefix(self, size: int) -> bytes:
        """Give the bytes in front of *size* bytes of points, with the tag of ScopeMetrics.metrics. The last answer is kept."""
        if size != self._size:
            data = self._tag + wire.varint(len(self._options) + size) + self._options
            self._prefix = b"\x12" + wire.varint(len(self._head) + len(data) + size) + self._head + data
            self._size = size
        return self._prefix


class Ready:
    """In place of a frame where the points have theirs already."""

    __slots__ = ("scope",)

    def __init__(self, scope: bytes) -> None:
        self.scope = scope

    def prefix(self, _: int) -> bytes:
        """Nothing."""
        return b""


class Piece(NamedTuple):
    """A metric of one resource: its frame and the points of each column. Or many metrics, if they are ready."""

    frame: Frame | Ready
    columns: list[Points]


class Packer:
    """Fills requests below *limit* bytes: with whole metrics where they fit, else with as many points as fit.

    A single point larger than the limit goes out alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._requests: list[Request] = []
        self._closed: list[_Chunk] = []  # whole ResourceMetrics of the request being filled
        self._closed_size = 0
        self._points = 0

    def resource(self, resource: bytes, scopes: Iterable[tuple[bytes, list[Piece]]]) -> None:
        """Add a ResourceMetrics: an encoded Resource and its metrics, those of each scope_head()."""
        resource = wire.delimited(1, resource)
        chunks: list[_Chunk] = []
        before = 0  # size of the ScopeMetrics that are whole
        for scope, pieces in scopes:
            overhead = len(resource) + len(scope) + FRAMING
            used = self._closed_size + before + overhead
            begin, size = len(chunks), 0
            chunks.append(b"")  # for what stands in front
            for metric, length, count in self._metrics(pieces, self._limit - overhead):
                if (before or size or self._closed) and used + size + length >= self._limit:
                    self._close(resource, chunks, before + _scope_metrics(scope, chunks, begin, size))
                    self._finish()
                    chunks, before, begin, size, used = [b""], 0, 0, 0, overhead
                chunks += metric
                size += length
                self._points += count
            before += _scope_metrics(scope, chunks, begin, size)
        self._close(resource, chunks, before)

    def whole(self, encoded: bytes, points: int) -> None:
        """Add complete ResourceMetrics, together below the limit."""
        if self._closed and self._closed_size + len(encoded) >= self._limit:
            self._finish()
        self._closed.append(encoded)
        self._closed_size += len(encoded)
        self._points += points

    def requests(self) -> list[Request]:
        """Everything added, as requests."""
        self._finish()
        return self._requests

    def _metrics(self, pieces: list[Piece], room: int) -> Iterator[tuple[list[_Chunk], int, int]]:
        """Each metric's chunks, their length and number of points; a metric that does not fit into *room* in several parts."""
        for frame, columns in pieces:
            chunks = [column.data for column in columns]
            size = sum(map(len, chunks))
            prefix = frame.prefix(size)
            if len(prefix) + size < room:
                yield [prefix, *chunks], len(prefix) + size, sum([column.number for column in columns])
                continue
            for data, count in _cut(columns, room - len(prefix) - 1):
                prefix = frame.prefix(len(data))
                yield [prefix, data], len(prefix) + len(data), count

    def _close(self, resource: bytes, chunks: list[_Chunk], size: int) -> None:
        if size:
            head = b"\x0a" + wire.varint(len(resource) + size) + resource
            self._closed += [head, *chunks]
            self._closed_size += len(head) + size

    def _finish(self) -> None:
        if self._closed:
            self._requests.append(Request(b"".join(self._closed), self._points))
        self._closed, self._closed_size, self._points = [], 0, 0


def by_scope(pieces: list[Piece]) -> Iterable[tuple[bytes, list[Piece]]]:
    """The pieces of each scope, in the order of the first."""
    found: dict[bytes, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.frame.scope, []).append(piece)
    return found.items()


def _scope_metrics(scope: bytes, chunks: list[_Chunk], begin: int, size: int) -> int:
    """Put what makes a ScopeMetrics of the metrics behind *begin*, of that size, into it. Returns the size of all; 0 of nothing."""
    if size:
        chunks[begin] = b"\x12" + wire.varint(len(scope) + size) + scope
    return size and len(chunks[begin]) + size


def _cut(columns: list[Points], room: int) -> Iterator[tuple[_Chunk, int]]:
    """Points in slices of at most *room* bytes, at least one point each, and how many there are in each."""
    for column in columns:
        ends = column.ends()
        first = begin = 0
        while first < len(ends):
            last = max(bisect_right(ends, begin + room, first), first + 1)
            yield column.data[begin : ends[last - 1]], last - first
            first, begin = last, ends[last - 1]
