"""Sections of the agent itself: what is collected, how often, and where it goes."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from otel_hostmetrics.settings.section import Seconds, Section


class General(Section, frozen=True):
    """What is collected, and how often."""

    interval: Annotated[Seconds, Meta(description="Time between two collections, and between two exports")] = Seconds(10)
    deadline: Annotated[Seconds, Meta(description="How long a cycle waits for a source that hangs")] = Seconds(2)
    sources: Annotated[tuple[str, ...], Meta(description="Sources to run; empty = all")] = ()
    no_sources: Annotated[tuple[str, ...], Meta(description="Sources not to run")] = ()
    plugins: Annotated[
        tuple[str, ...], Meta(description="Installed sources of third parties to load, by entry point; * = all of them, empty = none")
    ] = ()
    include: Annotated[tuple[str, ...], Meta(description="Metrics to keep, by OpenTelemetry name, shell patterns; empty = all")] = ()
    exclude: Annotated[tuple[str, ...], Meta(description="Metrics to drop, by OpenTelemetry name, shell patterns")] = ()
    max_series: Annotated[int, Meta(ge=1, description="Series a single source may emit; what is beyond is dropped and counted")] = 50_000
    pipeline: Annotated[
        Literal["native", "sdk"],
        Meta(description="native: precompiled encoders; sdk: the stock OpenTelemetry SDK, its exporter and reader"),
    ] = "native"

    def keeps(self, name: str, otherwise: bool = True) -> bool:
        """Whether *include* and *exclude* leave the metric of this OpenTelemetry name; *otherwise* is for an empty *include*."""
        wanted = any(fnmatchcase(name, pattern) for pattern in self.include) if self.include else otherwise
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


class Paths(Section, frozen=True):
    """Where the host's file trees are."""

    root: Annotated[str, Meta(description="The host's root: / here, /host in a container, a recording in a test")] = "/"
    procfs: Annotated[str, Meta(description="Mount point of the host's procfs; empty = ROOT/proc")] = ""
    sysfs: Annotated[str, Meta(description="Mount point of the host's sysfs; empty = ROOT/sys")] = ""


class Otlp(Section, frozen=True):
    """OTLP over gRPC to a collector."""

    endpoint: Annotated[str, Meta(description="HOST:PORT, http://, https://, unix: or dns:///; no scheme = plaintext; empty = off")] = ""
    insecure: Annotated[
        bool | None, Meta(description="Plaintext or TLS where the endpoint has no scheme; unset = plaintext unless a CA is given")
    ] = None
    headers: Annotated[dict[str, str], Meta(description="Metadata sent with every request; never shown or logged")] = msgspec.field(
        default_factory=dict
    )
    timeout: Annotated[Seconds, Meta(description="Time limit of one request")] = Seconds(10)
    compression: Annotated[Literal["none", "gzip"], Meta(description="Compression of requests")] = "none"
    ca_file: Annotated[str, Meta(description="PEM file of the CA that signed the collector's certificate")] = ""
    cert_file: Annotated[str, Meta(description="PEM file of the client certificate (mTLS)")] = ""
    key_file: Annotated[str, Meta(description="PEM file of the client key (mTLS)")] = ""
    temporality: Annotated[
        Literal["cumulative", "delta", "lowmemory"], Meta(description="Aggregation temporality of counters and histograms")
    ] = "cumulative"
    queue_bytes: Annotated[int, Meta(ge=65_536, description="Encoded requests kept while the collector is away; the oldest goes first")] = (
        32 << 20
    )
    max_request_bytes: Annotated[int, Meta(ge=65_536, description="Requests are split below this size")] = 4 << 20


class Prometheus(Section, frozen=True):
    """The scrape endpoint."""

    listen: Annotated[str, Meta(description="[HOST:]PORT of the scrape endpoint; empty = off unless nothing else is configured")] = ""
    max_age: Annotated[Seconds, Meta(description="A scrape is answered from a snapshot younger than this, else it collects")] = Seconds(1)
    max_connections: Annotated[int, Meta(ge=1, description="Connections open at the same time; more are refused")] = 64
    header_timeout: Annotated[Seconds, Meta(description="Time limit to receive a whole request, and to send a whole response")] = Seconds(
        15
    )
    idle_timeout: Annotated[
        Seconds, Meta(description="How long a connection may wait for its next request; longer than scrape intervals")
    ] = Seconds(300)


class Snapshots(Section, frozen=True):
    """Periodic JSON files of everything."""

    directory: Annotated[str, Meta(description="Folder for JSON snapshots; empty = off")] = ""
    interval: Annotated[Seconds, Meta(description="Time between two files")] = Seconds(30)
    keep: Annotated[int, Meta(ge=1, description="Files kept beside latest.json; the oldest go first")] = 1000


class Log(Section, frozen=True):
    """The agent's own messages, on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="Least severity shown")] = "info"
    format: Annotated[Literal["logfmt", "json"], Meta(description="Form of a line")] = "logfmt"


class Resource(Section, frozen=True):
    """Attributes of the OpenTelemetry Resource."""

    service_name: Annotated[str, Meta(description="service.name")] = "otel-hostmetrics"
    attributes: Annotated[dict[str, str], Meta(description="More attributes; they win over what is detected")] = msgspec.field(
        default_factory=dict
    )
