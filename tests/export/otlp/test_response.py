"""A collector's answers, made with the protobuf library."""

from __future__ import annotations

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.otlp import response


@given(st.integers(0, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])))
def test_partial_success(rejected, message):
    answer = pb.ExportMetricsServiceResponse(
        partial_success=pb.ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
    )
    assert response.partial_success(answer.SerializeToString()) == (rejected, message)


def test_full_success_and_a_negative_count():
    assert response.partial_success(b"") == (0, "")
    answer = pb.ExportMetricsServiceResponse(partial_success=pb.ExportMetricsPartialSuccess(rejected_data_points=-1))
    assert response.partial_success(answer.SerializeToString()) == (0, "")


def _status(*details):
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    return [("other", "x"), ("grpc-status-details-bin", Status(code=8, message="m", details=packed).SerializeToString())]


@pytest.mark.parametrize(
    ("metadata", "seconds"),
    [
        (_status(BadRequest(), RetryInfo(retry_delay=Duration(seconds=3, nanos=250_000_000))), 3.25),
        (_status(RetryInfo(retry_delay=Duration(nanos=1_000_000))), 0.001),
        (_status(RetryInfo()), 0.0),
        (_status(RetryInfo(retry_delay=Duration(seconds=-5))), 0.0),
        (_status(BadRequest()), None),
        ([], None),
        ([("grpc-status-details-bin", b"\xff")], None),
    ],
)
def test_retry_delay(metadata, seconds):
    assert response.retry_delay(metadata) == seconds


@pytest.mark.parametrize("code", ["cancelled", "deadline_exceeded", "aborted", "out_of_range", "unavailable", "data_loss"])
def test_retryable_codes_of_the_protocol(code):
    assert response.retryable(code, None)


@pytest.mark.parametrize(
    "code",
    [
        "unknown",
        "invalid_argument",
        "not_found",
        "already_exists",
        "permission_denied",
        "unauthenticated",
        "failed_precondition",
        "unimplemented",
        "internal",
    ],
)
def test_other_codes_are_final_even_with_a_delay(code):
    assert not response.retryable(code, 1.0)


def test_resource_exhausted_is_retryable_only_if_the_server_says_when():
    assert response.retryable("resource_exhausted", 0.0)
    assert not response.retryable("resource_exhausted", None)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_answer_or_malformed(data):
    delay = response.retry_delay([("grpc-status-details-bin", data)])
    assert delay is None or delay >= 0
    try:
        assert response.partial_success(data).rejected >= 0
    except Unavailable as error:
        assert error.reason is Reason.MALFORMED  # noqa: PT017 - either outcome is right
