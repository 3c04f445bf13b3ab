"""The protobuf wire format, as far as OTLP needs it (protobuf.dev/programming-guides/encoding).

Written by hand because importing google.protobuf and the generated classes costs 6 MB of resident memory, and
because filling generated objects costs 100 times what a precompiled template does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from otel_hostmetrics.catalogue.model import Attributes, AttributeValue
from otel_hostmetrics.errors import Reason, Unavailable

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_UINT64 = (1 << 64) - 1
_VARINT_BYTES = 10  # of the longest varint of 64 bits

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


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values of one message: an int of a varint, the bytes of everything else.

    Raises Unavailable(MALFORMED) on what is not protobuf, and on groups, which proto3 does not have.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _malformed("field number 0")
        if wire == VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if wire == DELIMITED:
            size, at = _read_varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise _malformed(f"wire type {wire}")
        if size > len(data) - at:
            raise _malformed(f"field {number} is cut off")
        yield number, data[at : at + size]
        at += size


def varints(data: bytes) -> Iterator[int]:
    """Give the numbers of a packed field. Raises Unavailable(MALFORMED)."""
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value & _UINT64, at + shift + 1
    raise _malformed("a varint does not end")


def signed(number: int) -> int:
    """Read a varint as int32 or int64: two's complement in 64 bits."""
    return number - (1 << 64) if number > INT64_MAX else number


def _malformed(detail: str) -> Unavailable:
    return Unavailable(Reason.MALFORMED, "protobuf message", detail)
