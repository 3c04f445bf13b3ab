"""The points of all workloads in one go, a ResourceMetrics for each workload.

A host has many workloads with few points each, so that framing them one by one costs more than the points: 2-5 us a point.
But all lengths are as constant as those of the points themselves while no series comes or goes, so the whole block of
ResourceMetrics is one struct, too: 0.1 us a point (measured, 300 containers with 30 points each).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from otel_hostmetrics.catalogue.model import Attributes, Number
from otel_hostmetrics.export.otlp import wire
from otel_hostmetrics.export.otlp.points import FILLED, TAIL, all_finite, tail
from otel_hostmetrics.export.otlp.request import Frame

Whose = list[tuple[Attributes, list[int]]]  # workloads and the positions of their points in a column


class Stripe(NamedTuple):
    """A column with points of workloads. *heads* and *whose* are the same objects while its series stay the same."""

    frame: Frame
    integer: bool
    heads: Sequence[bytes]
    whose: Whose
    time_ns: int
    values: Sequence[Number]


class _Run(NamedTuple):
    """The points of one stripe that belong to one workload."""

    stripe: int
    code: str
    heads: list[bytes]
    positions: list[int]  # in the values of all stripes


_Scopes = dict[bytes, dict[Frame, list[_Run]]]  # a workload's runs by scope and metric


class _Struct:
    """Some of the workloads: what fits into one request."""

    def __init__(self, runs: Sequence[_Run]) -> None:
        heads = [head for run in runs for head in run.heads]
        self.points = len(heads)
        self._pack = struct.Struct("<" + "".join([f"{len(head)}s{TAIL}s{run.code}" for run in runs for head in run.heads])).pack
        self._args: list[bytes | Number] = [0] * (3 * len(heads))
        self._args[::3] = heads
        self._tails = _picker([run.stripe for run in runs for _ in run.heads])
        self._values = _picker([position for run in runs for position in run.positions])

    def fill(self, tails: Sequence[bytes], values: Sequence[Number]) -> bytes:
        """*tails* are the stripes'. Raises struct.error or OverflowError for a value that its field cannot hold."""
        self._args[1::3] = self._tails(tails)
        self._args[2::3] = self._values(values)
        return self._pack(*self._args)


def _picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """A function that gives what a sequence has there: 6 ns each, a comprehension takes 9."""
    return itemgetter(*positions) if len(positions) > 1 else itemgetter(slice(positions[0], positions[0] + 1))


class Block:
    """Keeps what was compiled for the stripes of the last batch. *resource* encodes the whole Resource of a workload."""

    def __init__(self, resource: Callable[[Attributes], bytes], limit: int) -> None:
        self._resource = resource
        self._limit = limit
        self._known: list[tuple[Frame, Whose]] = []
        self._structs: list[_Struct] | None = []

    def encode(self, stripes: Sequence[Stripe]) -> list[tuple[bytes, int]] | None:
        """Whole ResourceMetrics and their numbers of points, each below the limit.

        None if that cannot be: a value that is not finite or no integer where the others are, or a workload beyond the limit.
        Raises ValueError for a column of another size than its series.
        """
        for stripe in stripes:
            if len(stripe.values) != len(stripe.heads):  # all columns behind it would be shifted
                raise ValueError(f"a column of size {len(stripe.values)} for {len(stripe.heads)} series")
        if len(stripes) != len(self._known) or any(
            stripe.whose is not whose or stripe.frame is not frame for stripe, (frame, whose) in zip(stripes, self._known, strict=True)
        ):
            self._known = [(stripe.frame, stripe.whose) for stripe in stripes]
            self._structs = self._compiled(stripes)
        if self._structs is None or not all(stripe.integer or all_finite(stripe.values) for stripe in stripes):
            return None
        tails = [tail(stripe.time_ns, _code(stripe)) for stripe in stripes]
        values = list(chain.from_iterable([stripe.values for stripe in stripes]))
        try:
            return [(each.fill(tails, values), each.points) for each in self._structs]
        except (struct.error, OverflowError):
            return None

    def _compiled(self, stripes: Sequence[Stripe]) -> list[_Struct] | None:
        structs: list[_Struct] = []
        runs: list[_Run] = []
        size = 0
        for resource, scopes in _by_workload(stripes):
            length = _frame(self._resource(resource), scopes)
            if length >= self._limit:
                return None
            if runs and size + length >= self._limit:
                structs.append(_Struct(runs))
                runs, size = [], 0
            runs += [run for metrics in scopes.values() for each in metrics.values() for run in each]
            size += length
        return [*structs, _Struct(runs)] if runs else structs


def _frame(resource: bytes, scopes: _Scopes) -> int:
    """Put all that stands before a workload's points into the heads of the points; returns the size of it all."""
    size = sum([_frame_scope(scope, metrics) for scope, metrics in scopes.items()])
    resource = wire.delimited(1, resource)
    begin = b"\x0a" + wire.varint(len(resource) + size) + resource
    _put_before(next(iter(scopes.values())), begin)
    return len(begin) + size


def _frame_scope(scope: bytes, metrics: dict[Frame, list[_Run]]) -> int:
    size = 0
    for frame, runs in metrics.items():
        length = sum([len(head) + FILLED for run in runs for head in run.heads])
        prefix = frame.prefix(length)
        runs[0].heads[0] = prefix + runs[0].heads[0]
        size += len(prefix) + length
    begin = b"\x12" + wire.varint(len(scope) + size) + scope
    _put_before(metrics, begin)
    return len(begin) + size


def _put_before(metrics: dict[Frame, list[_Run]], begin: bytes) -> None:
    heads = next(iter(metrics.values()))[0].heads
    heads[0] = begin + heads[0]


def _code(stripe: Stripe) -> str:
    return "q" if stripe.integer else "d"


def _by_workload(stripes: Sequence[Stripe]) -> Iterator[tuple[Attributes, _Scopes]]:
    found: dict[int, tuple[Attributes, _Scopes]] = {}
    offset = 0
    for index, stripe in enumerate(stripes):
        code, heads = _code(stripe), stripe.heads
        for resource, positions in stripe.whose:
            run = _Run(index, code, [heads[at] for at in positions], [offset + at for at in positions])
            scopes = found.setdefault(id(resource), (resource, {}))[1]
            scopes.setdefault(stripe.frame.scope, {}).setdefault(stripe.frame, []).append(run)
        offset += len(heads)
    return iter(found.values())
