"""Sources of third parties: what installed distributions offer in the entry point group ``otel_hostmetrics.sources``.

An entry point is a function ``register(meter)`` that makes instruments on an opentelemetry.metrics.Meter, as it would on
any SDK's. It may return a function that gives back what it holds: a reload must not leave its threads and files behind.

To the collector a plugin is a source that may hang: its code is imported, register() called and its callbacks asked in a
thread of its own, once per cycle whatever exports them. What they yield is replayed like the points of any other source.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar

from opentelemetry.metrics import Histogram

from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.instruments import Forwarded
from otel_hostmetrics.export.observed import shown
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.model import Measurement, Reading, Source
from otel_hostmetrics.settings import General

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_log = logging.getLogger(__name__)

GROUP = "otel_hostmetrics.sources"
EVERY = "*"
_MOST_MEASURED = 10_000  # values of histograms kept between two cycles


def installed() -> dict[str, EntryPoint]:
    """By name. Of two with the same name, the first on the path, as with modules. None of their code is loaded."""
    from importlib.metadata import entry_points  # 1.6 MB resident: only where somebody wants plugins

    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=GROUP):
        found.setdefault(each.name, each)
    return found


def chosen(general: General) -> list[Source]:
    """Those that ``general.plugins`` names, not yet loaded. Raises Unavailable for one that is not installed."""
    there = installed()
    wanted = [*there] if EVERY in general.plugins else [*dict.fromkeys(general.plugins)]
    if not wanted:
        _log.warning("no plugin is installed")
    for name in wanted:
        if name not in there:
            raise Unavailable(Reason.ABSENT, f"plugin {name} (general.plugins)", "not installed any more")
    return [Plugin(there[name], general.keeps) for name in wanted]


class Plugin:
    """The instruments that one entry point has made. *keeps* says which metrics are wanted; the others are not asked for."""

    metrics: ClassVar[tuple[Metric, ...]] = ()
    blocking: ClassVar[bool] = True

    def __init__(self, entry_point: EntryPoint, keeps: Callable[[str], bool]) -> None:
        self.name = f"plugin.{entry_point.name}"
        self._entry_point = entry_point
        self._keeps = keeps
        self._provider = _Forwarding(keeps)
        self._close: Callable[[], object] | None = None

    def open(self) -> None:
        """Import and register. Raises what that raises; the next attempt begins with no instrument."""
        self._provider = _Forwarding(self._keeps)
        meter = self._provider.get_meter(*_scope(self._entry_point))
        with _contained():
            close = self._entry_point.load()(meter)
        if close is not None and not callable(close):
            raise TypeError(f"{self._entry_point.value} returned {shown(close)}, neither None nor a function")
        self._close = close

    def read(self) -> Reading:
        columns = {family.metric: column for family in self._provider.collect() for _, column in family.columns}
        measured, lost = self._provider.measured()
        problems = self._provider.problems()
        if lost:
            what = f"{lost} of {lost + len(measured)} values of histograms"
            problems.append(Unavailable(Reason.UNREADABLE, "histograms", f"{what} since the last cycle were too many to keep"))
        return Reading(columns, measured, problems)

    def close(self) -> None:
        close, self._close = self._close, None
        if close:
            with _contained():
                close()


class _Forwarding(Provider):
    """Keeps what histograms record until the next reading, to be recorded where it is exported."""

    def __init__(self, keeps: Callable[[str], bool]) -> None:
        super().__init__(keeps)
        self._measured: deque[Measurement] = deque()
        self._lost = 0

    def histogram(self, metric: Metric) -> Histogram:
        return Forwarded(metric, self._forward if self._keeps(metric.name) else lambda _: None)

    def _forward(self, one: Measurement) -> None:
        if len(self._measured) < _MOST_MEASURED:
            self._measured.append(one)
        else:
            self._lost += 1

    def measured(self) -> tuple[list[Measurement], int]:
        """The values since the last call, and how many more there were."""
        lost, self._lost = self._lost, 0
        return [self._measured.popleft() for _ in range(len(self._measured))], lost


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """What is no Exception would end the thread: SystemExit, a cancelled task of asyncio, a panic of code in Rust."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"it raised {shown(error)}") from error


def _scope(entry_point: EntryPoint) -> tuple[str, str]:
    """Name and version of the instrumentation scope: the distribution's, which is what one can look up and upgrade."""
    distribution = entry_point.dist
    if distribution is None or not distribution.metadata["Name"]:
        return entry_point.module, ""
    return distribution.metadata["Name"], distribution.metadata["Version"] or ""
