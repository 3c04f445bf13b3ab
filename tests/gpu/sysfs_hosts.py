"""What AMD's and Intel's GPUs show in sysfs, made by hand, and what the source makes of it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from tests.hosts.recorded import HOSTS


def place(path, name):
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(HOSTS / name, path)


def table(content: int, fields: dict[int, tuple[str, int]], size: int = 1700, form: int = 1) -> bytes:
    """A gpu_metrics table: by offset, struct's letter and the value."""
    blob = bytearray(size)
    struct.pack_into("<HBB", blob, 0, size, form, content)
    for offset, (kind, value) in fields.items():
        struct.pack_into(f"<{kind}", blob, offset, value)
    return bytes(blob)


def metrics(form, content, offset, energy):
    """A gpu_metrics table of 200 bytes."""
    return table(content, {offset: ("Q", energy)}, 200, form)


def values(reading, metric, **attributes):
    """hw.id -> value, of the points with these attributes."""
    column = reading.columns.get(metric)
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}.items()
    pairs = zip(*column, strict=True) if column else ()
    return {series.attributes["hw.id"]: value for series, value in pairs if wanted <= series.attributes.items()}


class Driver:
    """Files of a driver's: the kernel refuses to read them once it is gone, as those of a process that has ended (ESRCH)."""

    def __init__(self, device: Path) -> None:
        self._device = device
        self._process = subprocess.Popen(["sleep", "60"])
        self._file = Path(f"/proc/{self._process.pid}/oom_score_adj")
        self._file.write_text("7")

    def show(self, *names: str) -> None:
        """Each file reads 7."""
        for name in names:
            (self._device / name).unlink(missing_ok=True)
            (self._device / name).symlink_to(self._file)

    def unload(self, *names: str) -> None:
        self._process.kill()
        self._process.wait()
        for name in names:
            (self._device / name).unlink()
