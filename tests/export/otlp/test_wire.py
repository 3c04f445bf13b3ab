"""The wire primitives against the protobuf library, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.otlp import wire


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300))
def test_what_is_written_is_read(number: int, payload: bytes) -> None:
    data = b"\x08" + wire.varint(number) + wire.delimited(2000, payload) + b"\x19" + b"12345678" + b"\x25" + b"abcd"
    assert list(wire.fields(data)) == [(1, number), (2000, payload), (3, b"12345678"), (4, b"abcd")]


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_integers_are_those_of_protobuf(number: int) -> None:
    ((_, raw),) = wire.fields(AnyValue(int_value=number).SerializeToString())
    assert isinstance(raw, int)
    assert wire.signed(raw) == number


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text()),
)
def test_attributes_are_key_values(key: str, value: bool | float | str) -> None:
    ((field, raw),) = wire.fields(wire.attributes(7, {key: value}))
    assert field == 7
    assert isinstance(raw, bytes)
    pair = KeyValue.FromString(raw)
    read = getattr(pair.value, pair.value.WhichOneof("value"))
    expected = value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
    assert pair.key == key
    assert (type(read), repr(read)) == (type(expected), repr(expected))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_malformed(data: bytes) -> None:
    try:
        found = list(wire.fields(data))
    except Unavailable as error:
        assert error.reason is Reason.MALFORMED  # noqa: PT017 - either outcome is right
    else:
        assert all(0 < number < 2**61 for number, _ in found)


@pytest.mark.parametrize("data", [b"\x00\x01", b"\x0a\x05abc", b"\x80" * 11, b"\x0b", b"\x09\x01", b"\x0d\x01", b"\x08"])
def test_what_is_cut_off_or_unknown_is_malformed(data: bytes) -> None:
    with pytest.raises(Unavailable, match="malformed"):
        list(wire.fields(data))


def test_the_cache_of_attributes_is_bounded() -> None:
    for number in range(wire._PAIRS_LIMIT + 10):
        wire.attributes(7, {"id": str(number)})
    assert 0 < len(wire._pairs) <= wire._PAIRS_LIMIT
