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
from otel_hostmetrics.kernel.fabric_tools import Link, Node, parse_ibnetdiscover, parse_mlxconfig, parse_perfquery
from otel_hostmetrics.model import Column
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.devices import Device, Owner, ports
from otel_hostmetrics.sources.rdma.table import Point, Tables
from otel_hostmetrics.sources.rdma.tool import Tool

_PACKAGES = {"ibnetdiscover": "infiniband-diags", "perfquery": "infiniband-diags", "mlxconfig": "mft (NVIDIA)"}


class _Job(NamedTuple):
    """A command, and what becomes of its output."""

    command: tuple[str, ...]
    take: Callable[[str], None]
    optional: bool = False  # that it fails is no problem


class Fabric:
    """step() in each cycle: it starts what is due and takes what is done."""

    def __init__(self, settings: Rdma, devices: Sequence[Device]) -> None:
        self._settings = settings
        self._ports = [port.owner for _, port in ports(devices) if port.protocol == "infiniband"]
        self._functions = [device.record.pci.address for device in devices if device.record.pci]
        self._guids = {device.record.node_guid.replace(":", "") for device in devices if device.record.node_guid}
        self._jobs: deque[_Job] = deque()
        self._running: tuple[Tool, _Job] | None = None
        self._next = float("-inf")
        self._nodes: dict[Owner, list[Node]] = {}
        self._counters: dict[tuple[Owner, str, str, int], dict[str, int]] = {}  # by our port, and node, name and port at the other end
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
        """Next come the ports our cables lead to."""
        nodes = self._nodes[owner] = parse_ibnetdiscover(text)
        self._counters = {key: counters for key, counters in self._counters.items() if key[0] != owner}
        path = shutil.which("perfquery") if "perfquery" in self._settings.fabric else None
        for link in (link for node in nodes if node.guid in self._guids for link in node.links) if path else ():
            assert path is not None
            where = str(link.peer_lid), str(link.peer_port)
            for extended in ((), ("-x",)):  # 64 bits for what stops at 32 in the first answer; old switches refuse
                command = (path, *_through(owner), *extended, *where)
                self._jobs.append(_Job(command, lambda text, link=link: self._counted(owner, link, text), bool(extended)))  # type: ignore[misc]

    def _counted(self, owner: Owner, link: Link, text: str) -> None:
        self._counters.setdefault((owner, link.peer, link.peer_name, link.peer_port), {}).update(parse_perfquery(text))

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
            if not job.optional:
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
        for (owner, guid, name, port), counters in self._counters.items():
            where = (("rdma.fabric.node.guid", guid), ("rdma.fabric.node.name", name), ("rdma.fabric.port.number", port))
            for stat, value in counters.items():
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
