"""Programs that hold RDMA resources and move bytes between the pair."""

from __future__ import annotations

import subprocess
import types
from pathlib import Path
from typing import Self

from tests.machine.guest.commands import listed, until
from tests.machine.guest.devices import ADDRESSES, PAIR, ROOT

_PORT = 18515  # of perftest
_SECONDS = "120"  # longer than any chapter: the traffic ends when we end it


def ping_pong() -> None:
    """200 messages of 4096 bytes to and fro, by ibv_rc_pingpong. Raises subprocess.SubprocessError."""
    command = ("ibv_rc_pingpong", "-g", "1", "-n", "200", "-s", "4096")
    with subprocess.Popen([*command, "-d", PAIR[1]], stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: _owns(PAIR[1], "qp", server.pid), "ibv_rc_pingpong waiting")
            until(lambda: _succeeds(*command, "-d", PAIR[0], ADDRESSES[1]), "ibv_rc_pingpong connected")
            server.wait(30)
        finally:
            server.kill()


def connect() -> None:
    """A connection that the connection manager makes, by ib_send_bw -R. Raises subprocess.SubprocessError.

    From rxe1 to itself: to an address of this network namespace the connection manager finds no other way.
    """
    command = ("ib_send_bw", "-R", "-d", PAIR[1], "-x", "1", "-n", "10", "-F", "-p", "18601")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            until(lambda: _owns(PAIR[1], "cm_id", server.pid), "ib_send_bw -R listening")
            until(lambda: _succeeds(*command, ADDRESSES[1]), "ib_send_bw -R connected")
            server.wait(30)
        finally:
            server.kill()


class Traffic:
    """ib_send_bw from rxe0 to rxe1, and one more that waits on rxe1 for the connection manager: *pids* by device, and "listener"."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._start("listener", 1, "-R", "-p", "18600")
            until(lambda: _owns(PAIR[1], "cm_id", self.pids["listener"]), "ib_send_bw -R listening")
            self._start(PAIR[1], 1)
            until(_listening, "the server of ib_send_bw")
            self._start(PAIR[0], 0, ADDRESSES[1])
            until(lambda: _owns(PAIR[0], "qp", self.pids[PAIR[0]], "RTS"), "ib_send_bw connected")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self._end()

    def goes_on(self) -> None:
        """Wait until packets have been sent. Under load soft-RoCE loses some and then pauses."""
        file = ROOT / PAIR[0] / "ports/1/hw_counters/sent_pkts"
        before = file.read_text()
        until(lambda: file.read_text() != before, "packets of ib_send_bw")

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, role: str, number: int, *more: str) -> None:
        command = ("ib_send_bw", "-d", PAIR[number], "-x", "1", "-D", _SECONDS, "-F", *more)
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self.pids[role] = self._processes[-1].pid


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def _listening() -> bool:
    """Whether something listens on the TCP port on which ib_send_bw's two sides find each other."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return any(row[1].endswith(f":{_PORT:04X}") and row[3] == "0A" for row in rows)


def _owns(device: str, kind: str, pid: int, state: str = "") -> bool:
    rows = listed("rdma", "-j", "resource", "show", kind, "link", device)
    return any(row.get("pid") == pid and state in row["state"] for row in rows)
