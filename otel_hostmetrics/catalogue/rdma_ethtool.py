"""The ethtool statistics of RoCE interfaces, by the driver's name: which metric each is.

Names: Documentation/networking/device_drivers/ethernet/mellanox/mlx5/counters.rst. Others that the user wants
(rdma.ethtool_stats) are counters of rdma.netdev.stat.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from otel_hostmetrics.catalogue import hardware, rdma
from otel_hostmetrics.catalogue.rdma_counters import Counter

_WAYS = {"rx": "receive", "tx": "transmit"}
_MICROSECONDS, _PERCENT = 1e-6, 0.01


def lookup(name: str) -> Counter:
    """The typed form of a statistic; an unknown one is rdma.netdev.stat under its own name."""
    for pattern, make in _FORMS:
        if match := pattern.fullmatch(name):
            return make(match)
    return Counter(rdma.NETDEV_OTHER, {rdma.STAT: name})


def _pause(match: re.Match[str]) -> Counter:
    priority = {rdma.PRIORITY: match[2]} if match[2] else {}
    metric = {None: rdma.PAUSE_FRAMES, "duration": rdma.PAUSE_TIME, "transition": rdma.PAUSE_TRANSITIONS}[match[3]]
    return Counter(metric, {**_way(match[1]), **priority}, _MICROSECONDS if metric is rdma.PAUSE_TIME else 1)


def _priority(match: re.Match[str]) -> Counter:
    return Counter(rdma.PRIORITY_PACKETS, {rdma.PRIORITY: match[1], rdma.STAT: match[2]})


def _vport(match: re.Match[str]) -> Counter:
    metric = rdma.VPORT_IO if match[3] == "bytes" else rdma.VPORT_PACKETS
    return Counter(metric, {**_way(match[1]), "rdma.packet.cast": match[2]})


def _stalled(match: re.Match[str]) -> Counter:
    operation = {"rdma.pcie.operation": {"rd": "read", "wr": "write"}[match[1]]}
    return Counter(rdma.PCIE_STALLED_TIME, operation) if match[2] else Counter(rdma.PCIE_STALLED, operation, _PERCENT)


def _discarded(match: re.Match[str]) -> Counter:
    return Counter(rdma.DISCARDS, {rdma.STAT: match[0], **_way(match[1] or "rx")})


def _down(_: re.Match[str]) -> Counter:
    return Counter(rdma.LINK_EVENTS, {"rdma.link.event": "phy_down"})


def _error(match: re.Match[str]) -> Counter:
    return Counter(hardware.ERRORS, {hardware.ERROR_TYPE: match[0], **_way(match[1])})


def _way(way: str | None) -> dict[str, str]:
    return {hardware.DIRECTION: {"rx": "receive", "tx": "transmit"}[way]} if way else {}


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Counter]], ...] = (
    (re.compile(r"([rt]x)_(?:prio([0-7])|global)_pause(?:_(duration|transition))?"), _pause),
    (re.compile(r"rx_prio([0-7])_(buf_discard|cong_discard|discards|marked)"), _priority),
    (re.compile(r"([rt]x)_vport_rdma_(unicast|multicast)_(bytes|packets)"), _vport),
    (re.compile(r"outbound_pci_stalled_(rd|wr)(_events)?"), _stalled),
    (re.compile(r"(?:([rt]x)_(?:discards_phy|out_of_buffer)|dev_out_of_buffer)"), _discarded),
    (re.compile(r"link_down_events_phy"), _down),
    (re.compile(r"(?:([rt]x)_(?:\w*err\w*_phy|pci_signal_integrity)|outbound_pci_buffer_overflow|module_\w+|tx_pause_storm_\w+)"), _error),
)
