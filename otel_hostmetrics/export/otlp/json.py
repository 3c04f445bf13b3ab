"""OTLP/JSON: ProtoJSON with OTLP's exceptions (opentelemetry-proto, docs/specification.md, "JSON Protobuf Encoding").

lowerCamelCase names, 64-bit integers as strings, enums as numbers, trace and span ids in hexadecimal. Made from the
encoded request, so both forms always say the same; at 30 us per point it is for files and for people.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.otlp import wire

_MAX_DEPTH = 32  # of an AnyValue within an AnyValue
_Raw: TypeAlias = int | bytes


class _Field(NamedTuple):
    name: str
    kind: str  # a message of _SCHEMA, or a scalar
    repeated: bool = False


def _message(**fields: str) -> dict[int, _Field]:
    """``name="number kind"``, with a ``*`` after the kind if the field is repeated."""
    rows = {name: text.split() for name, text in fields.items()}
    return {int(number): _Field(name, kind.rstrip("*"), kind.endswith("*")) for name, (number, kind) in rows.items()}


_SCHEMA = {
    "Request": _message(resourceMetrics="1 ResourceMetrics*"),
    "ResourceMetrics": _message(resource="1 Resource", scopeMetrics="2 ScopeMetrics*", schemaUrl="3 string"),
    "Resource": _message(attributes="1 KeyValue*", droppedAttributesCount="2 uint32"),
    "ScopeMetrics": _message(scope="1 Scope", metrics="2 Metric*", schemaUrl="3 string"),
    "Scope": _message(name="1 string", version="2 string", attributes="3 KeyValue*", droppedAttributesCount="4 uint32"),
    "Metric": _message(
        name="1 string", description="2 string", unit="3 string", gauge="5 Gauge", sum="7 Sum", histogram="9 Histogram",
        exponentialHistogram="10 ExponentialHistogram", metadata="12 KeyValue*",
    ),
    "Gauge": _message(dataPoints="1 Number*"),
    "Sum": _message(dataPoints="1 Number*", aggregationTemporality="2 uint32", isMonotonic="3 bool"),
    "Histogram": _message(dataPoints="1 HistogramPoint*", aggregationTemporality="2 uint32"),
    "ExponentialHistogram": _message(dataPoints="1 ExponentialPoint*", aggregationTemporality="2 uint32"),
    "Number": _message(
        startTimeUnixNano="2 fixed64", timeUnixNano="3 fixed64", asDouble="4 double", exemplars="5 Exemplar*", asInt="6 sfixed64",
        attributes="7 KeyValue*", flags="8 uint32",
    ),
    "HistogramPoint": _message(
        startTimeUnixNano="2 fixed64", timeUnixNano="3 fixed64", count="4 fixed64", sum="5 double", bucketCounts="6 fixed64*",
        explicitBounds="7 double*", exemplars="8 Exemplar*", attributes="9 KeyValue*", flags="10 uint32", min="11 double", max="12 double",
    ),
    "ExponentialPoint": _message(
        attributes="1 KeyValue*", startTimeUnixNano="2 fixed64", timeUnixNano="3 fixed64", count="4 fixed64", sum="5 double",
        scale="6 sint32", zeroCount="7 fixed64", positive="8 Buckets", negative="9 Buckets", flags="10 uint32", exemplars="11 Exemplar*",
        min="12 double", max="13 double", zeroThreshold="14 double",
    ),
    "Buckets": _message(offset="1 sint32", bucketCounts="2 uint64*"),
    "Exemplar": _message(
        timeUnixNano="2 fixed64", asDouble="3 double", spanId="4 hex", traceId="5 hex", asInt="6 sfixed64", filteredAttributes="7 KeyValue*"
    ),
    "KeyValue": _message(key="1 string", value="2 Any"),
    "Any": _message(
        stringValue="1 string", boolValue="2 bool", intValue="3 int64", doubleValue="4 double", arrayValue="5 Array", kvlistValue="6 List",
        bytesValue="7 bytes",
    ),
    "Array": _message(values="1 Any*"),
    "List": _message(values="1 KeyValue*"),
}  # fmt: skip


def to_json(payload: bytes) -> bytes:
    """Rewrite one encoded ExportMetricsServiceRequest. Fields of a later protocol are left out. Raises Unavailable(MALFORMED)."""
    return json.dumps(_object("Request", payload, 0), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _object(message: str, data: bytes, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise Unavailable(Reason.MALFORMED, "OTLP request", f"nested deeper than {_MAX_DEPTH}")
    known = _SCHEMA[message]
    out: dict[str, Any] = {}
    for number, raw in wire.fields(data):
        field = known.get(number)
        if field is None:
            continue
        if field.repeated:
            out.setdefault(field.name, []).extend(_items(field, raw, depth))
        else:
            out[field.name] = _value(field, raw, depth)
    return out


def _value(field: _Field, raw: _Raw, depth: int) -> Any:
    if field.kind in _SCHEMA and isinstance(raw, bytes):
        return _object(field.kind, raw, depth + 1)
    form, read = _SCALARS.get(field.kind, (None, None))
    if read is None or not isinstance(raw, int if form is int else bytes) or (form == 8 and len(raw) != 8):  # type: ignore[arg-type]
        raise Unavailable(Reason.MALFORMED, "OTLP request", f"{field.name} is not a {field.kind}")
    return read(raw)


def _items(field: _Field, raw: _Raw, depth: int) -> list[Any]:
    """One element, or a packed run of scalars."""
    form = _SCALARS[field.kind][0] if field.kind in _SCALARS else bytes
    if form is int and isinstance(raw, bytes):
        return [_value(field, item, depth) for item in wire.varints(raw)]
    if form == 8 and isinstance(raw, bytes):
        return [_value(field, raw[at : at + 8], depth) for at in range(0, len(raw), 8)]
    return [_value(field, raw, depth)]


def _double(raw: bytes) -> float | str:
    value: float = struct.unpack("<d", raw)[0]
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _zigzag(raw: int) -> int:
    return raw >> 1 ^ -(raw & 1)


# How a scalar is written (a varint, eight bytes, or bytes of any length), and its JSON form.
_SCALARS: dict[str, tuple[object, Callable[[Any], Any]]] = {
    "bool": (int, bool),
    "uint32": (int, lambda raw: raw & 0xFFFFFFFF),
    "sint32": (int, lambda raw: _zigzag(raw & 0xFFFFFFFF)),
    "int64": (int, lambda raw: str(wire.signed(raw))),
    "uint64": (int, str),
    "fixed64": (8, lambda raw: str(struct.unpack("<Q", raw)[0])),
    "sfixed64": (8, lambda raw: str(struct.unpack("<q", raw)[0])),
    "double": (8, _double),
    "string": (bytes, lambda raw: raw.decode("utf-8", "replace")),
    "bytes": (bytes, lambda raw: base64.b64encode(raw).decode()),
    "hex": (bytes, bytes.hex),
}
