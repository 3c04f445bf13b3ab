"""Which RDMA devices there are, by name."""

from __future__ import annotations

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_CURE = "load the driver of the RDMA hardware, or add a soft-RoCE device: rdma link add rxe0 type rxe netdev eth0"


def listing(fs: HostFS) -> list[str]:
    """Names of all devices. Raises Unavailable(ABSENT), with what to do, where there is none."""
    try:
        names = fs.names(fs.sys("class/infiniband"))
    except Unavailable as error:
        if error.reason is not Reason.ABSENT:
            raise
        names = []
    if not names:
        raise Unavailable(Reason.ABSENT, fs.sys("class/infiniband"), f"no RDMA device; {_CURE}")
    return names
