"""What it costs to export, per point: our encoder, Prometheus page and JSON, and the stock SDK's, from one registration.

Every call collects first: all callbacks run. The set of series is stable and every value changes from cycle to cycle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import cycle

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk.metrics import MeterProvider as StockProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue.model import Kind, Metric, Number, Series
from otel_hostmetrics.export.jsonfile import document
from otel_hostmetrics.export.metering import SCOPE, Replay
from otel_hostmetrics.export.otlp.encode import Encoder
from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.model import Batch, Column, Reading, Snapshot, State, Status
from otel_hostmetrics.settings import Otlp
from tests.perf.measure import Bound, Mode, Report, Subject, compare, in_process

_SIZES = (300, 3_000, 30_000)
_METRICS = 60
_CYCLES = 4  # different sets of values, used in turn
_START_NS = 1_700_000_000_000_000_000
_RESOURCE = {
    "service.name": "otel-hostmetrics",
    "service.version": __version__,
    "host.name": "node-17.example.net",
    "host.id": "4a6f1c7b0e5d4c2f9b1a8d7e6c5b4a39",
    "os.type": "linux",
}
_ATTRIBUTES = ("bpf.program.id", "bpf.program.name", "bpf.program.type", "k8s.pod.name", "cpu.mode")
_ENCODE, _TEXT = Bound(0.5), Bound(0.3)  # CPU us per point
_STOCK_ENCODE, _STOCK_TEXT = "SDK: collect, encode, serialize", "SDK: Prometheus page"


def run(mode: Mode) -> Report:
    report = Report()
    for size in _SIZES[: 2 if mode.quick else None]:
        host = _Host(size)
        subjects = [
            Subject(name, in_process(call, size, mode.seconds), bound, against)
            for name, call, bound, against in (*_ours(host), *_stock(host))
        ]
        report.results += compare(f"export, {size} points", "us/point", subjects, mode.rounds)
    return report


class _Host:
    """A host with that many series in 60 metrics, and several cycles of their values."""

    def __init__(self, points: int) -> None:
        dice = random.Random(points)
        self.metrics = [_metric(number) for number in range(_METRICS)]
        series = {metric: tuple(_series(metric, each) for each in range(points // _METRICS)) for metric in self.metrics}
        self._snapshots = cycle([self._snapshot(number, series, dice) for number in range(_CYCLES)])
        self.snapshot = self.next()

    @staticmethod
    def _snapshot(number: int, series: dict[Metric, tuple[Series, ...]], dice: random.Random) -> Snapshot:
        columns = {metric: Column(bound, [_value(metric, dice) for _ in bound]) for metric, bound in series.items()}
        time_ns = _START_NS + number * 10**9
        return Snapshot(number, time_ns, 0, {"host": Reading(columns, time_ns=time_ns)}, {"host": Status(State.OK)})

    def next(self) -> Snapshot:
        """The next cycle's snapshot, which the instruments show from now on."""
        self.snapshot = next(self._snapshots)
        return self.snapshot

    def register(self, provider: MeterProvider) -> None:
        Replay(provider, {"host": self.metrics}, lambda: self.snapshot)


def _metric(number: int) -> Metric:
    """Of ten: seven counts, a counter of seconds, a level in bytes, a share; each with three to five attributes."""
    kind = Kind.GAUGE if number % 10 > 7 else Kind.COUNTER
    unit = ("By", "1", "{operation}", "s")[number % 4]
    description = f"What the device counted in its register {number}, since it was reset."
    attributes, integer = _ATTRIBUTES[: 3 + number % 3], number % 10 not in (7, 9)
    return Metric(f"host.device.register_{number}", kind, unit, description, "nothing", attributes, integer=integer)


def _series(metric: Metric, each: int) -> Series:
    kind = ("sched_cls", "kprobe", "cgroup_skb")[each % 3]
    values = (1_000 + each, f"handle_packet_{each}", kind, f"frontend-{each % 50}-7d9c5b8f6b-x2x7k", ("user", "system")[each % 2])
    return metric.series(dict(zip(metric.attributes, values, strict=False)), _START_NS)


def _value(metric: Metric, dice: random.Random) -> Number:
    if metric.kind is Kind.COUNTER:
        return dice.randrange(10**10) if metric.integer else dice.randrange(10**13) / 1e9  # the kernel counts nanoseconds
    return dice.randrange(10**7) * 4096 if metric.integer else dice.randrange(65_536) / dice.choice((1_000, 10_240, 65_536))


_Calls = Iterator[tuple[str, Callable[[], object], Bound | None, str | None]]


def _ours(host: _Host) -> _Calls:
    provider = Provider()
    host.register(provider)
    encoder, page = Encoder(_RESOURCE, SCOPE, __version__, Otlp(), _START_NS), Page(_RESOURCE)

    def batch() -> Batch:
        return Batch(host.next(), provider.collect())

    yield "OTLP: collect, encode", lambda: encoder.encode(batch()), _ENCODE, _STOCK_ENCODE
    yield "Prometheus: collect, page", lambda: page.render(batch(), Format.TEXT), _TEXT, _STOCK_TEXT
    yield "JSON: collect, document", lambda: document(batch(), _RESOURCE), None, _STOCK_ENCODE
    yield "OTLP, every series new", lambda: Encoder(_RESOURCE, SCOPE, __version__, Otlp(), _START_NS).encode(batch()), None, _STOCK_ENCODE


def _stock(host: _Host) -> _Calls:
    memory, registry = InMemoryMetricReader(), CollectorRegistry()
    for reader in (memory, PrometheusMetricReader(scope_info_enabled=False, registry=registry)):
        host.register(StockProvider([reader], Resource(dict(_RESOURCE)), shutdown_on_exit=False))

    def encoded() -> bytes:
        host.next()
        data = memory.get_metrics_data()
        assert data is not None
        message: bytes = encode_metrics(data).SerializeToString()
        return message

    def page() -> bytes:
        host.next()
        text: bytes = generate_latest(registry)
        return text

    yield _STOCK_ENCODE, encoded, None, None
    yield _STOCK_TEXT, page, None, None
