"""What a metric is before it has a value."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Number: TypeAlias = int | float
AttributeValue: TypeAlias = str | int | bool | float
Attributes: TypeAlias = Mapping[str, AttributeValue]


class Kind(enum.Enum):
    """The OpenTelemetry instrument that carries the metric."""

    COUNTER = "counter"
    UPDOWNCOUNTER = "updowncounter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Combine(enum.Enum):
    """How the values of several objects become the value of their group, where a source aggregates."""

    SUM = "sum"  # of all objects; a counter keeps what objects that are gone had counted
    LIVE = "live"  # of the objects that exist now, also where an older exporter calls the level a counter
    MAX = "max"
    NONE = "none"  # has no meaning for a group: not emitted in aggregated form


class Owner(NamedTuple):
    """Whose a point is, as far as its source knows: the process, else the cgroup, by its path or its id."""

    pid: int = 0
    cgroup: str = ""  # below the cgroup2 mount, as in /proc/PID/cgroup
    cgroup_id: int = 0  # inode of the directory


class Series:
    """One time series: a metric and one set of attribute values, checked once and then reused every cycle.

    *start_ns* is the Unix time at which a counter began (boot, driver load, or when we began accumulating);
    0 means "when this process first exported it". A reset makes a new Series with a new start.
    *resource* holds the attributes of the workload the point belongs to (``container.id``, ``k8s.pod.name``...);
    None is the host itself. OTLP groups points by it: compare with ``is``, one object per workload.
    *owner* is a source's hint of whose the point is, where its attributes do not say; enrich/ makes *resource* of it.
    """

    __slots__ = ("attributes", "metric", "owner", "resource", "start_ns")

    def __init__(self, metric: Metric, attributes: Attributes, start_ns: int = 0, resource: Attributes | None = None) -> None:
        self.metric = metric
        self.attributes = attributes
        self.start_ns = start_ns
        self.resource = resource
        self.owner: Owner | None = None

    def __repr__(self) -> str:
        pairs = ",".join(f"{key}={value}" for key, value in sorted(self.attributes.items()))
        return f"{self.metric.name}{{{pairs}}}"


class Scope(NamedTuple):
    """The library that made an instrument: OpenTelemetry's instrumentation scope."""

    name: str
    version: str = ""
    schema_url: str = ""
    attributes: tuple[tuple[str, AttributeValue], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One row of the catalogue, or what an instrument of a third party measures.

    Instruments, METRICS.md, dashboards and tests are derived from rows only.
    """

    name: str
    kind: Kind
    unit: str  # UCUM; "" where an older exporter's name must reach Prometheus without a suffix
    description: str
    reads: str  # the kernel file, call or field behind it, for the reader of METRICS.md
    attributes: tuple[str, ...] = ()  # always present
    optional: tuple[str, ...] = ()  # present where the host knows them
    origin: str = "own"  # where the name comes from: an exporter that had it, "semconv" or "own"
    integer: bool = True  # every value is an int (exported as_int), else a float (as_double)
    boundaries: tuple[float, ...] = ()  # of a histogram's buckets, upper inclusive
    combine: Combine = Combine.SUM
    enabled: bool = True
    stability: str = "development"
    scope: Scope | None = None  # of a third party's metric; None: this agent's own

    @property
    def identity(self) -> tuple[Scope | None, str]:
        """What OpenTelemetry tells metrics apart by: the scope and, whatever the case, the name."""
        return self.scope, self.name.lower()

    def series(self, attributes: Attributes, start_ns: int = 0, resource: Attributes | None = None) -> Series:
        """Bind attribute values. Raises TypeError if a required one is missing or one is unknown.

        *attributes* are kept, not copied, and must not change afterwards: metrics of one object share one mapping.
        """
        missing = set(self.attributes) - attributes.keys()
        unknown = attributes.keys() - set(self.attributes) - set(self.optional)
        if missing or unknown:
            raise TypeError(f"{self.name}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        return Series(self, attributes, start_ns, resource)
