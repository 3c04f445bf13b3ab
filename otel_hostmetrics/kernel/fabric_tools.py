"""What the tools of an InfiniBand fabric print: ibnetdiscover and perfquery of infiniband-diags, mlxconfig of MFT.

Lines of another form are passed over: any text gives records.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_NODE: Final = re.compile(r'(Switch|Ca|Rt)\s+\d+ "[SHR]-([0-9a-f]{16})"\s+# "(.*?)"(?:.* lid (\d+))?')
_LINK: Final = re.compile(
    r"""\[(\d+)\](?:\([0-9a-f]+\))?\s+                         # our port, with its GUID on an adapter
        "[SHR]-([0-9a-f]{16})"\[(\d+)\](?:\([0-9a-f]+\))?\s+  # node and port at the other end
        \#(?:\ lid\ (\d+)\ lmc\ \d+)?\ "(.*?)"\ lid\ (\d+)\ (\S+)""",
    re.VERBOSE,
)
_COUNTER: Final = re.compile(r"(\w+):\.+(\d+)")
_CAPABILITIES: Final = re.compile(r"# Port counters: .*\(CapMask: 0x([0-9A-Fa-f]{1,4})\)")
_EXTENDED: Final = 0x600  # PortCountersExtended, with or without those of unicast and multicast: CapabilityMask of ClassPortInfo
_SETTING: Final = re.compile(r"\s+([A-Z][A-Z0-9_]*(?:\[\d+(?:\.\.\d+)?\])?)\s{2,}(\S.*?)\s*")
_MOST: Final = 100_000  # lines


class Link(NamedTuple):
    """A cable as one of its ends sees it."""

    port: int
    lid: int | None  # of this end; a switch has one for all its ports
    peer: str  # GUID of the node at the other end
    peer_port: int
    peer_lid: int
    peer_name: str
    speed: str  # 4xNDR


class Node(NamedTuple):
    """A switch, adapter or router of the fabric."""

    type: str  # switch, ca, router
    guid: str  # 16 hexadecimal digits
    name: str
    lid: int | None  # of a switch
    links: tuple[Link, ...]


def parse_ibnetdiscover(text: str) -> list[Node]:
    """The topology: each node begins with a line of its own, its links follow."""
    found: list[Node] = []
    for line in text.splitlines()[:_MOST]:
        if match := _NODE.match(line):
            kind = {"Switch": "switch", "Ca": "ca", "Rt": "router"}[match[1]]
            found.append(Node(kind, match[2], match[3], int(match[4]) if match[4] else None, ()))
        elif found and (match := _LINK.match(line)):
            port, peer, peer_port, lid, name, peer_lid, speed = match.groups()
            link = Link(int(port), int(lid) if lid else found[-1].lid, peer, int(peer_port), int(peer_lid), name, speed)
            found[-1] = found[-1]._replace(links=(*found[-1].links, link))
    return found


def parse_perfquery(text: str) -> dict[str, int]:
    """The counters of one port, under the names of the InfiniBand specification; selectors of the query are left out."""
    counters = {match[1]: int(match[2]) for line in text.splitlines()[:_MOST] if (match := _COUNTER.fullmatch(line.strip()))}
    return {name: value for name, value in counters.items() if name not in ("PortSelect", "CounterSelect")}


def has_extended_counters(text: str) -> bool:
    """Whether a port that perfquery was asked for has counters of 64 bits too (perfquery -x); True if it does not say."""
    match = _CAPABILITIES.search(text)
    return match is None or bool(int(match[1], 16) & _EXTENDED)


def parse_mlxconfig(text: str) -> dict[str, str]:
    """The firmware's settings: ``NUM_OF_VFS`` -> ``16``, ``SRIOV_EN`` -> ``True(1)``."""
    return {match[1]: match[2] for line in text.splitlines()[:_MOST] if (match := _SETTING.fullmatch(line))}
