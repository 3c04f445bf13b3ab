"""What a collector answers: partial success, and when to try again (opentelemetry-proto, docs/specification.md, "OTLP/gRPC Response")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.export.otlp import wire

# Status codes, in lower case, after which the same request may be sent again. RESOURCE_EXHAUSTED only with RetryInfo.
_RETRYABLE = frozenset({"cancelled", "deadline_exceeded", "aborted", "out_of_range", "unavailable", "data_loss"})
_STATUS_DETAILS = "grpc-status-details-bin"  # trailing metadata: google.rpc.Status
_RETRY_INFO = b"/google.rpc.RetryInfo"  # end of an Any's type_url


class PartialSuccess(NamedTuple):
    """Points the collector did not take although it took the request, and why; also a mere warning, with none rejected."""

    rejected: int = 0
    message: str = ""


def partial_success(response: bytes) -> PartialSuccess:
    """Read an ExportMetricsServiceResponse. Raises Unavailable(MALFORMED)."""
    rejected, message = 0, ""
    for number, value in _within(response, 1):
        if number == 1 and isinstance(value, int):
            rejected = max(wire.signed(value), 0)
        elif number == 2 and isinstance(value, bytes):
            message = value.decode("utf-8", "replace")
    return PartialSuccess(rejected, message)


def retry_delay(metadata: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Seconds the server wants us to wait, from the trailing metadata of a failed call; None if it does not say."""
    for key, value in metadata:
        if key == _STATUS_DETAILS and isinstance(value, bytes):
            try:
                return _retry_info(value)
            except Unavailable:
                return None  # an error is reported with or without its details
    return None


def retryable(code: str, delay: float | None) -> bool:
    """Whether a call that ended with status *code* (lower case) and maybe a retry_delay() may be repeated."""
    return code in _RETRYABLE or (code == "resource_exhausted" and delay is not None)


def _retry_info(status: bytes) -> float | None:
    """google.rpc.Status.details = 3: Any{type_url = 1, value = 2}; RetryInfo.retry_delay = 1: Duration{seconds = 1, nanos = 2}."""
    for number, detail in wire.fields(status):
        if number != 3 or not isinstance(detail, bytes):
            continue
        found = dict(wire.fields(detail))
        kind, info = found.get(1), found.get(2, b"")
        if isinstance(kind, bytes) and kind.endswith(_RETRY_INFO) and isinstance(info, bytes):
            duration = dict(_within(info, 1))
            seconds, nanos = duration.get(1, 0), duration.get(2, 0)
            if isinstance(seconds, int) and isinstance(nanos, int):
                return max(wire.signed(seconds) + wire.signed(nanos) / 1e9, 0.0)
    return None


def _within(data: bytes, field: int) -> list[tuple[int, int | bytes]]:
    """Fields of the embedded message *field*; none if it is not there."""
    return [inner for number, value in wire.fields(data) if number == field and isinstance(value, bytes) for inner in wire.fields(value)]
