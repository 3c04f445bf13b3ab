"""Host metrics of the kernel and its drivers - BPF, RDMA, RAPL, GPU - as OpenTelemetry metrics."""

__version__ = "0.1.0"
