"""What can be configured: one tree of typed, frozen structs, the same in the front and in the agent.

Every field is a key of the YAML file (``prometheus.listen``), an environment variable
(``OTEL_HOSTMETRICS_PROMETHEUS__LISTEN``) and a line of ``config show``. Descriptions are the help texts.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Seconds(float):
    """A duration: a number of seconds, or ``500ms``, ``10s``, ``5m``, ``1h``."""

    @classmethod
    def parse(cls, text: str) -> Seconds:
        """Raises ValueError on anything else, on zero and on less."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", text)
        if match is None or float(match[1]) <= 0:
            raise ValueError(f"expected a duration such as 500ms, 10s or 5m, got {text!r}")
        return cls(float(match[1]) * _UNITS[match[2]])

    def __str__(self) -> str:
        return f"{float(self)!r}s".replace(".0s", "s")  # exact: parse() gives the same value back


def decode_hook(type_: type, value: object) -> object:
    """msgspec's ``dec_hook`` for this module's own types."""
    if type_ is Seconds:
        return Seconds.parse(str(value) if not isinstance(value, bool) else "bool")
    raise NotImplementedError(type_)  # msgspec's protocol for "not mine"


def encode_hook(value: object) -> object:
    """msgspec's ``enc_hook`` for this module's own types."""
    if isinstance(value, Seconds):
        return str(value)
    raise NotImplementedError(type(value))


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration; an unknown key is an error, never ignored."""


class General(Section, frozen=True):
    """What is collected, and how often."""

    interval: Annotated[Seconds, Meta(description="Time between two collections, and between two exports")] = Seconds(10)
    deadline: Annotated[Seconds, Meta(description="How long a cycle waits for a source that hangs")] = Seconds(2)
    sources: Annotated[tuple[str, ...], Meta(description="Sources to run; empty = all")] = ()
    no_sources: Annotated[tuple[str, ...], Meta(description="Sources not to run")] = ()
    include: Annotated[tuple[str, ...], Meta(description="Metrics to keep, shell patterns; empty = all")] = ()
    exclude: Annotated[tuple[str, ...], Meta(description="Metrics to drop, shell patterns")] = ()
    max_series: Annotated[int, Meta(ge=1, description="Series a single source may emit; what is beyond is dropped and counted")] = 50_000
    pipeline: Annotated[
        Literal["native", "sdk"],
        Meta(description="native: precompiled encoders; sdk: the stock OpenTelemetry SDK, its exporter and reader"),
    ] = "native"


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
    headers: Annotated[dict[str, str], Meta(description="Metadata sent with every request; never shown or logged")] = {}
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
    attributes: Annotated[dict[str, str], Meta(description="More attributes; they win over what is detected")] = {}


class Bpf(Section, frozen=True):
    """The BPF source."""

    engine: Annotated[
        Literal["auto", "iterator", "ids"],
        Meta(description="How objects are listed: BPF iterators (CAP_BPF+CAP_PERFMON) or ids (CAP_SYS_ADMIN)"),
    ] = "auto"
    stats: Annotated[
        Literal["off", "on", "sampled"],
        Meta(description="Run time and run count of programs: never enable, always, or one interval in stats_every"),
    ] = "off"
    stats_every: Annotated[int, Meta(ge=2, description="With stats: sampled, one interval out of this many is measured")] = 6
    aggregate: Annotated[bool, Meta(description="One series per type and name instead of one per object id")] = False
    relations: Annotated[bool, Meta(description="Which program uses which map")] = True
    holders: Annotated[bool, Meta(description="Which process holds each object")] = True
    pins: Annotated[bool, Meta(description="Paths under which objects are pinned")] = True
    cgroups: Annotated[bool, Meta(description="Programs attached to cgroups")] = True
    slow_interval: Annotated[Seconds, Meta(description="How often holders, pins, cgroups and map memory are looked up")] = Seconds(60)


class Settings(Section, frozen=True):
    """Everything."""

    general: General = General()
    path: Paths = Paths()
    otlp: Otlp = Otlp()
    prometheus: Prometheus = Prometheus()
    snapshots: Snapshots = Snapshots()
    log: Log = Log()
    resource: Resource = Resource()
    bpf: Bpf = Bpf()


def decode(blob: bytes) -> Settings:
    """The inverse of encode()."""
    return msgspec.json.decode(blob, type=Settings, dec_hook=decode_hook)


def encode(settings: Settings) -> bytes:
    """One JSON document, secrets included: for handing over to the agent, not for showing."""
    return msgspec.json.encode(settings, enc_hook=encode_hook)
