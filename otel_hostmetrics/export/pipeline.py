"""From the collector to the world: one object that runs a cycle and has it exported."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.export.metering import SCOPE, Replay, Rows
from otel_hostmetrics.export.provider import Provider
from otel_hostmetrics.model import Batch, Snapshot, State
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.store import Fresh, Store
from otel_hostmetrics.telemetry import Telemetry

if TYPE_CHECKING:
    from otel_hostmetrics.export.otlp.request import Request
    from otel_hostmetrics.export.otlp.sender import Sender

DELIVERY_MARGIN = 0.1  # s of a stop's budget left for giving back what is open


class Pipeline(Protocol):
    """What the agent needs of either pipeline."""

    def start(self) -> None:
        """Bind, connect, start threads. Raises Unavailable, ValueError or OSError for what the configuration got wrong."""

    def tick(self) -> None:
        """Run one cycle and hand it to the exporters; never waits for them."""

    def once(self, form: str) -> tuple[bytes, str | None]:
        """One snapshot as ``text``, ``openmetrics``, ``json`` or ``otlp-json``, and why it was not delivered, if it was not."""

    def describe(self) -> str:
        """Where the metrics go, in one line."""

    def close(self, budget: float, hand_over: bool = False) -> list[Request]:
        """Stop, within *budget* seconds; with a budget, export a last time. What could not be delivered, if it is to be handed over."""

    def take_over(self, undelivered: list[Request]) -> None:
        """What the pipeline before this one left, to be delivered first. After start()."""


class Native:
    """Our own provider, encoders and server."""

    def __init__(self, settings: Settings, resource: Attributes, rows: Rows, collect: Callable[[], Snapshot], telemetry: Telemetry) -> None:
        self._settings = settings
        self._resource = resource
        self._collect = collect
        self._telemetry = telemetry
        self._provider = Provider()
        self._snapshot: Snapshot | None = None
        self._replay = Replay(self._provider, rows, lambda: self._snapshot)
        self._store = Store()
        self._fresh = Fresh(self._store, self._cycle, settings.prometheus.max_age)
        self._exits: list[str] = []
        self._close: list[Callable[[], None]] = []
        self._push: Callable[[Batch], None] | None = None
        self._sender: Sender | None = None

    def _cycle(self) -> Batch:
        self._snapshot = snapshot = self._collect()
        self._replay.take(snapshot)
        return Batch(snapshot, self._provider.collect())

    def start(self) -> None:
        settings = self._settings
        if settings.otlp.endpoint:
            self._start_otlp()
        if settings.prometheus.listen:
            self._start_prometheus()
        if settings.snapshots.directory:
            self.start_files()

    # What one host does not use is not even imported: grpc alone is 13 MB resident.

    def _start_otlp(self) -> None:
        from otel_hostmetrics.export.otlp.encode import Encoder
        from otel_hostmetrics.export.otlp.sender import Sender

        encoder = Encoder(self._resource, SCOPE, __version__, self._settings.otlp, time.time_ns())
        sender = Sender(self._settings.otlp, self._telemetry)
        self._push = lambda batch: sender.submit(encoder.encode(batch))
        self._sender = sender
        self._exits.append(f"OTLP to {self._settings.otlp.endpoint} every {self._settings.general.interval}")

    def _start_prometheus(self) -> None:
        from otel_hostmetrics.export.prometheus.address import parse_listen
        from otel_hostmetrics.export.prometheus.http import Server
        from otel_hostmetrics.export.prometheus.routes import Routes
        from otel_hostmetrics.export.prometheus.text import Page

        routes = Routes(Page(self._resource, self._settings.workloads.labels), self._fresh.batch, self._store.latest)
        server = Server(self._settings.prometheus, parse_listen(self._settings.prometheus.listen), routes, self._telemetry)
        server.start()
        self._close.append(server.close)
        host, port = server.address
        self._exits.append(f"Prometheus on http://{f'[{host}]' if ':' in host else host}:{port}/metrics")

    def start_files(self) -> None:
        """Only the JSON files. Raises Unavailable."""
        from otel_hostmetrics.export.jsonfile import Files

        files = Files(self._settings.snapshots, self._store, self._resource)
        files.start()
        self._close.append(files.close)
        self._exits.append(f"snapshots in {self._settings.snapshots.directory} every {self._settings.snapshots.interval}")

    def tick(self) -> None:
        batch = self._fresh.renew()
        if self._push:
            self._push(batch)

    def describe(self) -> str:
        return ", ".join(self._exits) or "nothing is exported"

    def take_over(self, undelivered: list[Request]) -> None:
        if self._sender and undelivered:
            self._sender.submit(undelivered)

    def close(self, budget: float, hand_over: bool = False) -> list[Request]:
        deadline = time.monotonic() + budget - DELIVERY_MARGIN
        sender, self._sender = self._sender, None
        left: list[Request] = []
        if sender and budget and not self.hangs():
            self.tick()
        if sender:
            left = sender.close(max(deadline - time.monotonic(), 0.0), hand_over)
        while self._close:
            self._close.pop()()
        return left

    @property
    def snapshot(self) -> Snapshot | None:
        """Of the last cycle; None before the first."""
        return self._snapshot

    def hangs(self) -> bool:
        """Whether a source was late in the last cycle: a last one would spend the budget waiting for it."""
        return self._snapshot is not None and any(status.state is State.LATE for status in self._snapshot.statuses.values())

    def once(self, form: str) -> tuple[bytes, str | None]:
        """Where something takes two readings, as watts do, the second is exported."""
        batch = self._fresh.renew()
        if again := max((reading.again for reading in batch.snapshot.readings.values()), default=0.0):
            time.sleep(again)
            batch = self._fresh.renew()
        return self._text(batch, form), self._deliver(batch) if self._settings.otlp.endpoint else None

    def _text(self, batch: Batch, form: str) -> bytes:
        if form == "json":
            from otel_hostmetrics.export.jsonfile import document

            return document(batch, self._resource) + b"\n"
        if form == "otlp-json":
            from otel_hostmetrics.export.otlp.encode import Encoder
            from otel_hostmetrics.export.otlp.json import to_json

            encoder = Encoder(self._resource, SCOPE, __version__, self._settings.otlp, batch.snapshot.time_ns)
            return b"".join(to_json(request.payload) + b"\n" for request in encoder.encode(batch))
        from otel_hostmetrics.export.prometheus.text import Format, Page

        page = Page(self._resource, self._settings.workloads.labels)
        return page.render(batch, Format.OPENMETRICS if form == "openmetrics" else Format.TEXT)

    def _deliver(self, batch: Batch) -> str | None:
        from otel_hostmetrics.export.otlp.encode import Encoder
        from otel_hostmetrics.export.otlp.sender import Sender

        encoder = Encoder(self._resource, SCOPE, __version__, self._settings.otlp, batch.snapshot.time_ns)
        return Sender(self._settings.otlp, self._telemetry).deliver(encoder.encode(batch), self._settings.otlp.timeout)


def build_pipeline(settings: Settings, resource: Attributes, rows: Rows, collect: Callable[[], Snapshot], telemetry: Telemetry) -> Pipeline:
    """The pipeline that ``general.pipeline`` names."""
    if settings.general.pipeline == "sdk":
        from otel_hostmetrics.export.stock import Stock

        return Stock(settings, resource, rows, collect, telemetry)
    return Native(settings, resource, rows, collect, telemetry)
