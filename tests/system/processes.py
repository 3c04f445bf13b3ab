"""Programs that a test runs beside itself, and how it asks them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def need(lacking: str) -> None:
    """Skip where something is *lacking*, and say what; in CI that is a failure."""
    if lacking and os.environ.get("CI") == "true":
        pytest.fail(f"needs {lacking}")
    if lacking:
        pytest.skip(f"needs {lacking}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def until(url: str) -> bytes:
    """The body, as soon as somebody answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return get(url)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Processes(contextlib.ExitStack):
    """Programs that run in the background and end with the test."""

    def start(self, *command: str | Path, log: Path, **environment: str) -> subprocess.Popen[str]:
        file = self.enter_context(log.open("w"))
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env={**os.environ, **environment}
        )
        self.callback(self._stop, process)
        return process

    @staticmethod
    def _stop(process: subprocess.Popen[str]) -> None:
        process.terminate()
        with process:  # closes the pipes and waits
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
