"""What is measured of RDMA devices: InfiniBand, RoCE, iWARP and EFA.

The first part keeps the names and labels of prometheus-rdma-exporter: every counter under one name, unscaled.
The second has the same counters typed, by rdma_counters.py, and all that the seed does not have. Traffic, errors and link
status are metrics of the semantic conventions (hardware.py).
"""

from __future__ import annotations

from typing import Any

from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.catalogue.process import EXECUTABLE, PID

DEVICE, PORT = "rdma.device.name", "rdma.port.number"  # points without a port are of the device as a whole
STAT = "rdma.stat.name"  # the kernel's own name: the file, the netlink string, the ethtool statistic
DIRECTION = hardware.DIRECTION
PRIORITY = "rdma.priority"  # 0 to 7 (IEEE 802.1Q); none on a point: the link's global pause
NETDEV = "network.interface.name"
COUNTER, LEVEL, GAUGE = Kind.COUNTER, Kind.UPDOWNCOUNTER, Kind.GAUGE


def _of_port(
    name: str, kind: Kind, unit: str, description: str, reads: str, attributes: tuple[str, ...] = (), optional: tuple[str, ...] = (),
    **more: Any,
) -> Metric:  # fmt: skip
    return Metric(name, kind, unit, description, reads, (DEVICE, *attributes), (PORT, *optional), **more)


# Seed 0
PORT_STAT = Metric(
    "rdma_port_stat", COUNTER, "", "RDMA port statistics.",
    "every counter in counters/ and hw_counters/, as the driver gives it; port 0: the device", ("device", "port", "stat"),
    origin="prometheus-rdma-exporter",
)  # fmt: skip
UP = Metric(
    "rdma_up", GAUGE, "", "Was the last scrape of RDMA statistics successful.", "0 when no counter of any device could be read",
    origin="prometheus-rdma-exporter",
)  # fmt: skip
SCRAPE_DURATION = Metric(
    "rdma_scrape_duration_seconds", GAUGE, "s", "Duration of the scrape in seconds.", "monotonic clock around one reading",
    origin="prometheus-rdma-exporter",
    integer=False,
)  # fmt: skip

# Counters, typed
PACKETS = _of_port(
    "rdma.port.packets", COUNTER, "{packet}", "Packets by cast; hw.network.packets has all of them.",
    "counters/{unicast,multicast}_{rcv,xmit}_packets; irdma", (DIRECTION, "rdma.packet.cast"), ("network.type",),
)  # fmt: skip
DISCARDS = _of_port(
    "rdma.port.discards", COUNTER, "{packet}", "Packets dropped for want of room, credit, buffer or permission.",
    "counters/port_xmit_discards, VL15_dropped; hw_counters; ethtool", (STAT,), (DIRECTION,),
)  # fmt: skip
WAIT = _of_port(
    "rdma.port.transmit.wait", COUNTER, "{tick}", "Ticks in which the port had data to send and no credit; saturates at 2^32-1.",
    "counters/port_xmit_wait",
)  # fmt: skip
OPERATIONS = _of_port(
    "rdma.operations", COUNTER, "{operation}", "Work requests and responses sent and received.", "hw_counters",
    ("rdma.operation.type", DIRECTION),
)  # fmt: skip
OPERATION_IO = _of_port(
    "rdma.operation.io", COUNTER, "By", "Payload by kind of operation.", "hw_counters of EFA", ("rdma.operation.type", DIRECTION),
)  # fmt: skip
CONGESTION = _of_port(
    "rdma.congestion.events", COUNTER, "{event}", "ECN marks, congestion notification packets (CNP) and reactions to them.", "hw_counters",
    ("rdma.congestion.event",),
)  # fmt: skip
TRANSPORT = _of_port(
    "rdma.transport.events", COUNTER, "{event}", "Retransmissions, timeouts, packets out of sequence, receivers that were not ready.",
    "hw_counters", ("rdma.transport.event",),
)  # fmt: skip
RETRANSMITTED = _of_port("rdma.transport.retransmitted", COUNTER, "By", "Bytes sent again.", "hw_counters/retrans_bytes (EFA)")
COMPLETION_ERRORS = _of_port(
    "rdma.completion.errors", COUNTER, "{error}",
    "Work requests completed with an error; flush errors are usual at the end of a queue pair.", "hw_counters",
    (hardware.ERROR_TYPE,), ("rdma.qp.side",),
)  # fmt: skip
LINK_EVENTS = _of_port(
    "rdma.link.events", COUNTER, "{event}",
    "Changes of the link: downed, error_recovery, carrier_up, carrier_down; port_up and port_down as seen.",
    "counters/link_downed, link_error_recovery; /sys/class/net/X/carrier_{up,down}_count; port state", ("rdma.link.event",),
)  # fmt: skip
COMMANDS = _of_port(
    "rdma.device.commands", COUNTER, "{command}", "Commands the driver gave the device, by outcome.", "hw_counters of EFA",
    ("rdma.command.outcome",),
)  # fmt: skip
OTHER = _of_port(
    "rdma.stat", COUNTER, "", "Counters that have no typed metric, under the driver's name.", "counters/, hw_counters/", (STAT,),
)  # fmt: skip
DRIVER_LEVEL = _of_port(
    "rdma.driver.level", GAUGE, "", "Levels and settings that drivers show among their counters.", "hw_counters of bnxt_re, hfi1, mana",
    (STAT,),
)  # fmt: skip
LIFESPAN = _of_port(
    "rdma.stat.lifespan", GAUGE, "s", "How long the kernel answers from its last query of the hardware counters.", "hw_counters/lifespan",
    integer=False,
)  # fmt: skip
SATURATED = _of_port(
    "rdma.stat.saturated", GAUGE, "", "1 for a counter that stands at its largest value and counts no more until it is reset.",
    "PortCounters of the InfiniBand specification: 4, 8, 16 and 32 bits wide", (STAT,),
)  # fmt: skip
OPTIONAL_ENABLED = _of_port(
    "rdma.stat.enabled", GAUGE, "", "1 if a counter that is off by default has been turned on, else 0.", "nldev STAT_GET_STATUS (5.16)",
    (STAT,),
)  # fmt: skip

# Link
STATE = _of_port(
    "rdma.port.state", GAUGE, "", "0 NOP, 1 DOWN, 2 INIT, 3 ARMED, 4 ACTIVE, 5 ACTIVE_DEFER.", "nldev PORT_GET, ports/N/state",
)  # fmt: skip
PHYSICAL_STATE = _of_port(
    "rdma.port.physical_state", GAUGE, "", "1 Sleep, 2 Polling, 3 Disabled, 4 training, 5 LinkUp, 6 LinkErrorRecovery, 7 Phy Test.",
    "nldev PORT_GET, ports/N/phys_state",
)  # fmt: skip
LANES = _of_port("rdma.port.lanes", GAUGE, "{lane}", "Lanes of the link.", "ports/N/rate")
LID = _of_port("rdma.port.lid", GAUGE, "", "Address of the port in its InfiniBand subnet.", "nldev PORT_GET, ports/N/lid")
SM_LID = _of_port("rdma.port.sm_lid", GAUGE, "", "Address of the subnet manager; 0 if there is none.", "nldev PORT_GET, ports/N/sm_lid")
PORT_INFO = _of_port(
    "rdma.port.info", GAUGE, "", "What a port is; always 1.", "ports/N",
    optional=("rdma.link.layer", "rdma.protocol", "rdma.link.speed", NETDEV),
)  # fmt: skip
DEVICE_INFO = Metric(
    "rdma.device.info", GAUGE, "", "What a device is; always 1.", "/sys/class/infiniband/X", (DEVICE,),
    ("rdma.device.firmware", "rdma.device.type", "rdma.device.board_id", "rdma.device.node_type", "rdma.device.node_guid",
     "rdma.device.system_guid", "rdma.device.driver", "pci.address", "pci.physical_function", "numa.node"),
)  # fmt: skip

# Flow control and what ethtool knows
PAUSE_FRAMES = _of_port(
    "rdma.pause.frames", COUNTER, "{frame}", "Pause frames, per priority (PFC) or of the whole link.", "ethtool statistics",
    (DIRECTION,), (PRIORITY, NETDEV),
)  # fmt: skip
PAUSE_TIME = _of_port(
    "rdma.pause.duration", COUNTER, "s", "Time paused, per priority (PFC) or of the whole link.", "ethtool statistics",
    (DIRECTION,), (PRIORITY, NETDEV), integer=False,
)  # fmt: skip
PAUSE_TRANSITIONS = _of_port(
    "rdma.pause.transitions", COUNTER, "{transition}", "Changes from not paused to paused.", "ethtool statistics", (DIRECTION,),
    (PRIORITY, NETDEV),
)  # fmt: skip
PRIORITY_PACKETS = _of_port(
    "rdma.priority.packets", COUNTER, "{packet}", "Received packets of a priority that were discarded or marked.", "ethtool statistics",
    (PRIORITY, STAT), (NETDEV,),
)  # fmt: skip
PCIE_STALLED = _of_port(
    "rdma.pcie.stalled", GAUGE, "1", "Share of the last second in which the device waited for PCIe credits, 0 to 1.",
    "ethtool statistics of mlx5", ("rdma.pcie.operation",), (NETDEV,), integer=False,
)  # fmt: skip
PCIE_STALLED_TIME = _of_port(
    "rdma.pcie.stalled.time", COUNTER, "s", "Seconds in which more than 30 % were stalled.", "ethtool statistics of mlx5",
    ("rdma.pcie.operation",), (NETDEV,),
)  # fmt: skip
VPORT_IO = _of_port(
    "rdma.vport.io", COUNTER, "By", "RDMA traffic of the virtual port, by cast.", "ethtool statistics of mlx5",
    (DIRECTION, "rdma.packet.cast"), (NETDEV,),
)  # fmt: skip
VPORT_PACKETS = _of_port(
    "rdma.vport.packets", COUNTER, "{packet}", "RDMA packets of the virtual port, by cast.", "ethtool statistics of mlx5",
    (DIRECTION, "rdma.packet.cast"), (NETDEV,),
)  # fmt: skip
NETDEV_OTHER = _of_port(
    "rdma.netdev.stat", COUNTER, "", "Other ethtool statistics of rdma.ethtool_stats, under the driver's name.", "ethtool statistics",
    (STAT,), (NETDEV,),
)  # fmt: skip
PFC_ENABLED = _of_port(
    "rdma.pfc.enabled", GAUGE, "", "1 if PFC is on for the priority.", "DCB_CMD_IEEE_GET, ieee_pfc.pfc_en", (PRIORITY,), (NETDEV,),
)  # fmt: skip
PFC_REQUESTS = _of_port(
    "rdma.pfc.requests", COUNTER, "{frame}", "PFC frames sent.", "DCB_CMD_IEEE_GET, ieee_pfc.requests", (PRIORITY,), (NETDEV,),
)  # fmt: skip
PFC_INDICATIONS = _of_port(
    "rdma.pfc.indications", COUNTER, "{frame}", "PFC frames received.", "DCB_CMD_IEEE_GET, ieee_pfc.indications", (PRIORITY,), (NETDEV,),
)  # fmt: skip

# The connection manager
CM_MESSAGE = "rdma.cm.message"  # req, rep, rtu, rej, mra, dreq, drep, lap, apr, sidr_req, sidr_rep: InfiniBand 1.7, chapter 12
CM_MESSAGES = _of_port(
    "rdma.cm.messages", COUNTER, "{message}", "Messages of the connection manager.", "ports/N/cm_{tx,rx}_msgs", (DIRECTION, CM_MESSAGE),
)  # fmt: skip
CM_RETRIES = _of_port(
    "rdma.cm.retries", COUNTER, "{message}", "Messages the connection manager sent again.", "ports/N/cm_tx_retries", (CM_MESSAGE,),
)  # fmt: skip
CM_DUPLICATES = _of_port(
    "rdma.cm.duplicates", COUNTER, "{message}", "Messages the connection manager received again.", "ports/N/cm_rx_duplicates",
    (CM_MESSAGE,),
)  # fmt: skip

# Modules and cables, only with rdma.modules
_MODULE = "memory of the module: SFF-8472, SFF-8636, CMIS; ethtool "
LANE = "rdma.module.lane"  # counted from 1
MODULE_INFO = _of_port(
    "rdma.module.info", GAUGE, "", "The module or cable in a port's cage; always 1.", _MODULE + "GMODULEEEPROM, MODULE_EEPROM_GET",
    ("rdma.module.form", "rdma.module.medium"),
    (NETDEV, "rdma.module.connector", "rdma.module.vendor", "rdma.module.part", "rdma.module.revision", "rdma.module.serial"),
)  # fmt: skip
CABLE_LENGTH = _of_port(
    "rdma.module.cable.length", GAUGE, "m", "Length of a cable that is one with its modules.", _MODULE + "cable length",
    (), (NETDEV,), integer=False,
)  # fmt: skip
MODULE_TEMPERATURE = _of_port(
    "rdma.module.temperature", GAUGE, "Cel", "Temperature of the module.", _MODULE + "monitors", (), (NETDEV,), integer=False,
)  # fmt: skip
MODULE_VOLTAGE = _of_port(
    "rdma.module.voltage", GAUGE, "V", "Supply voltage of the module.", _MODULE + "monitors", (), (NETDEV,), integer=False,
)  # fmt: skip
# In watts, as UCUM has it, and 0 can be said: dBm is 10 * log10(W * 1000), which has no value for no light.
MODULE_POWER = _of_port(
    "rdma.module.power", GAUGE, "W", "Optical power of a lane; in dBm: 10 * log10(1000 * W).", _MODULE + "monitors",
    (DIRECTION, LANE), (NETDEV,), integer=False,
)  # fmt: skip
MODULE_BIAS = _of_port(
    "rdma.module.bias", GAUGE, "A", "Bias current of a lane's laser.", _MODULE + "monitors", (LANE,), (NETDEV,), integer=False,
)  # fmt: skip

# Resources, and whose they are
RESOURCE_TYPE = "rdma.resource.type"  # qp, cq, mr, pd, srq, cm_id, ctx
RESOURCES = Metric(
    "rdma.resources", LEVEL, "{object}", "Objects on a device.", "nldev RES_GET", (DEVICE, RESOURCE_TYPE),
)  # fmt: skip
OWNER = ("rdma.kernel.module",)  # the owner of what no process has
PROCESS_RESOURCES = Metric(
    "rdma.process.resources", LEVEL, "{object}", "Objects of a process on a device.",
    "nldev RES_MR_GET, RES_CQ_GET, RES_PD_GET, RES_CTX_GET, RES_SRQ_GET, RES_CM_ID_GET", (DEVICE, RESOURCE_TYPE), (PID, EXECUTABLE, *OWNER),
)  # fmt: skip
PROCESS_MEMORY = Metric(
    "rdma.process.memory.registered", LEVEL, "By", "Memory a process has registered with a device (MRs).", "nldev RES_MR_GET, mrlen",
    (DEVICE,), (PID, EXECUTABLE, *OWNER),
)  # fmt: skip
PROCESS_QPS = _of_port(
    "rdma.process.queue_pairs", LEVEL, "{queue_pair}", "Queue pairs of a process by type and state; only with rdma.qps.",
    "nldev RES_QP_GET", ("rdma.qp.type", "rdma.qp.state"), (PID, EXECUTABLE, *OWNER),
)  # fmt: skip
QP_STAT = _of_port(
    "rdma.qp.stat", COUNTER, "", "Hardware counters of sets of queue pairs, where a mode is set (`rdma statistic qp set`).",
    "nldev STAT_GET, RES_QP", ("rdma.qp.counter_set", STAT), (PID, EXECUTABLE, "rdma.qp.type"),
)  # fmt: skip

# The fabric, only with rdma.fabric
FABRIC_NODES = _of_port(
    "rdma.fabric.nodes", LEVEL, "{node}", "Nodes of the fabric behind a port, by type: switch, ca, router.", "ibnetdiscover",
    ("rdma.fabric.node.type",),
)  # fmt: skip
FABRIC_LINKS = _of_port("rdma.fabric.links", LEVEL, "{link}", "Links of the fabric behind a port.", "ibnetdiscover")
FABRIC_STAT = _of_port(
    "rdma.fabric.stat", COUNTER, "", "Counters of the port at the other end of our cable, under the specification's names.", "perfquery",
    ("rdma.fabric.node.guid", "rdma.fabric.node.name", "rdma.fabric.port.number", STAT),
)  # fmt: skip

SEED = (PORT_STAT, UP, SCRAPE_DURATION)
COUNTERS = (
    PACKETS, DISCARDS, WAIT, OPERATIONS, OPERATION_IO, CONGESTION, TRANSPORT, RETRANSMITTED, COMPLETION_ERRORS, LINK_EVENTS, COMMANDS,
    OTHER, DRIVER_LEVEL, LIFESPAN, SATURATED, OPTIONAL_ENABLED,
)  # fmt: skip
LINK = (STATE, PHYSICAL_STATE, LANES, LID, SM_LID, PORT_INFO, DEVICE_INFO)
FLOW = (
    PAUSE_FRAMES, PAUSE_TIME, PAUSE_TRANSITIONS, PRIORITY_PACKETS, PCIE_STALLED, PCIE_STALLED_TIME, VPORT_IO, VPORT_PACKETS,
    NETDEV_OTHER, PFC_ENABLED, PFC_REQUESTS, PFC_INDICATIONS,
)  # fmt: skip
RESOURCE = (RESOURCES, PROCESS_RESOURCES, PROCESS_MEMORY, PROCESS_QPS, QP_STAT)
CONNECTIONS = (CM_MESSAGES, CM_RETRIES, CM_DUPLICATES)
MODULES = (MODULE_INFO, CABLE_LENGTH, MODULE_TEMPERATURE, MODULE_VOLTAGE, MODULE_POWER, MODULE_BIAS)
FABRIC = (FABRIC_NODES, FABRIC_LINKS, FABRIC_STAT)
ALL = (*SEED, *hardware.ADAPTER, *COUNTERS, *LINK, *FLOW, *CONNECTIONS, *MODULES, *RESOURCE, *FABRIC)
