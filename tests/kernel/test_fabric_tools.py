"""What the tools of an InfiniBand fabric print; the topology and counters are of ibsim 0.10 with opensm."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.kernel.fabric_tools import (
    Link,
    Node,
    has_extended_counters,
    parse_ibnetdiscover,
    parse_mlxconfig,
    parse_perfquery,
)

TOPOLOGY = """\
#
# Topology file: generated on Fri Nov 20 21:57:58 2026
#
# Initiated from node 0000000000100000 port 0000000000100001

vendid=0x0
devid=0x0
sysimgguid=0x200000
switchguid=0x200000(200000)
Switch	8 "S-0000000000200000"		# "Switch1" base port 0 lid 2 lmc 0
[1]	"H-0000000000100000"[1](100001) 		# "Hca1" lid 1 4xSDR
[2]	"H-0000000000100000"[2](100002) 		# "Hca1" lid 3 4xSDR
[4]	"H-0000000000100003"[1](100004) 		# "Hca2" lid 4 4xSDR

vendid=0x0
devid=0x0
sysimgguid=0x100003
caguid=0x100003
Ca	2 "H-0000000000100003"		# "Hca2"
[1](100004) 	"S-0000000000200000"[4]		# lid 4 lmc 0 "Switch1" lid 2 4xSDR

vendid=0x0
devid=0x0
sysimgguid=0x100000
caguid=0x100000
Ca	2 "H-0000000000100000"		# "Hca1"
[1](100001) 	"S-0000000000200000"[1]		# lid 1 lmc 0 "Switch1" lid 2 4xSDR
[2](100002) 	"S-0000000000200000"[2]		# lid 3 lmc 0 "Switch1" lid 2 4xSDR
"""
COUNTERS = """\
# Port counters: Lid 1 port 1 (CapMask: 0x1200)
PortSelect:......................1
CounterSelect:...................0x0000
SymbolErrorCounter:..............0
LinkDownedCounter:...............3
PortXmitData:....................4294967295
"""
SETTINGS = """\

Device #1:
----------

Device type:        ConnectX7
Name:               MCX75310AAS-NEA_Ax
Description:        NVIDIA ConnectX-7 adapter card; PCIe 5.0 x16;
Device:             0000:3b:00.0

Configurations:                                          Next Boot
        MEMIC_BAR_SIZE                              0
        HOST_CHAINING_CACHE_DISABLE[0..7]           Array[0..7]
        SRIOV_EN                                    True(1)
        NUM_OF_VFS                                  16
        LINK_TYPE_P1                                IB(1)
"""


def test_topology_has_every_node_with_its_links() -> None:
    hca1, hca2, switch = "0000000000100000", "0000000000100003", "0000000000200000"
    nodes = {node.name: node for node in parse_ibnetdiscover(TOPOLOGY)}
    assert nodes["Switch1"] == Node(
        "switch", switch, "Switch1", 2,
        (Link(1, 2, hca1, 1, 1, "Hca1", "4xSDR"), Link(2, 2, hca1, 2, 3, "Hca1", "4xSDR"), Link(4, 2, hca2, 1, 4, "Hca2", "4xSDR")),
    )  # fmt: skip
    assert nodes["Hca1"].links == (Link(1, 1, switch, 1, 2, "Switch1", "4xSDR"), Link(2, 3, switch, 2, 2, "Switch1", "4xSDR"))
    assert nodes["Hca2"].type == "ca"


def test_counters_are_those_of_the_specification() -> None:
    assert parse_perfquery(COUNTERS) == {"SymbolErrorCounter": 0, "LinkDownedCounter": 3, "PortXmitData": 2**32 - 1}


def test_whether_a_port_has_counters_of_64_bits() -> None:
    """Bits 9 and 10 of the capabilities that perfquery prints."""
    assert has_extended_counters(COUNTERS)
    assert has_extended_counters(COUNTERS.replace("0x1200", "0x400"))
    assert not has_extended_counters(COUNTERS.replace("0x1200", "0x1100"))
    assert has_extended_counters("PortXmitData:....................4294967295\n")  # an old perfquery, which does not tell


def test_settings_of_the_firmware() -> None:
    assert parse_mlxconfig(SETTINGS) == {
        "MEMIC_BAR_SIZE": "0", "HOST_CHAINING_CACHE_DISABLE[0..7]": "Array[0..7]", "SRIOV_EN": "True(1)", "NUM_OF_VFS": "16",
        "LINK_TYPE_P1": "IB(1)",
    }  # fmt: skip


@given(st.text() | st.lists(st.sampled_from(TOPOLOGY.splitlines() + COUNTERS.splitlines() + SETTINGS.splitlines())).map("\n".join))
def test_any_text_gives_records(text: str) -> None:
    parse_ibnetdiscover(text)
    parse_perfquery(text)
    has_extended_counters(text)
    parse_mlxconfig(text)
