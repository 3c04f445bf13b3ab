"""Microjoules by workload and by what is left over; integers, so that nothing is lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from otel_hostmetrics.attribution.groups import Account, Group
from otel_hostmetrics.attribution.identity import Workload
from otel_hostmetrics.attribution.split import split
from otel_hostmetrics.catalogue import workload_energy as rows
from otel_hostmetrics.catalogue.model import Metric, Owner, Series
from otel_hostmetrics.model import Column


class Ledger:
    """The accounts of workloads that exist, and of the parts that belong to none."""

    def __init__(self) -> None:
        self._workloads: dict[tuple[Workload, str], Account] = {}
        self._parts: dict[Metric, dict[str, Account]] = {metric: {} for metric in rows.PARTS}
        self._series: dict[Metric, tuple[Series, ...]] = {}  # the same tuples as long as nobody comes or goes

    def charge(self, component: str, energy: int, active: int, users: Sequence[tuple[Group, int]], whole: int, start_ns: int) -> None:
        """Split *energy* (uJ) of an interval that began at *start_ns*.

        *active* of it is for *users*, by their weights out of *whole*; what they do not use of it is unattributed.
        """
        parts = split(active, [weight for _, weight in users], whole)
        for (group, _), part in zip(users, parts, strict=True):
            account = group.accounts.get(component) or self._account(group, component, start_ns)
            account.total += part
        self._part(rows.MEASURED, component, start_ns).total += energy
        self._part(rows.IDLE, component, start_ns).total += energy - active
        self._part(rows.UNATTRIBUTED, component, start_ns).total += active - sum(parts)

    def _account(self, group: Group, component: str, start_ns: int) -> Account:
        identity = group.workload
        series = rows.WORKLOAD.series({rows.TYPE: identity.type, rows.NAME: identity.name, rows.COMPONENT: component}, start_ns)
        series.owner = Owner(cgroup=group.path)
        found = self._workloads[identity, component] = group.accounts[component] = Account(series)
        self._series.pop(rows.WORKLOAD, None)
        return found

    def _part(self, metric: Metric, component: str, start_ns: int) -> Account:
        found = self._parts[metric].get(component)
        if found is None:
            found = self._parts[metric][component] = Account(metric.series({rows.COMPONENT: component}, start_ns))
            self._series.pop(metric, None)
        return found

    def forget(self, gone: Iterable[Workload]) -> None:
        """After their last value was given."""
        for workload in gone:
            for component in (rows.CPU, rows.MEMORY, rows.GPU):
                if self._workloads.pop((workload, component), None):
                    self._series.pop(rows.WORKLOAD, None)

    def columns(self) -> dict[Metric, Column]:
        """In joules."""
        found = {rows.WORKLOAD: self._column(rows.WORKLOAD, self._workloads.values())}
        for metric, parts in self._parts.items():
            found[metric] = self._column(metric, parts.values())
        return found

    def _column(self, metric: Metric, accounts: Collection[Account]) -> Column:
        series = self._series.get(metric)
        if series is None:
            series = self._series[metric] = tuple(account.series for account in accounts)
        return Column(series, [account.total / 1e6 for account in accounts])
