"""What each process does on a GPU: /proc/PID/fdinfo/FD of open DRM devices (Documentation/gpu/drm-usage-stats.rst; 5.19).

Several descriptors may be one client, also of several processes; a client counts once, for the process with the lowest pid.
Listing all descriptors of a host is what costs, so processes that hold a DRM device are looked for seldom and read often.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_MOST_CLIENTS: Final = 4096
_LINE: Final = re.compile(
    r"drm-(driver|pdev|client-id|(?:engine|engine-capacity|memory|resident|cycles|total-cycles)-[\w-]{1,32}):\s*(\S{1,64})(?:\s+(\S{1,8}))?\s*"
)
_CAPACITIES: Final = frozenset(map(str, range(1, 65)))
_UNITS: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}


class Client(NamedTuple):
    """One client of a GPU."""

    driver: str
    device: str  # PCI address
    id: str
    engines: Mapping[str, int]  # ns of work; amdgpu, i915
    cycles: Mapping[str, tuple[int, int]]  # of work, and of the engines' clock since boot; xe
    memory: Mapping[str, int]  # bytes by region: vram, gtt, vram0, system...


def parse(text: str) -> Client | None:
    """None for what is no DRM client's, or one that does not say of which device."""
    values: dict[str, tuple[str, str]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            values[match[1]] = (match[2], match[3] or "")
    if not {"driver", "pdev", "client-id"} <= values.keys():
        return None
    engines = {
        key.removeprefix("engine-"): int(value) for key, (value, unit) in values.items() if _is(key, "engine-", value) and unit == "ns"
    }
    memory = {}
    for kind in ("memory-", "resident-"):  # resident is the newer word; drivers have one of them, or both with the same meaning
        for key, (value, unit) in values.items():
            if _is(key, kind, value) and unit in _UNITS:
                memory[key.removeprefix(kind)] = int(value) * _UNITS[unit]
    return Client(values["driver"][0], values["pdev"][0], values["client-id"][0], engines, _cycles(values), memory)


def _cycles(values: Mapping[str, tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """Only where the clock is told, too; of a class with several engines, as if it were one."""
    found = {}
    for key, (value, _) in values.items():
        name = key.removeprefix("cycles-")
        total = values.get(f"total-cycles-{name}", ("", ""))[0]
        if _is(key, "cycles-", value) and _is(f"total-cycles-{name}", "total-cycles-", total):
            capacity = values.get(f"engine-capacity-{name}", ("1", ""))[0]
            found[name] = (int(value), int(total) * (int(capacity) if capacity in _CAPACITIES else 1))
    return found


def _is(key: str, kind: str, value: str) -> bool:
    return key.startswith(kind) and value.isascii() and value.isdigit()


class Clients:
    """The clients of all GPUs: scan() finds who they are, read() what they do now."""

    def __init__(self, fs: HostFS) -> None:
        self._fs = fs
        self._holders: list[tuple[int, str]] = []  # (pid, descriptor)

    def scan(self) -> None:
        """Look for open DRM devices in every process; those of other users need CAP_SYS_PTRACE."""
        self._holders = []
        try:
            pids = sorted(int(name) for name in self._fs.names(self._fs.proc()) if name.isascii() and name.isdigit())
        except Unavailable:
            return
        for pid in pids:
            self._holders += [(pid, descriptor) for descriptor in self._open_cards(pid)]
        del self._holders[_MOST_CLIENTS:]

    def _open_cards(self, pid: int) -> Iterator[str]:
        directory = self._fs.proc(str(pid), "fd")
        try:
            descriptors = self._fs.names(directory)
        except Unavailable:  # ended, or not ours to see
            return
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{directory}/{descriptor}")
            except OSError:
                continue
            if target.startswith("/dev/dri/"):
                yield descriptor

    def read(self) -> dict[int, list[Client]]:
        """Clients by pid, each once."""
        seen: set[tuple[str, str]] = set()
        found: dict[int, list[Client]] = {}
        for pid, descriptor in self._holders:
            try:
                client = parse(self._fs.text(self._fs.proc(str(pid), "fdinfo", descriptor)))
            except Unavailable:  # closed meanwhile
                continue
            if client and (client.device, client.id) not in seen:
                seen.add((client.device, client.id))
                found.setdefault(pid, []).append(client)
        return found
