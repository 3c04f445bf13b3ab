"""What is made of several values of NVML, by name; only what a device has all parts of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from otel_hostmetrics.kernel.nvml_values import NVLINK5_ERRORS
from otel_hostmetrics.sources.gpu.points import Value

Derive: TypeAlias = Callable[[Sequence[Value]], Value]  # of the values whose names it was made from

_PENDING = ("retired.pending", "remapped.pending")


def of_fast(names: Sequence[str]) -> Iterator[tuple[str, Derive]]:
    """Of what is read in every cycle."""
    at = {name: place for place, name in enumerate(names)}
    if "memory.used" in at and "memory.total" in at:
        yield "memory.utilization", partial(_ratio, at["memory.used"], at["memory.total"])
    yield from _sums(names, [f"nvlink.{way}" for way in ("transmit", "receive")])


def of_slow(names: Sequence[str]) -> Iterator[tuple[str, Derive]]:
    """Of what rarely changes."""
    pending = [place for place, name in enumerate(names) if name in _PENDING]
    if pending:
        yield "repair.pending", partial(_any, pending)
    yield from _sums(names, [f"nvlink.error.{kind}" for kind, _ in NVLINK5_ERRORS])


def copy(place: int, values: Sequence[Value]) -> Value:
    """The value there, for another name."""
    return values[place]


def _sums(names: Sequence[str], totals: Sequence[str]) -> Iterator[tuple[str, Derive]]:
    """Over all links, each of which has a value, ``nvlink.transmit.3``, where the driver has no total."""
    for total in (each for each in totals if each not in names):
        links = [place for place, name in enumerate(names) if name.startswith(f"{total}.")]
        if links:
            yield total, partial(_sum, links)


def _ratio(part: int, whole: int, values: Sequence[Value]) -> Value:
    used, total = values[part], values[whole]
    return used / total if used is not None and total else None


def _any(places: Sequence[int], values: Sequence[Value]) -> Value:
    known = [flag for place in places if (flag := values[place]) is not None]
    return max(known) if known else None


def _sum(places: Sequence[int], values: Sequence[Value]) -> Value:
    """None where a part is missing: a sum of fewer links would look like a counter that fell."""
    parts = [values[place] for place in places]
    return sum(parts) if None not in parts else None  # type: ignore[arg-type]
