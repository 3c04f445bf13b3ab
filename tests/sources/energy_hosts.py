"""The recorded hosts with energy counters, and how a test makes their counters move."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import General, Rapl, Seconds, Settings
from tests.hosts.recorded import HOSTS, unpack

POWERCAP = "devices/virtual/powercap"


def host(name: str, root: Path) -> HostFS:
    """The tree of tests/hosts/energy-NAME below *root*, with its /proc/cpuinfo."""
    fs = unpack(f"energy-{name}", root)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text((HOSTS / f"energy-{name}/cpuinfo").read_text())
    return fs


def zone(fs: HostFS, zone_id: str) -> Path:
    """The real directory of a zone: ``intel-rapl:0:1``."""
    control_type, *numbers = zone_id.split(":")
    parts = [":".join((control_type, *numbers[:depth])) for depth in range(len(numbers) + 1)]
    return Path(fs.sys(POWERCAP, *parts))


def count(path: Path, value: int) -> None:
    """Write in place, so that descriptors kept open see it, as they see a kernel counter move."""
    path.write_text(f"{value}\n")


def add(path: Path, step: int) -> None:
    count(path, int(path.read_text()) + step)


@contextlib.contextmanager
def drawing(root: Path, watts: float) -> Iterator[None]:
    """All the while every zone below *root* takes so much, and its counter wraps where the recording says."""
    counters = [_Counter(path) for path in root.rglob("energy_uj") if not path.is_symlink()]
    ended = threading.Event()

    def run() -> None:
        before = time.monotonic()
        while not ended.wait(0.05):
            now = time.monotonic()
            for each in counters:
                each.add(round((now - before) * watts * 1e6))
            before = now

    thread = threading.Thread(target=run, name="drawing")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Counter:
    """Moved in place and of one length, so that who reads meanwhile sees the number before or after."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = int(path.read_text())
        self._range = int(path.with_name("max_energy_range_uj").read_text())
        path.write_text(self._text())

    def _text(self) -> str:
        return f"{self._value:<19}\n"

    def add(self, step: int) -> None:
        self._value = (self._value + step) % self._range
        with self._path.open("r+b") as file:
            os.pwrite(file.fileno(), self._text().encode(), 0)


def settings(interval: float = 10, **rapl: object) -> Settings:
    return Settings(general=General(interval=Seconds(interval)), rapl=Rapl(**rapl))  # type: ignore[arg-type]
