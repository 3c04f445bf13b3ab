"""The three maps of module memory, and any bytes in their place."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.module_eeprom import A0, A2, Lane, Module, module
from tests.kernel.modules import OSFP, OSFP_LANES, OSFP_TOLD, QSFP28, SFP_COPPER, SFP_MONITORS, SFP_OPTICAL, Fields, Memory, words

_PARTS = ((A0, 0, 0), (A0, 0, 128), (A2, 0, 0), (A0, 1, 128), (A0, 0x11, 128))
_BYTES = st.binary(min_size=128, max_size=128)


def test_an_sfp_with_monitors() -> None:
    found = module(Memory.of(SFP_OPTICAL, SFP_MONITORS))
    assert found[:9] == (
        "SFP", "LC", "optical", "NVIDIA", "00:02:c9", "MFM1T02A-SR", "A1", "MT1718VS00001", "2017-05-12",
    )  # fmt: skip
    assert (found.length, found.temperature, found.voltage) == (None, -5.5, pytest.approx(3.3))
    assert found.lanes == (Lane(pytest.approx(400.3e-6), pytest.approx(501.2e-6), pytest.approx(6.5e-3)),)


def test_an_sfp_whose_reader_is_to_calibrate() -> None:
    """SFF-8472, 9.3: slopes have 8 bits behind the point, received power is a polynomial."""
    constants: Fields = {
        56: struct.pack(">5f", 0, 0, 0.001, 2, 100),
        76: struct.pack(">HhHhHhHh", 2 * 256, 10, 256, -12, 128, 256, 3 * 256, -5),
    }
    found = module(Memory.of({**SFP_OPTICAL, 92: b"\x58"}, {**constants, 96: struct.pack(">hHHHH", 20 * 256, 11000, 1000, 2000, 1000)}))
    assert found.temperature == 20 / 2 + 1
    assert found.voltage == pytest.approx((3 * 11000 - 5) * 1e-4)
    assert found.lanes == (Lane(pytest.approx((1000 + 2000 + 100) * 1e-7), pytest.approx(1988e-7), pytest.approx(2010 * 2e-6)),)


def test_constants_that_are_no_numbers_cost_the_received_power_only() -> None:
    constants: Fields = {56: struct.pack(">5f", math.nan, 0, 0, 1, 0), 76: words(256, 0, 256, 0, 256, 0, 256, 0)}
    found = module(Memory.of({**SFP_OPTICAL, 92: b"\x58"}, {**SFP_MONITORS, **constants}))
    assert found.lanes[0].rx_power is None
    assert found.temperature == -5.5


def test_a_copper_cable_has_a_length_and_no_monitors() -> None:
    found = module(Memory.of(SFP_COPPER))
    assert (found.medium, found.connector, found.length, found.part) == ("passive copper", "copper pigtail", 3.0, "MCP2100-X003B")
    assert (found.temperature, found.voltage, found.lanes) == (None, None, ())


def test_an_optical_cable_of_four_lanes() -> None:
    found = module(Memory.of(QSFP28))
    assert found[:9] == (
        "QSFP28", "none", "optical", "Mellanox", "00:02:c9", "MFA1A00-C010", "B1", "MT2011FT00003", "2020-03-12",
    )  # fmt: skip
    assert (found.length, found.temperature, found.voltage) == (10.0, 41.25, pytest.approx(3.295))
    assert [lane.rx_power for lane in found.lanes] == pytest.approx([900e-6, 800e-6, 700e-6, 0])
    assert [lane.tx_power for lane in found.lanes] == pytest.approx([1e-3] * 4)
    assert [lane.bias for lane in found.lanes] == pytest.approx([3e-3] * 4)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({130: b"\x0c"}, {"length": None, "connector": "MPO 1x12"}),  # a module: 146 is a reach over fibre
        ({147: b"\xb0"}, {"medium": "passive copper", "length": 10.0, "lanes": ()}),
        ({147: b"\xe0"}, {"medium": "active copper", "lanes": ()}),
        ({220: b"\x08"}, {"temperature": None, "voltage": None}),
        ({1: b"\x07", 220: b"\x00"}, {"temperature": 41.25}),  # before 2.8 byte 220 does not tell
        ({1: b"\x07", 26: bytes(2)}, {"temperature": None, "voltage": None, "lanes": ()}),
        ({148: b"\0" * 16, 212: b"  ??    "}, {"vendor": "", "date": None}),
        ({148: b"Gl\xe4ser".ljust(16)}, {"vendor": "Gl\\xe4ser"}),
    ],
)
def test_qsfp_in_other_states(changed: Fields, expected: dict[str, object]) -> None:
    found = module(Memory.of({**QSFP28, **changed}))
    assert {name: getattr(found, name) for name in expected} == expected


def test_transmitted_power_that_is_not_measured() -> None:
    assert {lane.tx_power for lane in module(Memory.of({**QSFP28, 220: b"\x38"})).lanes} == {None}


def test_cmis_with_its_lanes() -> None:
    """Four lanes of light; the bias is counted in units of 4 uA."""
    found = module(Memory.of(OSFP, _01=OSFP_TOLD, _11=OSFP_LANES))
    assert found[:9] == (
        "OSFP", "MPO 1x12", "optical", "NVIDIA", "48:b0:2d", "MMS4X00-NM", "A9", "MT2301FT00004", "2023-01-04",
    )  # fmt: skip
    assert (found.length, found.temperature, found.voltage) == (None, 55.0, pytest.approx(3.3123))
    assert [lane.tx_power for lane in found.lanes] == pytest.approx([1000.0e-6, 1000.1e-6, 1000.2e-6, 1000.3e-6])
    assert [lane.rx_power for lane in found.lanes] == pytest.approx([2000.0e-6, 2000.1e-6, 2000.2e-6, 2000.3e-6])
    assert [lane.bias for lane in found.lanes] == pytest.approx([20e-3] * 4)


_UNUSED = b"\xff\0\0\0"


@pytest.mark.parametrize(
    ("applications", "media", "lanes"),
    [
        (b"\x4f\x1c\x44\x11" + _UNUSED, b"", 8),  # 400GBASE-DR4, which can begin at host lanes 1 and 5: two ports in one module
        (b"\x4f\x1c\x44\x11" + _UNUSED, b"\x11", 8),
        (b"\x4f\x1c\x44\x01" + _UNUSED, b"\x01", 4),
        (b"\x11\x1c\x84\x01\x0d\x14\x21\x55" + _UNUSED, b"\x01\x0f", 4),  # 400GBASE-DR4 of 8 host lanes, or four times 100GBASE-DR
        (b"\x4f\x1c\x44\x01\x4b\x14\x11\xff" + _UNUSED, b"\x01\xff", 8),  # the first application is not the widest
        (b"\x51\x6c\x81\x01" + _UNUSED, b"\x01", 1),  # coherent
        (b"\x51\x6c\x21\x05" + _UNUSED, b"\x11", 5),  # it can begin at media lanes 1 and 5
        (b"\x51\x56\x88\x03" + _UNUSED, b"\x81", 8),  # no module has more in a bank
        (b"\x51\x56\x80\x01" + _UNUSED + b"\x51\x56\x81\x01", b"", 8),  # it does not say; what is behind the end is none
    ],
)
def test_cmis_lanes_are_those_of_all_instances_of_an_application(applications: bytes, media: bytes, lanes: int) -> None:
    found = module(Memory.of({**OSFP, 86: applications}, _01={**OSFP_TOLD, 176: media}, _11=OSFP_LANES))
    assert len(found.lanes) == lanes
    assert found.lanes[-1].tx_power == pytest.approx((10000 + lanes - 1) * 1e-7)


@pytest.mark.parametrize(
    ("technology", "medium"),
    [(0x09, "optical"), (0x0A, "passive copper"), (0x0F, "active copper"), (0x10, "optical"), (0x11, "optical"), (0x12, "active copper"),
     (0x14, "active copper"), (0x15, "optical")],
)  # fmt: skip
def test_media_of_cmis(technology: int, medium: str) -> None:
    """0x10 and 0x11 are tunable lasers, 0x12 to 0x14 cables with linear equalizers."""
    found = module(Memory.of({**OSFP, 212: bytes([technology])}, _01=OSFP_TOLD, _11=OSFP_LANES))
    assert found.medium == medium
    assert bool(found.lanes) is (medium == "optical")


def test_cmis_of_which_only_the_first_page_is_shown() -> None:
    found = module(Memory.of(OSFP))
    assert (found.temperature, found.voltage, found.lanes) == (55.0, pytest.approx(3.3123), ())


def test_a_passive_cmis_cable() -> None:
    """Flat memory: one page. Its length has an exponent."""
    found = module(Memory.of({**OSFP, 2: b"\x80", 202: b"\x0f", 203: b"\x23", 212: b"\x0a"}))
    assert (found.medium, found.length, found.temperature, found.lanes) == ("passive copper", pytest.approx(1.5), None, ())


@pytest.mark.parametrize("identifier", [0, 1, 0xFF])
def test_what_is_no_module_that_we_know(identifier: int) -> None:
    with pytest.raises(Unavailable, match="identifier") as caught:
        module(Memory.of({0: bytes([identifier])}))
    assert caught.value.reason is Reason.UNSUPPORTED


@given(
    st.sampled_from([0x03, 0x0C, 0x0D, 0x11, 0x18, 0x19, 0x1B, 0x1E, 0x1F, 0x20]) | st.integers(0, 255),
    st.dictionaries(st.sampled_from(_PARTS), _BYTES | st.binary(max_size=128)),
)
def test_any_bytes_are_a_module_or_refused(identifier: int, parts: dict[tuple[int, int, int], bytes]) -> None:
    first = parts.get((A0, 0, 0))
    if first:
        parts[A0, 0, 0] = bytes([identifier]) + first[1:]
    try:
        found = module(Memory(parts))
    except Unavailable as refused:
        assert refused.reason in (Reason.UNSUPPORTED, Reason.MALFORMED)  # noqa: PT017 - either is right
        return
    assert isinstance(found, Module)
    measured = [found.temperature, found.voltage, found.length, *(value for lane in found.lanes for value in lane)]
    assert all(value is None or math.isfinite(value) for value in measured)
    assert len(found.lanes) <= 8
