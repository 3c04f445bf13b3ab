"""Every metric this agent can emit, one module per source."""

from __future__ import annotations

from otel_hostmetrics.catalogue import agent, bpf, energy, gpu, rdma, workload_energy
from otel_hostmetrics.catalogue.model import Metric

# Rows of the conventions that several sources emit are in each of their tables, and once here.
CATALOGUE: tuple[Metric, ...] = tuple(dict.fromkeys((*bpf.ALL, *rdma.ALL, *energy.ALL, *gpu.ALL, *workload_energy.ALL, *agent.ALL)))
