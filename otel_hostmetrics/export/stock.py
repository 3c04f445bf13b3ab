"""The stock OpenTelemetry SDK behind the same registration: ``--pipeline sdk``.

For whoever needs what the SDK has and we have not, and the oracle our own exporters are tested against. It costs what the
SDK costs (90 to 330 times our CPU), takes its settings from ours, and keeps its own habits: scope labels on all points or on
none, so on where there are plugins and off where not, counters start when they are first seen, a collector that is away delays
the next export.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.errors import unavailable
from otel_hostmetrics.export.metering import Replay, Rows
from otel_hostmetrics.export.pipeline import DELIVERY_MARGIN, Native
from otel_hostmetrics.model import Snapshot
from otel_hostmetrics.settings import Otlp, Settings
from otel_hostmetrics.telemetry import Telemetry

if TYPE_CHECKING:
    from otel_hostmetrics.export.otlp.request import Request

_DELTA: dict[str, tuple[type, ...]] = {
    "cumulative": (),
    "delta": (sdk.Counter, sdk.ObservableCounter, sdk.Histogram),
    "lowmemory": (sdk.Counter, sdk.Histogram),
}
_SUMS = (sdk.Counter, sdk.ObservableCounter, sdk.UpDownCounter, sdk.ObservableUpDownCounter, sdk.Histogram)


class Stock:
    """PeriodicExportingMetricReader with OTLPMetricExporter, and PrometheusMetricReader with its own server.

    The cycles, and the JSON files, which the SDK does not have, are the native pipeline's.
    """

    def __init__(self, settings: Settings, resource: Attributes, rows: Rows, collect: Callable[[], Snapshot], telemetry: Telemetry) -> None:
        self._settings = settings
        self._resource = resource
        self._rows = rows
        self._native = Native(settings, resource, rows, collect, telemetry)
        self._provider: MeterProvider | None = None
        self._replay: Replay | None = None
        self._exits: list[str] = []
        self._close: list[Callable[[], Any]] = []

    def start(self) -> None:
        """The first cycle comes before the readers, which may collect as soon as they exist."""
        self._native.tick()
        readers: list[MetricReader] = []
        if self._settings.snapshots.directory:
            self._native.start_files()
        if self._settings.prometheus.listen:
            readers.append(self._prometheus())
        if self._settings.otlp.endpoint:  # last: its reader begins to collect at once, and nothing may fail after
            readers.append(self._otlp())
        # The SDK folds every series beyond 2 000 of an instrument into one: our own limit is per source.
        view = View(instrument_name="*", aggregation_cardinality_limit=self._settings.general.max_series)
        self._provider = MeterProvider(readers, Resource(dict(self._resource)), shutdown_on_exit=False, views=[view])
        self._replay = Replay(self._provider, self._rows, lambda: self._native.snapshot)
        self._record()

    def _otlp(self) -> MetricReader:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        from otel_hostmetrics.export.otlp import channel

        otlp, interval = self._settings.otlp, self._settings.general.interval
        target = channel.target(otlp)
        exporter = OTLPMetricExporter(
            endpoint=target.name,
            insecure=not target.tls,
            credentials=_credentials(otlp) if target.tls else None,
            headers=channel.metadata(otlp.headers),  # type: ignore[arg-type]
            timeout=otlp.timeout,
            preferred_temporality=_temporality(otlp),
            compression=grpc.Compression.Gzip if otlp.compression == "gzip" else grpc.Compression.NoCompression,
        )
        self._exits.append(f"OTLP to {otlp.endpoint} every {interval} (SDK)")
        return PeriodicExportingMetricReader(exporter, interval * 1000, otlp.timeout * 1000)

    def _prometheus(self) -> MetricReader:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CollectorRegistry, start_http_server

        from otel_hostmetrics.export.prometheus.address import literal, parse_listen

        host, port = parse_listen(self._settings.prometheus.listen)
        registry = CollectorRegistry()
        reader = PrometheusMetricReader(scope_info_enabled=bool(self._settings.general.plugins), registry=registry)
        try:
            server, thread = start_http_server(port, literal(host), registry)
        except OSError as error:
            raise unavailable(error, f"listening on {host}:{port} (prometheus.listen)", "CAP_NET_BIND_SERVICE") from None
        self._close += [lambda: thread.join(1), server.server_close, server.shutdown]
        self._exits.append(f"Prometheus on http://{host}:{server.server_port}/metrics (SDK)")
        return reader

    def _record(self) -> None:
        if self._replay and self._native.snapshot:
            self._replay.take(self._native.snapshot)

    def tick(self) -> None:
        self._native.tick()
        self._record()

    def describe(self) -> str:
        files = [self._native.describe()] if self._settings.snapshots.directory else []
        return ", ".join([*self._exits, *files]) or "nothing is exported"

    def once(self, form: str) -> tuple[bytes, str | None]:
        """The native pipeline's: a single collection has nothing that the SDK would do differently."""
        return self._native.once(form)

    def take_over(self, undelivered: list[Request]) -> None:
        """The SDK's exporters take no requests of others."""

    def close(self, budget: float, hand_over: bool = False) -> list[Request]:  # noqa: ARG002 - the SDK's exporters keep what they have
        deadline = time.monotonic() + budget - DELIVERY_MARGIN
        provider, self._provider = self._provider, None
        if provider:
            if budget and not self._native.hangs():
                self.tick()
            # The SDK's own shutdown may take 16 s with the collector away; a daemon thread keeps our promise of *budget*.
            thread = threading.Thread(target=provider.shutdown, args=(budget * 1000,), name="sdk-shutdown", daemon=True)
            thread.start()
            thread.join(max(deadline - time.monotonic(), 0.0))
        while self._close:
            self._close.pop()()
        return self._native.close(budget)


def _temporality(otlp: Otlp) -> dict[type, AggregationTemporality]:
    """Of every instrument, so that OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE has no say: it is one layer of our settings."""
    delta = _DELTA[otlp.temporality]
    return {kind: AggregationTemporality.DELTA if kind in delta else AggregationTemporality.CUMULATIVE for kind in _SUMS}


def _credentials(otlp: Otlp) -> grpc.ChannelCredentials:
    """Raises OSError for a file that cannot be read."""
    ca, key, certificate = (Path(name).read_bytes() if name else None for name in (otlp.ca_file, otlp.key_file, otlp.cert_file))
    return grpc.ssl_channel_credentials(ca, key, certificate)
