"""Names of the numbers in RDMA netlink records, as iproute2's ``rdma`` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# enum ib_port_state and ib_port_phys_state (include/rdma/ib_verbs.h), in the words of sysfs
PORT_STATES: Final[Mapping[int, str]] = dict(enumerate(("NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER")))
PHYS_STATES: Final[Mapping[int, str]] = dict(
    enumerate(("Sleep", "Polling", "Disabled", "PortConfigurationTraining", "LinkUp", "LinkErrorRecovery", "Phy Test"), 1)
)

# enum ib_qp_type and ib_qp_state
QUEUE_PAIR_TYPES: Final[Mapping[int, str]] = {
    0: "SMI", 1: "GSI", 2: "RC", 3: "UC", 4: "UD", 5: "RAW_IPV6", 6: "RAW_ETHERTYPE", 8: "RAW_PACKET", 9: "XRC_INI", 10: "XRC_TGT",
    255: "DRIVER",
}  # fmt: skip
QUEUE_PAIR_STATES: Final[Mapping[int, str]] = dict(enumerate(("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")))

# enum rdma_cm_state (include/rdma/rdma_cm.h, drivers/infiniband/core/cma_priv.h) and enum rdma_ucm_port_space
CONNECTION_STATES: Final[Mapping[int, str]] = dict(
    enumerate(
        ("IDLE", "ADDR_QUERY", "ADDR_RESOLVED", "ROUTE_QUERY", "ROUTE_RESOLVED", "CONNECT", "DISCONNECT", "ADDR_BOUND", "LISTEN",
         "DEVICE_REMOVAL", "DESTROYING")
    )
)  # fmt: skip
PORT_SPACES: Final[Mapping[int, str]] = {0x0002: "IPOIB", 0x013F: "IB", 0x0106: "TCP", 0x0111: "UDP"}
