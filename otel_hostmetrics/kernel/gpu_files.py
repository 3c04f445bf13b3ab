"""The sysfs files of one GPU: integers, kept open, and the sensors of its hwmon.

Documentation/hwmon/sysfs-interface.rst. Files that a GPU does not have are not there; one that cannot be read (-EBUSY, -EINVAL
of a sensor that is off, -ENODEV of a GPU that was unplugged) has no value this time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import CounterFile, HostFS
from otel_hostmetrics.kernel.pci import Link

Value: TypeAlias = int | None

_ATTRIBUTE: Final = re.compile(
    r"(temp|power|energy|fan|pwm|freq)(\d{1,2})(?:_(input|average|crit|emergency|cap|cap_max|cap_min|cap_default|max))?"
)
_GENERATIONS: Final = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}  # GT/s -> generation of PCI Express


class Files:
    """Named integers, read again and again."""

    def __init__(self, paths: Iterable[tuple[str, str]]) -> None:
        """(name, path) in order of preference: the first file of a name that can be read is taken."""
        self._files: dict[str, CounterFile] = {}
        self.denied: list[Unavailable] = []
        self._lost = 0  # files that were gone in the last reading
        for name, path in paths:
            if name not in self._files:
                self._try(name, path)
        self.names = tuple(self._files)

    def _try(self, name: str, path: str) -> None:
        try:
            file = CounterFile(path)
        except Unavailable as error:
            if error.needs:
                self.denied.append(error)
            return
        try:
            file.read()
        except Unavailable:
            file.close()
        else:
            self._files[name] = file

    def read(self) -> list[Value]:
        """In the order of ``names``."""
        self._lost = 0
        return [self._value(file) for file in self._files.values()]

    def _value(self, file: CounterFile) -> Value:
        try:
            return file.read()
        except Unavailable as error:
            self._lost += error.reason is Reason.GONE
            return None

    @property
    def gone(self) -> bool:
        """Whether the last reading found all of them gone: removed with their driver or device, whatever has the same paths now."""
        return 0 < self._lost == len(self._files)

    def close(self) -> None:
        """May be called again."""
        for file in self._files.values():
            file.close()
        self._files = {}


def hwmons(fs: HostFS, device: str) -> list[str]:
    """Directories of a device's hwmon."""
    return [f"{device}/hwmon/{name}" for name in _names(fs, f"{device}/hwmon")]


def sensors(fs: HostFS, device: str) -> Iterator[tuple[str, str]]:
    """(name, path) of a device's hwmon: ``temp.junction.input``, ``power.1.cap``; by label where there is one, else by number."""
    for directory in hwmons(fs, device):
        for file in _names(fs, directory):
            match = _ATTRIBUTE.fullmatch(file)
            if match and (match[3] or match[1] == "pwm"):
                label = _text(fs, f"{directory}/{match[1]}{match[2]}_label") or match[2]
                yield f"{match[1]}.{label}.{match[3] or 'duty'}", f"{directory}/{file}"


def link_state(link: Link) -> Iterator[tuple[str, Value]]:
    """What cards tell of their PCI Express link. 16 GT/s is generation 4; a speed that is of none has no value."""
    yield "link.generation", _GENERATIONS.get(link.speed or 0)
    yield "link.width", link.width
    yield "link.generation.max", _GENERATIONS.get(link.max_speed or 0)
    yield "link.width.max", link.max_width


def _names(fs: HostFS, directory: str) -> list[str]:
    try:
        return fs.names(directory)
    except Unavailable:
        return []


def _text(fs: HostFS, path: str) -> str:
    try:
        return re.sub(r"[^A-Za-z0-9_]", "_", fs.text(path)[:32])
    except Unavailable:
        return ""
