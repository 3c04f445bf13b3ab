"""An RDMA host as a tree of files, and the source that reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from otel_hostmetrics.catalogue.model import Metric, Number
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Rdma as Chosen
from otel_hostmetrics.settings import Seconds, Settings
from otel_hostmetrics.sources.rdma import Rdma

AT_ONCE = Seconds(1e-9)  # slow groups are due in every cycle


@contextlib.contextmanager
def opened(root: Path, **chosen: object) -> Iterator[Rdma]:
    """The source over the tree below *root*; never over the devices of the machine that runs the test."""
    options = {"netlink": False, "slow_interval": AT_ONCE, **chosen}
    source = Rdma(HostFS(str(root)), Settings(rdma=Chosen(**options)))  # type: ignore[arg-type]
    try:
        source.open()
        yield source
    finally:
        source.close()


def port(root: Path, device: str, number: int = 1) -> Path:
    """A port's directory."""
    return (root / "sys/class/infiniband" / device).resolve() / "ports" / str(number)


def stats(reading: Reading) -> dict[tuple[str, str, str], Number]:
    """(device, port, stat) -> value of rdma_port_stat."""
    return {tuple(str(value) for value in labels): value for labels, value in values(reading, "rdma_port_stat").items()}  # type: ignore[misc]


def values(reading: Reading, name: str) -> dict[tuple[object, ...], Number]:
    """Attribute values, in the order of the attributes' names -> value, of one metric."""
    column = reading.columns.get(metric(reading, name)) if metric(reading, name) else None
    if column is None:
        return {}
    return {tuple(series.attributes[key] for key in sorted(series.attributes)): value for series, value in zip(*column, strict=True)}  # type: ignore[misc]


def metric(reading: Reading, name: str) -> Metric | None:
    """The row with a name, if the reading has it."""
    return next((row for row in reading.columns if row.name == name), None)


def starts(reading: Reading, name: str) -> dict[tuple[object, ...], int]:
    """The same, with start times for values."""
    row = metric(reading, name)
    column = reading.columns[row] if row else ((), ())
    return {tuple(series.attributes[key] for key in sorted(series.attributes)): series.start_ns for series in column[0]}
