"""Every metric this agent can emit, one module per source."""

from __future__ import annotations

from otel_hostmetrics.catalogue import agent, bpf
from otel_hostmetrics.catalogue.model import Metric

CATALOGUE: tuple[Metric, ...] = (*bpf.ALL, *agent.ALL)
