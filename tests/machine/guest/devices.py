"""RDMA devices of this machine: a soft-RoCE pair over veth, and fakeib; and what their files say."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from tests.machine.guest.commands import run, until

ROOT = Path("/sys/class/infiniband")
PAIR = ("rxe0", "rxe1")
ADDRESSES = ("10.9.0.1", "10.9.0.2")
_PARAMETERS = Path("/sys/module/fakeib/parameters")
CALLS = ("pma_reads", "hw_reads", "port_queries")

Files: TypeAlias = dict[str, str]  # path below ROOT -> content, or the name of the error that reading it gave


def make_pair() -> None:
    """rxe0 and rxe1, each on one end of a veth pair in this network namespace, with addresses in use."""
    run("modprobe", "-a", "veth", "rdma_ucm", "ib_uverbs", "rdma_rxe")
    run("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    for number, address in enumerate(ADDRESSES):
        name = f"veth{number}"
        for setting in ("accept_local=1", "rp_filter=0", "arp_ignore=1"):  # both ends are ours
            run("sysctl", "-qw", f"net.ipv4.conf.{name}.{setting}")
        run("ip", "address", "add", f"{address}/24", "dev", name)
        run("ip", "link", "set", name, "up")
    for number in range(2):
        add(number)


def add(number: int) -> None:
    """Create one of the pair (again)."""
    run("rdma", "link", "add", PAIR[number], "type", "rxe", "netdev", f"veth{number}")
    until(lambda: "ffff" in (ROOT / PAIR[number] / "ports/1/gids/1").read_text(), f"the IPv4 address of {PAIR[number]}")


def load(module: str, *parameters: str) -> None:
    """fakeib; *module* is its file."""
    run("modprobe", "ib_core")
    run("insmod", module, *parameters)


def set_parameters(**values: int) -> None:
    for name, value in values.items():
        (_PARAMETERS / name).write_text(str(value))


def calls() -> dict[str, int]:
    """How often fakeib was asked so far."""
    return {name: int((_PARAMETERS / name).read_text()) for name in CALLS}


def counter_files() -> Files:
    """Every file of counters/ and hw_counters/, of ports and devices. Reading fakeib's is a call of its driver."""
    return {str(path.relative_to(ROOT)): _content(path) for path in sorted(_counter_paths())}


def _counter_paths() -> Iterator[Path]:
    for device in ROOT.iterdir():
        for folder in (device / "hw_counters", *device.glob("ports/*/counters"), *device.glob("ports/*/hw_counters")):
            if folder.is_dir():
                yield from folder.iterdir()


def port_files() -> Files:
    """The state of each port in the kernel's words."""
    names = ("state", "phys_state", "rate", "link_layer", "lid", "sm_lid")
    ports = sorted(ROOT.glob("*/ports/*"))
    return {str((port / name).relative_to(ROOT)): _content(port / name) for port in ports for name in names}


def connection_files() -> Files:
    """Messages of the connection manager."""
    return {str(path.relative_to(ROOT)): _content(path) for path in sorted(ROOT.glob("*/ports/*/cm_*/*"))}


def _content(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.read(fd, 4096).decode().strip()
        finally:
            os.close(fd)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
