"""Every source, in the order in which they are read. Adding one is one module here and its rows in the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Source
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.bpf import Bpf
from otel_hostmetrics.sources.gpu import Gpu
from otel_hostmetrics.sources.rapl import Rapl
from otel_hostmetrics.sources.rdma import Rdma

# The agent's own metrics (sources/agent.py) come from its telemetry, not from the host, and are always read last.
OWN = "agent"

SOURCES: Mapping[str, Callable[[HostFS, Settings], Source]] = {
    Bpf.name: Bpf,
    Rdma.name: Rdma,
    Rapl.name: Rapl,
    Gpu.name: Gpu,
}
