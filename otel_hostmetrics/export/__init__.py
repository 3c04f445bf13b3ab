"""Snapshot -> world: OpenTelemetry instruments, OTLP, Prometheus, JSON."""
