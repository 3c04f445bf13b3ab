"""RDMA netlink without RDMA: answers that were recorded, or encoded as the kernel does."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from otel_hostmetrics.kernel.netlink import Answer, attribute, message
from tests.hosts.recorded import HOSTS

MACHINE = HOSTS / "rdma-machine"
RXE = HOSTS / "rdma-rxe"
WIRE = RXE / "wire.txt"
ENUMS = {line.split()[0]: line.split()[1:] for line in (Path(__file__).parent / "rdma_netlink.txt").read_text().splitlines()[1:]}
NUMBER = {name: number for number, name in enumerate(ENUMS["attribute"])}

# How the kernel writes an attribute: the comments in enum rdma_nldev_attr
U8 = """PORT_STATE PORT_PHYS_STATE LMC DEV_NODE_TYPE RES_PATH_MIG_STATE RES_TYPE RES_STATE RES_POLL_CTX DEV_DIM STAT_HWCOUNTER_DYNAMIC
SYS_NETNS_MODE SYS_COPY_ON_FORK SYS_MONITOR_MODE"""
U64 = "CAP_FLAGS NODE_GUID SYS_IMAGE_GUID SUBNET_PREFIX RES_SUMMARY_ENTRY_CURR RES_USECNT RES_IOVA RES_MRLEN STAT_HWCOUNTER_ENTRY_VALUE"
WIDTHS = {**dict.fromkeys(U8.split(), "=B"), **dict.fromkeys(U64.split(), "=Q")}


class Recording:
    """Answers requests as the kernel did when they were recorded."""

    def __init__(self) -> None:
        self.answers: dict[tuple[int, int, bytes], list[bytes]] = {}  # datagrams, their sequence number is 1
        self.asked: list[tuple[int, int, bytes]] = []

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        self.asked.append((kind, flags, body))
        answer = Answer(1, what)
        for datagram in self.answers[kind, flags, body]:
            answer.feed(datagram)
        assert answer.done
        return answer.bodies

    def close(self) -> None:
        self.answers.clear()

    def answer(self, command: int, flags: int, where: dict[str, int], *bodies: bytes, done: bytes = b"") -> None:
        """What will be said to a request: these bodies, and that it is done, or *done* instead."""
        request = b"".join(attribute(NUMBER[name], struct.pack("=I", value)) for name, value in where.items())
        self.put(5 << 10 | command, flags, request, *bodies, done=done)

    def put(self, kind: int, flags: int, request: bytes, *bodies: bytes, done: bytes = b"") -> None:
        """The same by the bytes of the request."""
        datagrams = [message(kind, 2 if flags else 0, 1, body) for body in bodies]
        self.answers[kind, flags, request] = [*datagrams, done or message(3, 2, 1, bytes(4))]


class Always:
    """Answers every request with the same bodies."""

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        return self.bodies

    def close(self) -> None:
        self.bodies = []


def recorded() -> Recording:
    """The machine of tests/hosts/rdma-machine."""
    recording = Recording()
    requests: list[tuple[int, int, bytes]] = []
    bodies: list[list[bytes]] = []
    for line in (MACHINE / "netlink.txt").read_text().splitlines():
        words = line.split()
        if words[0] == ">":
            requests.append((int(words[1], 16), int(words[2], 16), bytes.fromhex("".join(words[3:]))))
            bodies.append([])
        elif words[0] == "<":
            bodies[-1].append(bytes.fromhex(words[1]))
    for request, answer in zip(requests, bodies, strict=True):
        recording.put(*request, *answer)
    return recording


def recorded_datagrams() -> Recording:
    """wire.txt of tests/hosts/rdma-rxe: what iproute2 sent and got, but for its sequence numbers and its request to acknowledge."""
    recording = Recording()
    datagrams: list[bytes] = []
    for line in WIRE.read_text().splitlines():
        if line[:1] in ("<", ">"):
            data = bytes.fromhex(line[2:])
            length, kind, flags, _, port = struct.unpack_from("=IHHII", data)
            if line[0] == ">":
                datagrams = recording.answers[kind, flags & 0x300, data[16:]] = []
            else:
                datagrams.append(struct.pack("=IHHII", length, kind, flags, 1, port) + data[16:])
    return recording


def encode(attributes: dict[str, object]) -> bytes:
    """Attributes as the kernel writes them, entries of a table under the table's name + _ENTRY."""
    encoded = b""
    for name, value in attributes.items():
        if isinstance(value, list):
            entry = "STAT_HWCOUNTER_ENTRY" if name == "STAT_HWCOUNTERS" else f"{name}_ENTRY"
            content = b"".join(attribute(NUMBER[entry], encode(each)) for each in value)
        elif isinstance(value, bytes):
            content = value
        elif name.endswith("_ADDR"):
            content = bytes.fromhex(str(value)).ljust(128, b"\0")
        elif isinstance(value, str):
            content = value.encode() + b"\0"
        else:
            content = struct.pack(WIDTHS.get(name, "=I"), value)
        encoded += attribute(NUMBER[name], content)
    return encoded


def recorded_attributes() -> Recording:
    """nldev.txt of tests/hosts/rdma-rxe: the devices, and all about device 1, rxe1, in the machine of its tree.txt."""
    recording = Recording()
    requests = {
        "PORTS": (5, 0x300), "SUMMARY": (9, 0), "QP": (10, 0x300), "CM_ID": (11, 0x300), "CQ": (12, 0x300), "MR": (13, 0x300),
        "PD": (14, 0x300), "CTX": (22, 0x300), "SRQ": (23, 0x300), "STAT": (17, 0), "STATUS": (24, 0), "MODE": (17, 0),
        "QPSTAT": (17, 0x300),
    }  # fmt: skip
    for line in (RXE / "nldev.txt").read_text().splitlines():
        if line.startswith("DEVS "):
            recording.answer(1, 0x300, {}, *map(encode, json.loads(line[5:])))
        elif line.startswith("rxe1 "):
            _, what, records = line.split(" ", 2)
            where = {"DEV_INDEX": 1}
            if what in ("STAT", "STATUS", "MODE", "QPSTAT"):
                where["PORT_INDEX"] = 1
            if what in ("MODE", "QPSTAT"):
                where["STAT_RES"] = NUMBER["RES_QP"]
            if what == "MODE":
                where["STAT_MODE"] = 0
            recording.answer(*requests[what], where, *map(encode, json.loads(records)))
    return recording


def hardware_counters(values: dict[str, int]) -> bytes:
    """The body of an answer to STAT_GET."""
    entries = [{"STAT_HWCOUNTER_ENTRY_NAME": name, "STAT_HWCOUNTER_ENTRY_VALUE": value} for name, value in values.items()]
    return encode({"DEV_INDEX": 0, "DEV_NAME": "mlx5_0", "PORT_INDEX": 1, "STAT_HWCOUNTERS": entries})
