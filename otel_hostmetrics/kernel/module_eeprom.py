"""What a pluggable module or cable says of itself and what its monitors measure, read from its memory. No system call here.

The first byte says what it is (SFF-8024, table 4-1), and so which of three maps its memory has: SFF-8472 (SFP), SFF-8636
(QSFP, QSFP28), CMIS 5.2 (QSFP-DD, OSFP and whatever came later). Places in the code are those of these documents: lower
memory is 0 to 127, a page 128 to 255. All three count in the same units: 1/256 degree Celsius, 100 uV, 2 uA and 0.1 uW.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple, Protocol

from otel_hostmetrics.errors import Reason, Unavailable

A0: Final = 0x50  # I2C addresses; SFP alone has a second one, for its monitors
A2: Final = 0x51
_HALF: Final = 128  # bytes: of the lower memory, and of a page
# Values are divided by these: 13 tenths of a microwatt are 1.3e-06 W, where times 1e-7 is 1.2999999999999998e-06.
_PER_VOLT: Final = 10_000
_PER_AMPERE: Final = 500_000
_PER_WATT: Final = 10_000_000

_SFP: Final = {0x03: "SFP"}
_QSFP: Final = {0x0C: "QSFP", 0x0D: "QSFP+", 0x11: "QSFP28"}
_CMIS: Final = {
    0x18: "QSFP-DD", 0x19: "OSFP", 0x1B: "DSFP", 0x1E: "QSFP with CMIS", 0x1F: "SFP-DD with CMIS", 0x20: "SFP with CMIS",
}  # fmt: skip
# SFF-8024, table 4-3
_CONNECTORS: Final = {
    0x01: "SC", 0x07: "LC", 0x0B: "optical pigtail", 0x0C: "MPO 1x12", 0x0D: "MPO 2x16", 0x21: "copper pigtail", 0x22: "RJ45",
    0x23: "none", 0x24: "MXC", 0x25: "CS", 0x26: "SN", 0x27: "MPO 2x12", 0x28: "MPO 1x16",
}  # fmt: skip
_PART_OF_CABLE: Final = (0x0B, 0x21, 0x23)  # what has one of these connectors is one end of a cable
_DATE: Final = re.compile(rb"(\d\d)(\d\d)(\d\d)")


class Lane(NamedTuple):
    """One lane of light. None: not measured."""

    rx_power: float | None  # W
    tx_power: float | None  # W
    bias: float | None  # A, of the laser


class Module(NamedTuple):
    """One module, or one end of a cable. None: it does not say, or has no such monitor."""

    form: str  # SFP, QSFP28, OSFP
    connector: str | None
    medium: str  # optical, passive copper, active copper
    vendor: str
    oui: str  # of the vendor, IEEE: 00:02:c9
    part: str
    revision: str
    serial: str
    date: str | None  # of manufacture, ISO 8601
    length: float | None  # m, of a cable that is one with the module
    temperature: float | None  # degrees Celsius
    voltage: float | None  # V
    lanes: tuple[Lane, ...]


class Eeprom(Protocol):
    """The memory of one module."""

    def read(self, offset: int, length: int, page: int = 0, address: int = A0) -> bytes:
        """Bytes of the lower memory (*offset* below 128) or of a page. Raises Unavailable; UNSUPPORTED where it cannot be had."""


class _Monitors(NamedTuple):
    temperature: float | None = None
    voltage: float | None = None
    lanes: tuple[Lane, ...] = ()


def module(eeprom: Eeprom, what: str = "module") -> Module:
    """Read what is of use. Raises Unavailable; UNSUPPORTED for a kind of module that is not known here."""
    lower = _exactly(eeprom, what, 0)
    kind = lower[0]
    if kind in _SFP:
        return _sfp(eeprom, lower, what)
    if kind in _QSFP:
        return _qsfp(lower + _exactly(eeprom, what, _HALF))
    if kind in _CMIS:
        return _cmis(eeprom, lower + _exactly(eeprom, what, _HALF), what)
    raise Unavailable(Reason.UNSUPPORTED, what, f"no module, or one of an unknown kind: identifier {kind:#04x}")


def _exactly(eeprom: Eeprom, what: str, offset: int, page: int = 0, address: int = A0) -> bytes:
    data = eeprom.read(offset, _HALF, page, address)
    if len(data) != _HALF:
        raise Unavailable(Reason.MALFORMED, what, f"{len(data)} bytes of {_HALF} at {offset} of page {page}")
    return data


def _sfp(eeprom: Eeprom, a0: bytes, what: str) -> Module:
    """SFF-8472, table 4-1."""
    technology = a0[8]
    medium = "passive copper" if technology & 4 else "active copper" if technology & 8 else "optical"
    monitored = a0[92] & 0x40 and not technology & 4
    monitors = _sfp_monitors(_exactly(eeprom, what, 0, address=A2), bool(a0[92] & 0x10)) if monitored else _Monitors()
    length = float(a0[18]) if technology & 12 and a0[18] else None
    return Module(
        _SFP[a0[0]], _CONNECTORS.get(a0[2]), medium, _text(a0[20:36]), a0[37:40].hex(":"), _text(a0[40:56]), _text(a0[56:60]),
        _text(a0[68:84]), _date(a0[84:92]), length, *monitors,
    )  # fmt: skip


def _sfp_monitors(a2: bytes, external: bool) -> _Monitors:
    """SFF-8472, chapter 9: calibrated by the module, or raw, with the constants to calibrate them in bytes 56 to 91."""
    temperature, voltage, bias, tx, rx = (float(value) for value in struct.unpack_from(">hHHHH", a2, 96))
    if external:
        coefficients = struct.unpack_from(">5f", a2, 56)  # of the fourth power first
        rx = sum(coefficient * rx**power for power, coefficient in zip((4, 3, 2, 1, 0), coefficients, strict=True))
        scales = struct.unpack_from(">HhHhHhHh", a2, 76)
        slopes, offsets = [slope / 256 for slope in scales[::2]], scales[1::2]
        raw = (bias, tx, temperature, voltage)
        bias, tx, temperature, voltage = (value * slope + offset for value, slope, offset in zip(raw, slopes, offsets, strict=True))
    if not -1e9 < rx < 1e9:  # constants that are none, NaN included
        return _Monitors(temperature / 256, voltage / _PER_VOLT, (Lane(None, tx / _PER_WATT, bias / _PER_AMPERE),))
    return _Monitors(temperature / 256, voltage / _PER_VOLT, (Lane(rx / _PER_WATT, tx / _PER_WATT, bias / _PER_AMPERE),))


def _qsfp(data: bytes) -> Module:
    """SFF-8636, tables 6-1 and 6-14."""
    connector, medium = data[130], _medium(data[147] >> 4)
    cable = medium != "optical" or connector in _PART_OF_CABLE
    return Module(
        _QSFP[data[0]], _CONNECTORS.get(connector), medium, _text(data[148:164]), data[165:168].hex(":"), _text(data[168:184]),
        _text(data[184:186]), _text(data[196:212]), _date(data[212:220]), float(data[146]) if cable and data[146] else None,
        *_qsfp_monitors(data, medium),
    )  # fmt: skip


def _qsfp_monitors(data: bytes, medium: str) -> _Monitors:
    """Which there are is said in byte 220 since revision 2.8; before, what has no monitors measures 0 V."""
    (temperature,), (voltage,) = struct.unpack_from(">h", data, 22), struct.unpack_from(">H", data, 26)
    told = data[1] >= 8
    has_temperature, has_voltage = (bool(data[220] & bit) if told else voltage > 0 for bit in (0x20, 0x10))
    lanes: tuple[Lane, ...] = ()
    if medium == "optical" and voltage:
        rx, bias, tx = (struct.unpack_from(">4H", data, at) for at in (34, 42, 50))
        lanes = _lanes(rx, tx if data[220] & 4 else None, bias, _PER_AMPERE)
    return _Monitors(temperature / 256 if has_temperature else None, voltage / _PER_VOLT if has_voltage else None, lanes)


def _cmis(eeprom: Eeprom, data: bytes, what: str) -> Module:
    """CMIS 5.2, tables 8-4 to 8-32."""
    connector, medium = data[203], _cmis_medium(data[212])
    length = (data[202] & 63) * (0.1, 1.0, 10.0, 100.0)[data[202] >> 6]
    return Module(
        _CMIS[data[0]], _CONNECTORS.get(connector), medium, _text(data[129:145]), data[145:148].hex(":"), _text(data[148:164]),
        _text(data[164:166]), _text(data[166:182]), _date(data[182:190]), length or None, *_cmis_monitors(eeprom, data, medium, what),
    )  # fmt: skip


def _cmis_monitors(eeprom: Eeprom, data: bytes, medium: str, what: str) -> _Monitors:
    """Passive modules have nothing but page 0. Page 01h says what is measured, 11h has the lanes."""
    if data[2] & 0x80:
        return _Monitors()
    (temperature,), (voltage,) = struct.unpack_from(">h", data, 14), struct.unpack_from(">H", data, 16)
    plain = _Monitors(temperature / 256 if voltage else None, voltage / _PER_VOLT if voltage else None)
    try:
        told = _exactly(eeprom, what, _HALF, page=0x01)
        measured = _exactly(eeprom, what, _HALF, page=0x11)
    except Unavailable as error:
        if error.reason is not Reason.UNSUPPORTED:
            raise
        return plain  # ioctl shows page 0 only
    has_temperature, has_voltage = told[159 - _HALF] & 1, told[159 - _HALF] & 2
    of_lanes = told[160 - _HALF]
    count = _media_lanes(data[86:118], told[176 - _HALF : 184 - _HALF])
    tx, bias, rx = (struct.unpack_from(f">{count}H", measured, at - _HALF) if of_lanes & bit else None
                    for at, bit in ((154, 2), (170, 1), (186, 4)))  # fmt: skip
    per_ampere = _PER_AMPERE / (1, 2, 4, 1)[of_lanes >> 3 & 3]
    lanes = _lanes(rx, tx, bias, per_ampere) if medium == "optical" and of_lanes & 7 else ()
    return _Monitors(plain.temperature if has_temperature else None, plain.voltage if has_voltage else None, lanes)


def _media_lanes(applications: bytes, media_options: bytes) -> int:
    """How many media lanes there are in the first bank, by the widest use of them; 8 if it is not told.

    An application descriptor (CMIS 5.2, 6.2.1) has 4 bytes: 0xff for the host interface behind the last, the lanes of one
    instance (host, media) and, a bit for each, the host lanes at which instances can begin: all of them at the same time.
    Page 01h has the same for the media lanes.
    """
    most = 0
    for (host, _, counts, host_options), options in zip(struct.iter_unpack("4B", applications), media_options, strict=True):
        if host == 0xFF:
            break
        each = counts & 15
        if each:
            most = max(most, options.bit_length() - 1 + each if options else each * max(host_options.bit_count(), 1))
    return min(most, 8) or 8


def _lanes(rx: tuple[int, ...] | None, tx: tuple[int, ...] | None, bias: tuple[int, ...] | None, per_ampere: float) -> tuple[Lane, ...]:
    """*per_ampere*: how many units of *bias* make one."""
    count = max(len(values) for values in (rx, tx, bias) if values)
    missing = (None,) * count
    columns = zip(rx or missing, tx or missing, bias or missing, strict=True)
    return tuple(Lane(_scaled(r, _PER_WATT), _scaled(t, _PER_WATT), _scaled(b, per_ampere)) for r, t, b in columns)


def _scaled(raw: int | None, per_unit: float) -> float | None:
    return None if raw is None else raw / per_unit


def _medium(technology: int) -> str:
    """SFF-8636, table 6-19."""
    if technology < 0x0A:
        return "optical"
    return "passive copper" if technology < 0x0C else "active copper"


def _cmis_medium(technology: int) -> str:
    """CMIS 5.2, table 8-40: the numbers of SFF-8636, then tunable lasers, then cables with linear equalizers at either or both ends."""
    if technology in (0x12, 0x13, 0x14):
        return "active copper"
    return _medium(technology) if technology <= 0x0F else "optical"


def _text(field: bytes) -> str:
    """ASCII, padded with spaces; some vendors pad with zeros or 0xff."""
    return field.rstrip(b"\0\xff").decode("ascii", "backslashreplace").strip()


def _date(field: bytes) -> str | None:
    match = _DATE.match(field)
    return f"20{match[1].decode()}-{match[2].decode()}-{match[3].decode()}" if match else None
