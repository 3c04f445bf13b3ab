"""OTLP over gRPC: encode a batch with precompiled templates, queue it, deliver it; and the same as JSON."""
