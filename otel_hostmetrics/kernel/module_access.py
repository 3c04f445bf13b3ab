"""The memory of the module in an interface's cage, by ioctl or by netlink; both need CAP_NET_ADMIN.

ETHTOOL_GMODULEEEPROM shows the memory flattened, and most drivers only as far as SFF-8472 and SFF-8636 go (mlx5 refuses
QSFP-DD and OSFP). ETHTOOL_MSG_MODULE_EEPROM_GET (since 5.13) asks for any page: Documentation/networking/ethtool-netlink.rst.

The driver talks I2C to the module, by itself or through the firmware: milliseconds to tenths of a second for each read.
"""

from __future__ import annotations

import struct
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.ethtool import Ethtool
from otel_hostmetrics.kernel.module_eeprom import A0, A2, Eeprom
from otel_hostmetrics.kernel.netlink import NESTED, Socket, attribute, attributes

_NETLINK_GENERIC: Final = 16
_GENERIC: Final = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved
_CONTROLLER: Final = 16  # GENL_ID_CTRL
_GETFAMILY: Final = 3  # CTRL_CMD_GETFAMILY
_FAMILY_ID, _FAMILY_NAME = 1, 2  # CTRL_ATTR_
_MODULE_EEPROM_GET: Final = 31  # ETHTOOL_MSG_MODULE_EEPROM_GET
_HEADER, _OFFSET, _LENGTH, _PAGE, _BANK, _I2C_ADDRESS, _DATA = range(1, 8)  # ETHTOOL_A_MODULE_EEPROM_
_DEV_NAME: Final = 2  # ETHTOOL_A_HEADER_DEV_NAME
_HALF: Final = 128  # bytes of a page in the flattened memory
_SFP_A2: Final = 256  # where the second address of an SFP begins in it
_TIMEOUT: Final = 5.0  # s: the kernel answers when the module has


class Flattened:
    """By ioctl: the pages one after the other. Raises Unavailable at once where there is no module, or the driver shows none."""

    def __init__(self, ethtool: Ethtool, name: str) -> None:
        self._ethtool = ethtool
        self._name = name
        self._size = ethtool.module_size(name)

    def read(self, offset: int, length: int, page: int = 0, address: int = A0) -> bytes:
        at = offset + (_SFP_A2 if address == A2 else page * _HALF)
        if at + length > self._size:
            raise Unavailable(Reason.UNSUPPORTED, f"ethtool {self._name}", f"the driver shows {self._size} bytes of the module's memory")
        return self._ethtool.module_eeprom(self._name, at, length)


class Paged:
    """By netlink: any page."""

    def __init__(self, conversation: Conversation, name: str) -> None:
        self._conversation = conversation
        self._name = name

    def read(self, offset: int, length: int, page: int = 0, address: int = A0) -> bytes:
        return self._conversation.module_eeprom(self._name, offset, length, page, address)


class Conversation:
    """The ethtool family of generic netlink. Not thread-safe."""

    def __init__(self) -> None:
        """Raises Unavailable; ABSENT before 5.6."""
        self._socket = Socket(_NETLINK_GENERIC, "ethtool netlink", _TIMEOUT)
        try:
            self._family = self._find(b"ethtool\0")
        except Unavailable:
            self._socket.close()
            raise

    def _find(self, name: bytes) -> int:
        what = "ethtool netlink"
        request = _GENERIC.pack(_GETFAMILY, 1, 0) + attribute(_FAMILY_NAME, name)
        number = content(self._socket.ask(_CONTROLLER, 0, request, what), _FAMILY_ID, what)
        if len(number) != 2:
            raise Unavailable(Reason.MALFORMED, what, f"family number of {len(number)} bytes")
        return int(struct.unpack("=H", number)[0])

    def module_eeprom(self, name: str, offset: int, length: int, page: int, address: int) -> bytes:
        """Raises Unavailable; DENIED without CAP_NET_ADMIN."""
        what = f"ethtool {name}"
        words = b"".join(attribute(kind, struct.pack("=I", value)) for kind, value in ((_OFFSET, offset), (_LENGTH, length)))
        octets = b"".join(attribute(kind, bytes([value])) for kind, value in ((_PAGE, page), (_BANK, 0), (_I2C_ADDRESS, address)))
        header = attribute(_HEADER | NESTED, attribute(_DEV_NAME, name.encode() + b"\0"))
        try:
            bodies = self._socket.ask(self._family, 0, _GENERIC.pack(_MODULE_EEPROM_GET, 1, 0) + header + words + octets, what)
        except Unavailable as error:
            raise Unavailable(error.reason, what, error.detail, "CAP_NET_ADMIN" if error.reason is Reason.DENIED else "") from None
        return content(bodies, _DATA, what)

    def close(self) -> None:
        """May be called again."""
        self._socket.close()


class Cages:
    """Opens the memory of modules by interface, in the way that goes. Not thread-safe."""

    def __init__(self) -> None:
        self._ethtool = Ethtool()
        self._conversation: Conversation | None = None

    def open(self, name: str) -> Eeprom:
        """Raises Unavailable; UNSUPPORTED where the driver knows no modules, UNREADABLE or UNSUPPORTED without one in the cage."""
        try:
            return Flattened(self._ethtool, name)
        except Unavailable as error:
            if error.reason is not Reason.UNSUPPORTED:
                raise
        self._conversation = self._conversation or Conversation()
        return Paged(self._conversation, name)

    def close(self) -> None:
        """May be called again."""
        self._ethtool.close()
        if self._conversation:
            self._conversation.close()


def content(bodies: list[bytes], kind: int, what: str) -> bytes:
    """One attribute of the first answer. Raises Unavailable(MALFORMED)."""
    body = bodies[0] if bodies else b""
    try:
        for found, at, end in attributes(body, _GENERIC.size, len(body)):
            if found == kind:
                return body[at:end]
    except ValueError as error:
        raise Unavailable(Reason.MALFORMED, what, str(error)) from None
    raise Unavailable(Reason.MALFORMED, what, f"no attribute {kind} in the answer")
