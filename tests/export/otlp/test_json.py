"""OTLP/JSON against the protobuf library's own mapping."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from otel_hostmetrics.catalogue.model import Kind
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.otlp.json import to_json
from otel_hostmetrics.model import Distribution
from tests.export.otlp.build import batch, encoder, metric, series

_values = st.lists(st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False)), min_size=3, max_size=3)


@settings(deadline=None)
@given(
    _values, st.sampled_from(["cumulative", "delta"]), st.lists(st.one_of(st.text(), st.booleans(), st.integers()), min_size=3, max_size=3)
)
def test_json_is_the_mapping_of_the_binary_form(values: list[Any], temporality: str, ids: list[Any]) -> None:
    made = encoder(temporality=temporality)
    kinds = [metric(kind.value, kind, kind is Kind.COUNTER, (0.5,) if kind is Kind.HISTOGRAM else ()) for kind in Kind]
    pod = {"k8s.pod.name": "p"}
    columns: list[Any] = [(row, series(row, *ids, resource=pod if row.kind is Kind.GAUGE else None), values) for row in kinds[:3]]
    columns.append((kinds[3], series(kinds[3], "h"), [Distribution((1, 2), 3.5, 0.1, 2.0)]))
    for request in made.encode(batch(*columns)):
        whole = ExportMetricsServiceRequest.FromString(request.payload)
        text = to_json(request.payload)
        assert json_format.Parse(text, ExportMetricsServiceRequest()) == whole
        theirs = json_format.MessageToDict(whole, use_integers_for_enums=True)
        assert _plain(json.loads(text)) == _plain(theirs)


def _plain(value: Any) -> Any:
    """Without what proto3 leaves out because it is the default; the library drops it when it reads the binary form."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if each not in ("", [])}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def test_what_an_sdk_adds_is_understood_too() -> None:
    exemplar = pb.Exemplar(time_unix_nano=1, as_int=-2, span_id=b"\x01" * 8, trace_id=b"\xab" * 16)
    nested = AnyValue(
        array_value=ArrayValue(values=[AnyValue(bytes_value=b"\x00\xff"), AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k")]))])
    )
    point = pb.ExponentialHistogramDataPoint(
        count=3, sum=float("inf"), scale=-4, positive=pb.ExponentialHistogramDataPoint.Buckets(offset=-7, bucket_counts=[1, 2**40]),
        attributes=[KeyValue(key="a", value=nested)], exemplars=[exemplar], zero_threshold=1e-300, flags=1,
    )  # fmt: skip
    whole = ExportMetricsServiceRequest(
        resource_metrics=[
            pb.ResourceMetrics(
                schema_url="https://example.org",
                scope_metrics=[
                    pb.ScopeMetrics(
                        metrics=[
                            pb.Metric(
                                name="e", exponential_histogram=pb.ExponentialHistogram(aggregation_temporality=1, data_points=[point])
                            )
                        ]
                    )
                ],
            )
        ]
    )
    ours = json.loads(to_json(whole.SerializeToString()))
    theirs = json_format.MessageToDict(whole, use_integers_for_enums=True)
    made = ours["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["exponentialHistogram"]["dataPoints"][0]
    assert made["exemplars"][0].pop("spanId") == "01" * 8  # hexadecimal in OTLP, base64 in ProtoJSON
    assert made["exemplars"][0].pop("traceId") == "ab" * 16
    reference = theirs["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["exponentialHistogram"]["dataPoints"][0]
    del reference["exemplars"][0]["spanId"], reference["exemplars"][0]["traceId"]
    assert ours == theirs


@given(st.binary(max_size=80))
def test_any_bytes_give_json_or_malformed(data: bytes) -> None:
    try:
        json.loads(to_json(data))
    except Unavailable as error:
        assert error.reason is Reason.MALFORMED  # noqa: PT017 - either outcome is right


@given(st.data())
def test_a_damaged_request_gives_json_or_malformed(data: Any) -> None:
    row = metric()
    (request,) = encoder().encode(batch((row, series(row, "a", 1, True), [1, 2, 3])))
    damaged = bytearray(request.payload)
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        json.loads(to_json(bytes(damaged)))
    except Unavailable as error:
        assert error.reason is Reason.MALFORMED  # noqa: PT017 - either outcome is right


def test_endless_nesting_is_malformed() -> None:
    value = AnyValue(string_value="x")
    for _ in range(40):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    resource = ExportMetricsServiceRequest()
    resource.resource_metrics.add().resource.attributes.add(key="deep").value.CopyFrom(value)
    with pytest.raises(Unavailable, match="nested"):
        to_json(resource.SerializeToString())
