"""The recorded hosts with energy counters, and how a test makes their counters move."""

from __future__ import annotations

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


def settings(interval: float = 10, **rapl: object) -> Settings:
    return Settings(general=General(interval=Seconds(interval)), rapl=Rapl(**rapl))  # type: ignore[arg-type]
