"""Reading the protobuf wire format (protobuf.dev/programming-guides/encoding): of collectors' answers, and of container runtimes'.

Written by hand because importing google.protobuf and generated classes costs 6 MB of resident memory. What writes OTLP
is export/otlp/wire.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from otel_hostmetrics.errors import Reason, Unavailable

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_UINT64 = (1 << 64) - 1
_VARINT_BYTES = 10  # of the longest varint of 64 bits


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


def messages(data: bytes, field: int) -> list[bytes]:
    """What a repeated field of embedded messages, strings or bytes holds. Raises Unavailable(MALFORMED)."""
    return [value for number, value in fields(data) if number == field and isinstance(value, bytes)]


def message(data: bytes, field: int) -> bytes:
    """The last one of a field, as protobuf has it; empty if there is none. Raises Unavailable(MALFORMED)."""
    found = messages(data, field)
    return found[-1] if found else b""


def text(data: bytes, field: int) -> str:
    """A string; empty if there is none. Raises Unavailable(MALFORMED)."""
    return message(data, field).decode("utf-8", "backslashreplace")


def mapping(data: bytes, field: int) -> dict[str, str]:
    """A ``map<string, string>``, on the wire repeated messages of key 1 and value 2. Raises Unavailable(MALFORMED)."""
    return {text(entry, 1): text(entry, 2) for entry in messages(data, field)}


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
