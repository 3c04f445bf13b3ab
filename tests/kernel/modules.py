"""Memory of modules, built field by field where the documents put them: SFF-8472, SFF-8636, CMIS 5.2."""

from __future__ import annotations

import struct

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.module_eeprom import A0, A2

Fields = dict[int, bytes]  # by place as the documents count: 0 to 127 lower memory, 128 to 255 a page

MICROWATT, MILLIAMPERE = 10, 500  # in units of 0.1 uW and 2 uA


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def text(content: str, length: int) -> bytes:
    return content.encode().ljust(length)


def laid_out(fields: Fields, begin: int = 0) -> bytes:
    """128 bytes from *begin* on."""
    memory = bytearray(256)
    for place, content in fields.items():
        memory[place : place + len(content)] = content
    return bytes(memory[begin : begin + 128])


class Memory:
    """A module's memory; what is not there is refused as a driver refuses it."""

    def __init__(self, parts: dict[tuple[int, int, int], bytes]) -> None:
        self.parts = parts  # by I2C address, page and offset

    @classmethod
    def of(cls, fields: Fields, a2: Fields | None = None, **pages: Fields) -> Memory:
        """*pages* by their number in hexadecimal: ``_11``."""
        parts = {(A0, 0, 0): laid_out(fields), (A0, 0, 128): laid_out(fields, 128)}
        if a2 is not None:
            parts[A2, 0, 0] = laid_out(a2)
        return cls({**parts, **{(A0, int(name[1:], 16), 128): laid_out(page, 128) for name, page in pages.items()}})

    def read(self, offset: int, length: int, page: int = 0, address: int = A0) -> bytes:
        try:
            return self.parts[address, page, offset][:length]
        except KeyError:
            raise Unavailable(Reason.UNSUPPORTED, "module", f"page {page}") from None


SFP_OPTICAL: Fields = {
    0: b"\x03", 2: b"\x07", 20: text("NVIDIA", 16), 37: bytes.fromhex("0002c9"), 40: text("MFM1T02A-SR", 16), 56: text("A1", 4),
    68: text("MT1718VS00001", 16), 84: text("170512", 8), 92: b"\x68",
}  # fmt: skip
SFP_MONITORS: Fields = {96: struct.pack(">h", -5 * 256 - 128), 98: words(33000, 3250, 5012, 4003)}
SFP_COPPER: Fields = {
    0: b"\x03", 2: b"\x21", 8: b"\x04", 18: b"\x03", 20: text("Mellanox", 16), 37: bytes.fromhex("0002c9"), 40: text("MCP2100-X003B", 16),
    56: text("A2", 4), 68: text("MT1634VB00002", 16), 84: text("160830", 8),
}  # fmt: skip
QSFP28: Fields = {
    0: b"\x11", 1: b"\x08", 22: struct.pack(">h", 41 * 256 + 64), 26: words(32950), 34: words(9000, 8000, 7000, 0),
    42: words(*4 * [3 * MILLIAMPERE]), 50: words(*4 * [1000 * MICROWATT]), 128: b"\x11", 130: b"\x23", 146: b"\x0a", 147: b"\x00",
    148: text("Mellanox", 16), 165: bytes.fromhex("0002c9"), 168: text("MFA1A00-C010", 16), 184: text("B1", 2),
    196: text("MT2011FT00003", 16), 212: text("200312", 8), 220: b"\x3c",
}  # fmt: skip
OSFP: Fields = {
    0: b"\x19", 1: b"\x50", 14: struct.pack(">h", 55 * 256), 16: words(33123), 88: b"\x44", 129: text("NVIDIA", 16),
    145: bytes.fromhex("48b02d"), 148: text("MMS4X00-NM", 16), 164: text("A9", 2), 166: text("MT2301FT00004", 16), 182: text("230104", 8),
    203: b"\x0c", 212: b"\x04",
}  # fmt: skip
OSFP_TOLD: Fields = {159: b"\x03", 160: b"\x0f"}
OSFP_LANES: Fields = {154: words(*range(10000, 10008)), 170: words(*8 * [10 * MILLIAMPERE]), 186: words(*range(20000, 20008))}
