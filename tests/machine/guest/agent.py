"""The real agent, as its own process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import types
import urllib.request
from pathlib import Path
from typing import Self

from tests.machine.guest.commands import run, until

_URL = "http://127.0.0.1:9464"
# A scrape is one collection, and nothing else collects: the tests decide when the host is read, and how often. Without KVM
# a first reading may well take longer than the deadline that is usual on a host.
_SETTINGS = {"PROMETHEUS__MAX_AGE": "1ms", "GENERAL__INTERVAL": "1h", "GENERAL__DEADLINE": "30s"}


def command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "otel_hostmetrics", *arguments)


def environment(**settings: str) -> dict[str, str]:
    """That of this process, with *settings*: SECTION__KEY."""
    return {**os.environ, **{f"OTEL_HOSTMETRICS_{key}": value for key, value in {**_SETTINGS, **settings}.items()}}


def once(*arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """What ``--once`` prints; *prefix* is the command that starts it."""
    return run(*prefix, *command("--once", *arguments), environment=environment())


class Agent:
    """Serves Prometheus with *sources* until the ``with`` ends. Its own messages go to *log*."""

    def __init__(self, sources: str, log: Path, **settings: str) -> None:
        self._log = log
        self.output = log.open("w+", encoding="utf-8")
        start = time.monotonic()
        arguments = command("--prometheus", "127.0.0.1:9464", "--sources", sources)
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=self.output, env=environment(**settings))
        try:
            until(self._ready, "an answer of the agent", limit=60)
        except BaseException:
            self.close()
            raise
        self.seconds_to_answer = time.monotonic() - start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()

    def _ready(self) -> str:
        if self.process.poll() is not None:
            raise RuntimeError(f"the agent ended with {self.process.returncode}: {self._log.read_text(encoding='utf-8')[-2000:]}")
        with contextlib.suppress(OSError):
            return self.scrape()
        return ""

    def scrape(self) -> str:
        """The page of one collection made now."""
        with urllib.request.urlopen(f"{_URL}/metrics", timeout=30) as answer:
            return answer.read().decode()  # type: ignore[no-any-return]

    def descriptors(self) -> int:
        """How many it has open: the least of some counts, because the last scrape's connection may not be closed yet."""
        counts = []
        for _ in range(5):
            time.sleep(0.05)
            counts.append(len(os.listdir(f"/proc/{self.process.pid}/fd")))
        return min(counts)

    def close(self) -> int:
        """Its exit status after SIGTERM; -SIGKILL if it did not end within 10 s."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
        self.output.close()
        return self.process.wait()
