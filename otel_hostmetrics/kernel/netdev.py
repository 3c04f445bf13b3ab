"""Network interfaces by index: /sys/class/net/NAME/ifindex, of the network namespace in which this sysfs was mounted."""

from __future__ import annotations

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS


def interfaces(fs: HostFS) -> dict[int, str]:
    """Index -> name. Empty where sysfs has no network; an interface that vanishes meanwhile is left out."""
    found: dict[int, str] = {}
    try:
        names = fs.names(fs.sys("class/net"))
    except Unavailable:
        return found
    for name in names:
        try:
            found[fs.integer(fs.sys("class/net", name, "ifindex"))] = name
        except Unavailable:  # bonding_masters is a file; interfaces come and go
            continue
    return found
