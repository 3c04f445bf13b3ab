"""Batches for the tests of the scrape endpoint, made from real rows."""

from __future__ import annotations

from otel_hostmetrics.catalogue import agent
from otel_hostmetrics.catalogue.model import Kind, Metric, Number
from otel_hostmetrics.model import Batch, Column, Distribution, Family, Reason, Snapshot, State, Status

STATUSES = {
    "bpf": Status(State.OK),
    "rdma": Status(State.FAILED, Reason.DENIED, 'netlink <"rdma">', "CAP_NET_ADMIN"),
}


def batch(*families: tuple[Metric, Column]) -> Batch:
    snapshot = Snapshot(1, 1_700_000_000_000_000_000, 1, {}, STATUSES)
    return Batch(snapshot, tuple(Family(metric, ((snapshot.time_ns, column),)) for metric, column in families))


def column(metric: Metric, *points: tuple[dict[str, str], Number | Distribution]) -> Column:
    return Column(tuple(metric.series(attributes) for attributes, _ in points), [value for _, value in points])


def agent_batch() -> Batch:
    """One point for each row of the agent's own catalogue."""
    return batch(*((metric, column(metric, (dict.fromkeys(metric.attributes, "x"), _value(metric)))) for metric in agent.ALL))


def _value(metric: Metric) -> Number | Distribution:
    if metric.kind is Kind.HISTOGRAM:
        counts = tuple(range(len(metric.boundaries) + 1))
        return Distribution(counts, 12.5, 0.001, 3.0)
    return 7 if metric.integer else 0.25
