"""Numbers of the RDMA netlink interface that are used here: include/uapi/rdma/rdma_netlink.h."""

from __future__ import annotations

from typing import Final

NETLINK_RDMA: Final = 20  # include/uapi/linux/netlink.h
CLIENT: Final = 5  # RDMA_NL_NLDEV: a message's type is this << 10 | command
GROUP_NOTIFY: Final = 4  # RDMA_NL_GROUP_NOTIFY: devices come and go, since 6.12; joining works before, in silence

# enum rdma_nldev_command. What is dumped or got needs no privilege.
GET: Final = 1
PORT_GET: Final = 5
SYS_GET: Final = 6
RES_GET: Final = 9
RES_QP_GET: Final = 10
RES_CM_ID_GET: Final = 11
RES_CQ_GET: Final = 12
RES_MR_GET: Final = 13
RES_PD_GET: Final = 14
STAT_SET: Final = 16  # since 5.3; needs CAP_NET_ADMIN
STAT_GET: Final = 17  # since 5.3
RES_CTX_GET: Final = 22
RES_SRQ_GET: Final = 23
STAT_GET_STATUS: Final = 24  # since 5.16

# enum rdma_nldev_attr
DEV_INDEX: Final = 1
DEV_NAME: Final = 2
PORT_INDEX: Final = 3
CAP_FLAGS: Final = 4
FW_VERSION: Final = 5
NODE_GUID: Final = 6
SYS_IMAGE_GUID: Final = 7
SUBNET_PREFIX: Final = 8
LID: Final = 9
SM_LID: Final = 10
LMC: Final = 11
PORT_STATE: Final = 12
PORT_PHYS_STATE: Final = 13
DEV_NODE_TYPE: Final = 14
RES_SUMMARY: Final = 15
RES_SUMMARY_ENTRY: Final = 16
RES_SUMMARY_ENTRY_NAME: Final = 17
RES_SUMMARY_ENTRY_CURR: Final = 18
RES_QP: Final = 19
RES_QP_ENTRY: Final = 20
RES_LQPN: Final = 21
RES_RQPN: Final = 22
RES_PATH_MIG_STATE: Final = 25
RES_TYPE: Final = 26
RES_STATE: Final = 27
RES_PID: Final = 28
RES_KERN_NAME: Final = 29
RES_CM_ID: Final = 30
RES_CM_ID_ENTRY: Final = 31
RES_PS: Final = 32
RES_SRC_ADDR: Final = 33
RES_DST_ADDR: Final = 34
RES_CQ: Final = 35
RES_CQ_ENTRY: Final = 36
RES_CQE: Final = 37
RES_USECNT: Final = 38
RES_POLL_CTX: Final = 39
RES_MR: Final = 40
RES_MR_ENTRY: Final = 41
RES_MRLEN: Final = 45
RES_PD: Final = 46
RES_PD_ENTRY: Final = 47
NDEV_INDEX: Final = 50
NDEV_NAME: Final = 51
RES_PDN: Final = 60
RES_CQN: Final = 61
RES_MRN: Final = 62
RES_CM_IDN: Final = 63
RES_CTXN: Final = 64
SYS_NETNS_MODE: Final = 66
DEV_PROTOCOL: Final = 67
STAT_MODE: Final = 74
STAT_RES: Final = 75
STAT_AUTO_MODE_MASK: Final = 76
STAT_COUNTER: Final = 77
STAT_COUNTER_ENTRY: Final = 78
STAT_COUNTER_ID: Final = 79
STAT_HWCOUNTERS: Final = 80
STAT_HWCOUNTER_ENTRY: Final = 81
STAT_HWCOUNTER_ENTRY_NAME: Final = 82
STAT_HWCOUNTER_ENTRY_VALUE: Final = 83
DEV_DIM: Final = 84
RES_CTX: Final = 86
RES_CTX_ENTRY: Final = 87
RES_SRQ: Final = 88
RES_SRQ_ENTRY: Final = 89
RES_SRQN: Final = 90
MIN_RANGE: Final = 91
MAX_RANGE: Final = 92
SYS_COPY_ON_FORK: Final = 93
STAT_HWCOUNTER_INDEX: Final = 94
STAT_HWCOUNTER_DYNAMIC: Final = 95
SYS_PRIVILEGED_QKEY_MODE: Final = 96
RES_SUBTYPE: Final = 98
DEV_TYPE: Final = 99
PARENT_NAME: Final = 100
SYS_MONITOR_MODE: Final = 103

# enum rdma_nl_counter_mode and _mask
MODE_NONE: Final = 0
MODE_AUTO: Final = 1
MODE_MANUAL: Final = 2
MASK_QP_TYPE: Final = 1
MASK_PID: Final = 2
