"""Writing the protobuf wire format, as far as OTLP needs it (protobuf.dev/programming-guides/encoding); protobuf.py reads it.

Written by hand because importing google.protobuf and the generated classes costs 6 MB of resident memory, and
because filling generated objects costs 100 times what a precompiled template does.
"""

from __future__ import annotations

import struct

from otel_hostmetrics.catalogue.model import Attributes, AttributeValue
from otel_hostmetrics.protobuf import DELIMITED, INT64_MAX, INT64_MIN, fields, signed, varints

__all__ = ["DELIMITED", "INT64_MAX", "INT64_MIN", "attributes", "delimited", "fields", "signed", "text", "varint", "varints"]

_UINT64 = (1 << 64) - 1

_double = struct.Struct("<d").pack
_pairs: dict[tuple[int, str, str], bytes] = {}
_PAIRS_LIMIT = 4096  # 1 MB


def varint(number: int) -> bytes:
    """Encode an unsigned integer, 7 bits to a byte, least significant first."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(field: int, payload: bytes) -> bytes:
    """Encode a string, bytes or embedded message with its tag and length."""
    return varint(field << 3 | DELIMITED) + varint(len(payload)) + payload


def text(field: int, value: str) -> bytes:
    """Encode a proto3 string: nothing if empty. Lone surrogates (names that were not UTF-8) become ``?``."""
    return delimited(field, value.encode("utf-8", "replace")) if value else b""


def attributes(field: int, values: Attributes) -> bytes:
    """Encode attributes as repeated KeyValue under *field*.

    Pairs of strings are kept: series share most of them, and a new template is 5 times cheaper for it.
    """
    known = _pairs.get
    pairs = []
    for key, value in values.items():
        if type(value) is str:  # as dictionary keys 1, 1.0 and True are the same
            pairs.append(known((field, key, value)) or _keep(field, key, value))
        else:
            pairs.append(_pair(field, key, value))
    return b"".join(pairs)


def _keep(field: int, key: str, value: str) -> bytes:
    if len(_pairs) >= _PAIRS_LIMIT:
        _pairs.clear()  # ids churn; cheaper than keeping an order of use
    encoded = _pairs[field, key, value] = _pair(field, key, value)
    return encoded


def _pair(field: int, key: str, value: AttributeValue) -> bytes:
    return delimited(field, delimited(1, key.encode("utf-8", "replace")) + delimited(2, _any_value(value)))


def _any_value(value: AttributeValue) -> bytes:
    if isinstance(value, (tuple, list)):  # not in the catalogue; the API allows it to others
        return delimited(5, b"".join([delimited(1, _any_value(item)) for item in value]))
    if isinstance(value, str):
        return delimited(1, value.encode("utf-8", "replace"))  # also if empty: a member of a oneof
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, float):
        return b"\x21" + _double(value)
    if INT64_MIN <= value <= INT64_MAX:
        return b"\x18" + varint(value & _UINT64)
    return delimited(1, str(value).encode())  # OpenTelemetry specification, "Attribute type mapping": decimal text
