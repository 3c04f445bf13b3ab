"""Function names from a program's BTF."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_btf import function_names


def blob(types: bytes, strings: bytes, magic: int = 0xEB9F) -> bytes:
    return struct.pack("=HBBIIIII", magic, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


INT = struct.pack("=IIII", 1, 1 << 24, 4, 32)
STRUCT_OF_TWO = struct.pack("=III", 1, 4 << 24 | 2, 8) + struct.pack("=III", 1, 1, 0) * 2
PROTO = struct.pack("=III", 0, 13 << 24 | 1, 1) + struct.pack("=II", 1, 1)
FUNC = struct.pack("=III", 5, 12 << 24 | 1, 3)
NEWER_KIND = struct.pack("=III", 1, 25 << 24, 0)


def test_functions_by_type_id() -> None:
    assert function_names(blob(INT + STRUCT_OF_TWO + PROTO + FUNC + FUNC, b"\0int\0first\0")) == {4: "first", 5: "first"}


def test_a_kind_that_is_not_known_ends_the_search() -> None:
    assert function_names(blob(FUNC + NEWER_KIND + FUNC, b"\0int\0name\0")) == {1: "name"}


@pytest.mark.parametrize("bad", [b"", b"\x9f\xeb", blob(FUNC, b"", magic=0x9FEB), blob(FUNC[:8], b"")])
def test_malformed(bad: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        function_names(bad)
    assert caught.value.reason is Reason.MALFORMED


@given(types=st.binary(max_size=200), strings=st.binary(max_size=50), cut=st.integers(0, 274))
def test_any_bytes_give_names_or_malformed(types: bytes, strings: bytes, cut: int) -> None:
    try:
        outcome: object = function_names(blob(types, strings)[:cut])
    except Unavailable as error:
        outcome = error.reason
    assert isinstance(outcome, dict) or outcome is Reason.MALFORMED
