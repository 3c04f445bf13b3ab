"""What RDMA netlink tells (nldev.py): one record for each kind of answer.

None is what the kernel did not send, for a process of another PID namespace for example its pid. A pid is that of the thread
that made the object. Numbers of other objects are those in their records. Memory keys are secrets of the programs and not
among the fields.
"""

from __future__ import annotations

from typing import NamedTuple


class Device(NamedTuple):
    """GET: an RDMA device."""

    number: int  # the key of all other requests; another one after the device was removed and added again
    name: str | None
    ports: int | None  # how many
    capabilities: int | None
    firmware: str | None
    node_guid: str | None  # as in sysfs: 0002:c903:00fa:4e00
    system_guid: str | None
    node_type: int | None  # as in sysfs
    protocol: str | None  # ib, roce, iw, opa, usnic; none for EFA
    adaptive_moderation: int | None  # of completion queues, 0 or 1
    parent: str | None  # name of the device that this one is a part of


class Port(NamedTuple):
    """PORT_GET: a port's state, in one question to the driver."""

    number: int
    state: int | None  # as in sysfs
    phys_state: int | None  # as in sysfs
    lid: int | None  # InfiniBand only, as the next four
    sm_lid: int | None
    lmc: int | None
    capabilities: int | None
    subnet_prefix: str | None
    netdev_index: int | None  # only of our network namespace
    netdev: str | None


class QueuePair(NamedTuple):
    """RES_QP_GET. The kernel asks the driver about each one (mlx5: one firmware command)."""

    number: int
    port: int | None
    remote: int | None  # number of the queue pair at the other end; RC and UC
    type: int | None
    state: int | None
    migration: int | None  # RES_PATH_MIG_STATE
    pd: int | None
    pid: int | None
    kernel: str | None  # owner, where it is no process
    subtype: str | None  # of a driver's own type: DCT, DCI


class Connection(NamedTuple):
    """RES_CM_ID_GET: an identifier of the connection manager (rdma_cm_id), such as a socket."""

    number: int
    port: int | None
    queue_pair: int | None
    type: int | None  # of the queue pair
    port_space: int | None
    state: int | None
    source: str | None  # 10.9.0.2:36985, [2001:db8::1]:7999, or a GID
    destination: str | None
    pid: int | None
    kernel: str | None


class CompletionQueue(NamedTuple):
    """RES_CQ_GET."""

    number: int
    entries: int | None
    users: int | None
    poll_context: int | None  # of the kernel's own: 0 direct, 1 soft-IRQ, 2 work queue, 3 unbound work queue
    adaptive_moderation: int | None
    context: int | None
    pid: int | None
    kernel: str | None


class MemoryRegion(NamedTuple):
    """RES_MR_GET."""

    number: int
    length: int | None  # bytes
    pd: int | None
    pid: int | None
    kernel: str | None


class ProtectionDomain(NamedTuple):
    """RES_PD_GET."""

    number: int
    users: int | None
    context: int | None
    pid: int | None
    kernel: str | None


class SharedReceiveQueue(NamedTuple):
    """RES_SRQ_GET."""

    number: int
    type: int | None
    pd: int | None
    cq: int | None
    pid: int | None
    kernel: str | None


class Context(NamedTuple):
    """RES_CTX_GET: a process that has the device open."""

    number: int
    pid: int | None
    kernel: str | None


class CounterStatus(NamedTuple):
    """STAT_GET_STATUS: one hardware counter of a port, in the driver's order."""

    name: str
    number: int | None  # as the driver counts; reading file number 0 of hw_counters refreshes all
    enabled: int | None  # 0 or 1 for an optional counter; None: always there


class CounterMode(NamedTuple):
    """STAT_GET for queue pairs, not dumped: how the port binds them to counter sets."""

    mode: int | None  # MODE_NONE, MODE_AUTO, MODE_MANUAL
    mask: int | None  # with MODE_AUTO one set for each: MASK_QP_TYPE, MASK_PID


class CounterSet(NamedTuple):
    """STAT_GET for queue pairs, dumped: a counter set and the queue pairs it is bound to."""

    number: int
    port: int | None
    mode: int | None
    type: int | None  # of its queue pairs, where the mode tells them apart
    pid: int | None
    kernel: str | None
    queue_pairs: tuple[int, ...] | None
    counters: dict[str, int] | None


class System(NamedTuple):
    """SYS_GET: settings of the subsystem."""

    shared: int | None  # 1: every network namespace sees every device; 0: its own only
    copy_on_fork: int | None
    privileged_qkey: int | None
    monitor: int | None  # 1: this kernel sends notifications
