"""What every vendor's part of the GPU source gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.model import Column
from otel_hostmetrics.sources.gpu.points import Bound, Value


class Backend(Protocol):
    """One way to GPUs. Nothing here raises: what cannot be read is a problem, and tried again later by the part itself."""

    problems: list[Unavailable]  # of the last reading
    again: float  # s after which another reading tells more: shares of engines and watts take two

    @property
    def devices(self) -> int:
        """GPUs it knows, asleep or not."""

    @property
    def bound(self) -> Sequence[Bound]:
        """Series, and where in the list that read() returns their values are."""

    @property
    def generation(self) -> int:
        """Another number whenever *bound* changed."""

    @property
    def refreshed(self) -> bool:
        """Whether the last reading read slow values, too."""

    def read(self) -> Sequence[Value]:
        """One value per place; None where it could not be read. Empty if nothing could."""

    def columns(self) -> Mapping[Metric, Column]:
        """What comes and goes: processes, errors by number. After read(), of the same moment."""

    def facts(self) -> Mapping[str, object]:
        """What hardly changes, for snapshots."""

    def close(self) -> None:
        """Give back descriptors and drivers. Safe to call twice."""
