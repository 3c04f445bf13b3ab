"""Data Center Bridging: the kernel's answer to DCB_CMD_IEEE_GET, byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import dcb
from otel_hostmetrics.kernel.dcb import Bridging, Ets, Pfc
from otel_hostmetrics.kernel.netlink import attribute

HEAD = struct.pack("=BBH", 0, 21, 0)  # struct dcbmsg
NAME = attribute(1, b"ens1f0np0\0")


def ieee(*parts: bytes) -> bytes:
    """DCB_ATTR_IEEE as dcbnl_ieee_fill of net/dcb/dcbnl.c writes it, with the mode of DCBX behind it."""
    return HEAD + NAME + attribute(0x8000 | 13, b"".join(parts)) + attribute(14, b"\x04")


# Priority 3 is paused, as RoCE wants it: struct ieee_pfc with its padding
PFC = attribute(2, bytes([8, 0b1000, 0, 0]) + struct.pack("=H", 7) + bytes(2) + struct.pack("=16Q", *range(100, 116)))
# and has traffic class 3, with half of the bandwidth: struct ieee_ets
ETS = attribute(
    1,
    bytes([0, 8, 0])
    + bytes([50, 0, 0, 50, 0, 0, 0, 0])
    + bytes(8)
    + bytes([2, 0, 0, 2, 0, 0, 0, 0])
    + bytes([0, 0, 0, 3, 0, 0, 0, 0])
    + bytes(24),
)


def test_flow_control_by_priority() -> None:
    pfc = dcb.parse(ieee(PFC)).pfc
    assert pfc == Pfc((False, False, False, True, False, False, False, False), 7, tuple(range(100, 108)), tuple(range(108, 116)))


def test_traffic_classes() -> None:
    read = dcb.parse(ieee(ETS, PFC))
    assert read.ets == Ets((0, 0, 0, 3, 0, 0, 0, 0), (50, 0, 0, 50, 0, 0, 0, 0), (2, 0, 0, 2, 0, 0, 0, 0))
    assert read.pfc is not None


def test_a_driver_that_says_nothing() -> None:
    assert dcb.parse(HEAD + NAME) == Bridging(None, None)
    assert dcb.parse(ieee()) == Bridging(None, None)


@given(st.binary(max_size=300) | st.binary(max_size=160).map(lambda data: ieee(attribute(2, data), attribute(1, data))))
def test_any_bytes_are_a_record_or_malformed(body: bytes) -> None:
    try:
        assert isinstance(dcb.parse(body), Bridging)
    except Unavailable as caught:
        assert caught.reason is Reason.MALFORMED  # noqa: PT017 - either is right


def test_the_kernel_refuses_where_there_is_no_bridging() -> None:
    with dcb.connect() as socket:
        for name, reason in (("lo", Reason.UNSUPPORTED), ("nonesuch", Reason.GONE)):
            with pytest.raises(Unavailable, match=f"DCB of {name}") as caught:
                dcb.bridging(socket, name)
            assert caught.value.reason is reason
