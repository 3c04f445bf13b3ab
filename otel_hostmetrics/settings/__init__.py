"""What can be configured: one tree of typed, frozen structs, the same in the front and in the agent.

Every field is a key of the YAML file (``prometheus.listen``), an environment variable
(``OTEL_HOSTMETRICS_PROMETHEUS__LISTEN``) and a line of ``config show``. Descriptions are the help texts.
"""

from __future__ import annotations

import msgspec

from otel_hostmetrics.settings.agent import General, Log, Otlp, Paths, Prometheus, Resource, Snapshots
from otel_hostmetrics.settings.section import Seconds, Section, decode_hook, encode_hook
from otel_hostmetrics.settings.sources import Attribution, Bpf, Gpu, Rapl, Rdma, Workloads

__all__ = [
    "Attribution",
    "Bpf",
    "General",
    "Gpu",
    "Log",
    "Otlp",
    "Paths",
    "Prometheus",
    "Rapl",
    "Rdma",
    "Resource",
    "Seconds",
    "Section",
    "Settings",
    "Snapshots",
    "Workloads",
    "decode",
    "decode_hook",
    "encode",
    "encode_hook",
]


class Settings(Section, frozen=True):
    """Everything."""

    general: General = General()
    path: Paths = Paths()
    otlp: Otlp = Otlp()
    prometheus: Prometheus = Prometheus()
    snapshots: Snapshots = Snapshots()
    log: Log = Log()
    resource: Resource = Resource()
    workloads: Workloads = Workloads()
    attribution: Attribution = Attribution()
    bpf: Bpf = Bpf()
    rapl: Rapl = Rapl()
    rdma: Rdma = Rdma()
    gpu: Gpu = Gpu()


def decode(blob: bytes) -> Settings:
    """The inverse of encode()."""
    return msgspec.json.decode(blob, type=Settings, dec_hook=decode_hook)


def encode(settings: Settings) -> bytes:
    """One JSON document, secrets included: for handing over to the agent, not for showing."""
    return msgspec.json.encode(settings, enc_hook=encode_hook)
