"""Network interfaces by ioctl(SIOCETHTOOL): include/uapi/linux/ethtool.h. Only a module's memory needs a privilege, CAP_NET_ADMIN.

The kernel writes as many statistics and names as the driver has at that moment, whatever room the caller claims. A driver
that was given more queues would write past a buffer made for the earlier count. So there is one buffer, larger than
any driver's answer; its pages exist only as far as they were written to.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import operator
import os
import socket
import struct
import types
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Self

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_SIOCETHTOOL: Final = 0x8946  # include/uapi/linux/sockios.h
_GDRVINFO: Final = 0x03
_GPAUSEPARAM: Final = 0x12
_GSTRINGS: Final = 0x1B
_GSTATS: Final = 0x1D
_GSSET_INFO: Final = 0x37
_GFEATURES: Final = 0x3A
_GMODULEINFO: Final = 0x42
_GMODULEEEPROM: Final = 0x43
_STATISTICS: Final = 1  # ETH_SS_STATS
_FEATURES: Final = 4  # ETH_SS_FEATURES

_ROOM: Final = 1 << 20  # bytes: 131,000 statistics or 32,000 names; mlx5 with 128 queues has some 7,000
_NAME: Final = 32  # ETH_GSTRING_LEN
_DRVINFO: Final = struct.Struct("=I32s32s32s32s32s12x5I")  # struct ethtool_drvinfo
_SSET_INFO: Final = struct.Struct("=IIQI")  # struct ethtool_sset_info, with room for one length
_BLOCK: Final = struct.Struct("=IIII")  # struct ethtool_get_features_block: available, requested, active, never_changed


class Driver(NamedTuple):
    """ETHTOOL_GDRVINFO; empty where the driver does not say."""

    name: str
    version: str
    firmware: str
    bus: str  # PCI address


class Pause(NamedTuple):
    """ETHTOOL_GPAUSEPARAM: global flow control (IEEE 802.3 annex 31B)."""

    autoneg: bool
    rx: bool
    tx: bool


class Ethtool:
    """Asks about interfaces of our network namespace. Not thread-safe.

    Each method raises Unavailable: GONE without such an interface, UNSUPPORTED if its driver does not answer this.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._memory = mmap.mmap(-1, _ROOM, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.words = memoryview(self._memory).cast("Q")
        anchor = ctypes.c_char.from_buffer(self._memory)
        self._address = ctypes.addressof(anchor)
        del anchor  # the mapping stays where it is, and can be closed

    def close(self) -> None:
        """May be called again."""
        self._socket.close()
        self.words.release()
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()

    def driver(self, name: str) -> Driver:
        """Driver, firmware and place of an interface."""
        self._put(struct.pack("=I", _GDRVINFO) + bytes(_DRVINFO.size - 4))
        self.call(request(name, self._address), name)
        return Driver(*(_text(field) for field in _DRVINFO.unpack_from(self._memory)[1:5]))

    def pause(self, name: str) -> Pause:
        """Whether pause frames are honoured and sent."""
        self._put(struct.pack("=IIII", _GPAUSEPARAM, 0, 0, 0))
        self.call(request(name, self._address), name)
        _, autoneg, rx, tx = struct.unpack_from("=IIII", self._memory)
        return Pause(bool(autoneg), bool(rx), bool(tx))

    def features(self, name: str) -> dict[str, bool]:
        """Offloads and whether each is active, under the kernel's names: tx-checksum-ip-generic, rx-gro-hw."""
        names = self.strings(name, _FEATURES)
        blocks = (len(names) + 31) // 32
        self._put(struct.pack("=II", _GFEATURES, blocks) + bytes(blocks * _BLOCK.size))
        self.call(request(name, self._address), name)
        active = [_BLOCK.unpack_from(self._memory, 8 + block * _BLOCK.size)[2] for block in range(blocks)]
        return {feature: bool(active[bit >> 5] >> (bit & 31) & 1) for bit, feature in enumerate(names) if feature}

    def module_size(self, name: str) -> int:
        """How many bytes of its module's memory the driver shows: 256 to 640, pages one after the other."""
        self._put(struct.pack("=III", _GMODULEINFO, 0, 0) + bytes(32))  # struct ethtool_modinfo
        self.call(request(name, self._address), name)
        return int(struct.unpack_from("=I", self._memory, 8)[0])

    def module_eeprom(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of the module's memory, by I2C: milliseconds."""
        self._put(struct.pack("=IIII", _GMODULEEEPROM, 0, offset, length) + bytes(length))  # struct ethtool_eeprom
        self.call(request(name, self._address), name)
        return bytes(self._memory[16 : 16 + length])

    def statistics(self, name: str, allow: Callable[[str], bool]) -> Statistics:
        """Those statistics of an interface whose names *allow* accepts, to be read again and again."""
        return Statistics(self, name, request(name, self._address), allow)

    def strings(self, name: str, kind: int = _STATISTICS) -> list[str]:
        """The names of a string set, by position."""
        self._put(_SSET_INFO.pack(_GSSET_INFO, 0, 1 << kind, 0))
        asked = request(name, self._address)
        self.call(asked, name)
        _, _, mask, count = _SSET_INFO.unpack_from(self._memory)
        if not mask or not count:
            raise Unavailable(Reason.UNSUPPORTED, f"ethtool {name}", "the driver has none")
        if 12 + count * _NAME > _ROOM:
            raise Unavailable(Reason.UNSUPPORTED, f"ethtool {name}", f"{count} names")
        self._put(struct.pack("=III", _GSTRINGS, kind, count))
        self.call(asked, name)
        count = min(count, struct.unpack_from("=I", self._memory, 8)[0])
        return [_text(self._memory[at : at + _NAME]) for at in range(12, 12 + count * _NAME, _NAME)]

    def _put(self, content: bytes) -> None:
        self._memory[: len(content)] = content

    def call(self, asked: bytes, name: str) -> None:
        """The ioctl, on what lies in the buffer."""
        try:
            fcntl.ioctl(self._socket, _SIOCETHTOOL, asked)
        except OSError as error:
            raise unavailable(error, f"ethtool {name}", needs="CAP_NET_ADMIN") from None


class Statistics:
    """Statistics of one interface: the names once, the values with one call, and of these the allowed ones by position.

    mlx5 has a thousand, for which it asks the firmware several times; we keep some forty.
    """

    def __init__(self, ethtool: Ethtool, name: str, asked: bytes, allow: Callable[[str], bool]) -> None:
        self._ethtool = ethtool
        self._name = name
        self._asked = asked
        self._allow = allow
        self._learn()

    def read(self) -> list[int]:
        """The values now, in the order of :attr:`names`, which is a new tuple if the driver's set has changed."""
        if self._call() != self._count:  # queues were added or removed
            self._learn()
            if self._call() != self._count:
                raise Unavailable(Reason.UNREADABLE, f"ethtool {self._name}", "the number of statistics keeps changing")
        return list(self._pick(self._ethtool.words))

    def _learn(self) -> None:
        names = self._ethtool.strings(self._name)
        places = [place for place, name in enumerate(names) if self._allow(name)]
        self._count = len(names)
        self.names = tuple(names[place] for place in places)
        self._pick = picker([place + 1 for place in places])  # the first word is command and count

    def _call(self) -> int:
        """How many statistics there are now; they lie in the buffer."""
        struct.pack_into("=II", self._ethtool.words, 0, _GSTATS, self._count)
        self._ethtool.call(self._asked, self._name)
        return int(struct.unpack_from("=I", self._ethtool.words, 4)[0])


def picker(places: Sequence[int]) -> Callable[[memoryview], Sequence[int]]:
    """The elements at *places*, in one call: 40 of 1000 in 0.4 us, unpacking all takes 3.1, a loop over these 0.9 (measured)."""
    if len(places) > 1:
        return operator.itemgetter(*places)
    return lambda words: [words[place] for place in places]


def request(name: str, address: int) -> bytes:
    """struct ifreq: the interface, and where the ethtool structure lies. Raises Unavailable(ABSENT) for what cannot be a name."""
    encoded = os.fsencode(name)
    if not 0 < len(encoded) < 16 or b"\0" in encoded:
        raise Unavailable(Reason.ABSENT, f"ethtool {name!r}", "not the name of an interface")
    return struct.pack("@16sP", encoded, address) + bytes(16)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "backslashreplace").strip()
