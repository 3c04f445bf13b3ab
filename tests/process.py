"""The agent as a process of its own, started as people start it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "RDMA_MON_", "NOTIFY_", "WATCHDOG_"))}
COMMAND = [sys.executable, "-m", "otel_hostmetrics"]
_T = TypeVar("_T")


def eventually(find: Callable[[], _T | None], timeout: float = 10, what: str = "") -> _T:
    """The first answer that is not false, asked for again and again."""
    deadline = time.monotonic() + timeout
    while not (found := find()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.01)
    return found


class Running:
    """A running agent and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        self.process = process
        self._said = said

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def lines(self) -> list[str]:
        return self._said.read_text().splitlines()

    def wait_for(self, text: str, times: int = 1, timeout: float = 15) -> str:
        """The line with *text*, which a regular expression may describe."""

        def find() -> str | None:
            found = [line for line in self.lines if re.search(text, line)]
            assert len(found) >= times or self.process.poll() is None, self.lines
            return found[times - 1] if len(found) >= times else None

        return eventually(find, timeout, f"{text} in {self.lines}")

    def url(self, start: int = 1) -> str:
        """Of the Prometheus page, after so many starts and reloads."""
        found = re.search(r"Prometheus on (http://\S+/metrics)", self.wait_for("runs: .*Prometheus on", start))
        assert found
        return found[1]

    def page(self, start: int = 1) -> str:
        with urllib.request.urlopen(self.url(start), timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> tuple[int, float]:
        """Exit status and how long it took to end."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(timeout), time.monotonic() - began

    def proc(self, name: str) -> int:
        """How many there are in /proc/PID/fd or /proc/PID/task."""
        return len(os.listdir(f"/proc/{self.pid}/{name}"))


@contextlib.contextmanager
def agent(said: Path, *arguments: str, before: tuple[str, ...] = (), **environ: str) -> Iterator[Running]:
    """``otel-hostmetrics ARGUMENTS``, messages to *said*; *before* is a command that starts it. Killed at the end."""
    with said.open("wb") as file:
        process = subprocess.Popen([*before, *COMMAND, *arguments], env=CLEAN | environ, stderr=file, stdout=file, cwd=ROOT)
    try:
        yield Running(process, said)
    finally:
        process.kill()
        process.wait()
