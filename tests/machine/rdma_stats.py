"""Every counter of every RDMA device, as three witnesses have it: the page, the files, the ``rdma`` tool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from tests.machine.page import Page, by

Stats: TypeAlias = dict[tuple[str, str, str], int]  # (device, port, counter); port 0 is the device itself

_NOT_COUNTERS = {"lifespan"}


def exported(page: Page) -> Stats:
    """What the page says."""
    return {key: int(value) for key, value in by(page, "rdma_port_stat_total", "device", "port", "stat").items()}  # type: ignore[misc]


def in_files(files: Mapping[str, str], group: str = "") -> Stats:
    """What the files say that are counters and could be read."""
    stats: Stats = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        if content.isdigit() and path.name not in _NOT_COUNTERS and group in ("", path.parent.name):
            stats[path.parts[0], path.parts[2] if "ports" in path.parts else "0", path.name] = int(content)
    return stats


def in_tool(rows: list[dict[str, Any]]) -> Stats:
    """What ``rdma -j statistic show`` says."""
    named = {"ifname", "ifindex", "port"}
    return {(row["ifname"], str(row["port"]), name): row[name] for row in rows for name in row.keys() - named}


def of(stats: Stats, device: str) -> Stats:
    """Those of one device."""
    return {key: value for key, value in stats.items() if key[0] == device}
