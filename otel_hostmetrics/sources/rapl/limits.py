"""Power limits of zones: settings, which change when somebody changes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from otel_hostmetrics.catalogue import energy as rows
from otel_hostmetrics.catalogue.model import AttributeValue, Metric, Number, Series
from otel_hostmetrics.kernel import powercap
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column

_MICRO = 1_000_000


class Limits:
    """The limits of some zones, as of the last refresh(). *zones* are pairs of a zone and the attributes of its points."""

    def __init__(self, fs: HostFS, zones: Sequence[tuple[powercap.Zone, Mapping[str, AttributeValue]]]) -> None:
        self._fs = fs
        self._zones = zones
        self._series: dict[tuple[Metric, str, str], Series] = {}
        self.columns: dict[Metric, Column] = {}

    def refresh(self) -> None:
        """Read them all; what a driver does not have, or not now, has no point."""
        found: dict[Metric, tuple[list[Series], list[Number]]] = {}
        for zone, attributes in self._zones:
            for metric, constraint, value in self._of(zone):
                series, values = found.setdefault(metric, ([], []))
                series.append(self._bound(metric, zone.path, constraint, attributes))
                values.append(value)
        self.columns = {metric: self._column(metric, tuple(series), values) for metric, (series, values) in found.items()}

    def _of(self, zone: powercap.Zone) -> Iterable[tuple[Metric, str, Number]]:
        constraints = powercap.constraints(self._fs, zone)
        for name, limit, most, window in constraints:
            for metric, micro in ((rows.POWER_LIMIT, limit), (rows.POWER_MAX, most), (rows.LIMIT_WINDOW, window)):
                if micro is not None and (micro > 0 or metric is rows.POWER_LIMIT):  # no hardware has a maximum of 0 W: it names none
                    yield metric, name, micro / _MICRO
        enforced = powercap.enabled(self._fs, zone) if constraints else None
        if enforced is not None:
            yield rows.LIMIT_ENABLED, "", int(enforced)

    def _bound(self, metric: Metric, path: str, constraint: str, attributes: Mapping[str, AttributeValue]) -> Series:
        key = (metric, path, constraint)
        if key not in self._series:
            self._series[key] = metric.series({**attributes, rows.CONSTRAINT: constraint} if constraint else attributes)
        return self._series[key]

    def _column(self, metric: Metric, series: tuple[Series, ...], values: list[Number]) -> Column:
        before = self.columns.get(metric)
        return Column(before.series if before and before.series == series else series, tuple(values))
