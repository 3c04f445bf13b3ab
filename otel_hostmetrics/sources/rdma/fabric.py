"""What the fabric's own tools tell, when the user wants that: topology, the ports our cables lead to, firmware settings.

The tools send management datagrams through the whole fabric, and take seconds to minutes on a large one. So they run one
after the other beside the agent's cycles, every fabric_interval; what they told stays until they have run again.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.fabric_tools import Link, Node, has_extended_counters, parse_ibnetdiscover, parse_mlxconfig
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.devices import Device, Owner, ports
from otel_hostmetrics.sources.rdma.far_port import FarPort
from otel_hostmetrics.sources.rdma.table import Point, Tables
from otel_hostmetrics.sources.rdma.tool import Tool

_PACKAGES = {"ibnetdiscover": "infiniband-diags", "perfquery": "infiniband-diags", "mlxconfig": "mft (NVIDIA)"}


class _Job(NamedTuple):
    """A command, and what becomes of its output."""

    command: tuple[str, ...]
    take: Callable[[str], None]


class Fabric:
    """step() in each cycle: it starts what is due and takes what is done."""

    def __init__(self, settings: Rdma, devices: Sequence[Device]) -> None:
        self._settings = settings
        self._ports = [port.owner for _, port in ports(devices) if port.protocol == "infiniband"]
        self._functions = [device.record.pci.address for device in devices if device.record.pci]
        self._guids = {device.name: device.record.node_guid.replace(":", "") for device in devices if device.record.node_guid}
        self._jobs: deque[_Job] = deque()
        self._running: tuple[Tool, _Job] | None = None
        self._next = float("-inf")
        self._nodes: dict[Owner, list[Node]] = {}
        self._far: dict[Owner, tuple[Link, FarPort]] = {}  # at the other end of the cable of each of our ports
        self._firmware: dict[str, dict[str, str]] = {}
        self._failures: dict[str, Unavailable] = {}  # by tool
        self._tables = Tables()

    def step(self) -> None:
        """Never waits."""
        now = time.monotonic()
        if now >= self._next and not self._running and not self._jobs:
            self._next = now + self._settings.fabric_interval
            self._plan()
        if self._running:
            self._look_after(*self._running)
        while not self._running and self._jobs:
            self._start(self._jobs.popleft())

    def _plan(self) -> None:
        self._failures = {}
        paths = {tool: shutil.which(tool) for tool in self._settings.fabric}
        for tool in (tool for tool, path in paths.items() if path is None):
            self._failures[tool] = Unavailable(Reason.ABSENT, tool, f"not in PATH; it comes with {_PACKAGES[tool]}")
        if path := paths.get("ibnetdiscover"):
            for owner in self._ports:
                self._jobs.append(_Job((path, *_through(owner)), lambda text, owner=owner: self._discovered(owner, text)))  # type: ignore[misc]
        if path := paths.get("mlxconfig"):
            for address in self._functions:
                self._jobs.append(_Job((path, "-d", address, "query"), lambda text, at=address: self._configured(at, text)))  # type: ignore[misc]

    def _discovered(self, owner: Owner, text: str) -> None:
        """Next comes the port our cable leads to."""
        nodes = self._nodes[owner] = parse_ibnetdiscover(text)
        before = self._far.pop(owner, None)
        guid = self._guids.get(owner.device)
        link = next((link for node in nodes if node.guid == guid for link in node.links if link.port == owner.number), None)
        path = shutil.which("perfquery") if "perfquery" in self._settings.fabric else None
        if link and path:
            far = before[1] if before and before[0] == link else FarPort()
            far.begin()
            self._far[owner] = link, far
            where = str(link.peer_lid), str(link.peer_port)
            extended = _Job((path, *_through(owner), "-x", *where), far.extended)
            self._jobs.append(_Job((path, *_through(owner), *where), lambda text: self._counted(far, text, extended)))

    def _counted(self, far: FarPort, text: str, extended: _Job) -> None:
        """Next come those of 64 bits, if there are any: old switches have none."""
        more = has_extended_counters(text)
        far.plain(text, more)
        if more:
            self._jobs.appendleft(extended)

    def _configured(self, address: str, text: str) -> None:
        self._firmware[address] = parse_mlxconfig(text)

    def _start(self, job: _Job) -> None:
        try:
            self._running = Tool(job.command, self._settings.fabric_timeout), job
        except Unavailable as error:
            self._failures[job.command[0]] = error

    def _look_after(self, tool: Tool, job: _Job) -> None:
        try:
            text = tool.output()
        except Unavailable as error:
            self._failures[job.command[0]] = error
        else:
            if text is None:
                return
            job.take(text)
        self._running = None
        if not self._jobs:
            self._tables.fill(self._points())

    def _points(self) -> Iterator[Point]:
        for owner, nodes in self._nodes.items():
            for kind, count in Counter(node.type for node in nodes).items():
                yield Point(rows.FABRIC_NODES, owner, (("rdma.fabric.node.type", kind),), count)
            yield Point(rows.FABRIC_LINKS, owner, (), sum(len(node.links) for node in nodes) // 2)
        for owner, (link, far) in self._far.items():
            peer = (("rdma.fabric.node.guid", link.peer), ("rdma.fabric.node.name", link.peer_name))
            where = (*peer, ("rdma.fabric.port.number", link.peer_port))
            for stat, value in far.counters().items():
                yield Point(rows.FABRIC_STAT, owner, (*where, (rows.STAT, stat)), value)

    def columns(self) -> Iterator[tuple[Metric, Column]]:
        """As of the last round that is complete."""
        return self._tables.columns()

    def problems(self) -> Sequence[Unavailable]:
        return list(self._failures.values())

    def facts(self) -> dict[str, object]:
        """JSON-able; empty before the first round."""
        nodes = {owner.path: [_readable(node) for node in nodes] for owner, nodes in self._nodes.items()}
        return {**({"fabric": nodes} if nodes else {}), **({"firmware_settings": dict(self._firmware)} if self._firmware else {})}

    def close(self) -> None:
        """Kill what runs."""
        if self._running:
            self._running[0].close()
            self._running = None
        self._jobs.clear()


def _through(owner: Owner) -> tuple[str, ...]:
    """By which of our ports a tool goes."""
    return ("-C", owner.device, "-P", str(owner.number))


def _readable(node: Node) -> dict[str, object]:
    return {**node._asdict(), "links": [link._asdict() for link in node.links]}
