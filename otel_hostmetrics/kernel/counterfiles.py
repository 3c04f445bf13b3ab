"""Many counter files of sysfs, read every cycle in the caller's order.

For 72 files of /sys: open, read and close of each path take 589 us, openat on a kept directory 320, pread on a kept
descriptor 69 (measured). So descriptors are kept within a budget, and for what is beyond it the directory's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_SIZE: Final = 32  # bytes: a 64-bit number has 20 digits and a newline


class Budget:
    """How many descriptors may be kept. Shared by all :class:`CounterFiles` of one thread."""

    __slots__ = ("free",)

    def __init__(self, limit: int) -> None:
        self.free = limit


def sweep(descriptors: Sequence[int]) -> list[int] | None:
    """The numbers in many files, read as close together in time as can be; None if one of them is none or cannot be read.

    int() is also the check that there are only digits.
    """
    try:
        return list(map(int, list(map(os.pread, descriptors, repeat(_SIZE), repeat(0)))))
    except (OSError, ValueError):
        return None


class CounterFiles:
    """Files with one decimal number each. No single file makes it raise: see :attr:`failures`. Not thread-safe.

    A file that failed is left alone until :meth:`retry`. Restricted ConnectX-7 functions write to the kernel's log at
    every read of counters/, and a driver that says EINVAL to one cycle says it to the next.
    """

    def __init__(self, paths: Iterable[str], budget: Budget) -> None:
        """Opens the files, the first ones while the budget lasts; reads nothing."""
        self.paths = tuple(paths)
        self.failures: dict[int, Unavailable] = {}  # by place in *paths*, which have no value since
        self._budget = budget
        self._kept: dict[int, int] = {}  # place -> descriptor
        self._directories: dict[str, int] = {}
        self._open(range(len(self.paths)))

    @property
    def descriptors(self) -> Sequence[int]:
        """Of all files in their order, for :func:`sweep`; empty if some are not kept or have failed, so that read() is needed."""
        return self._descriptors if len(self._descriptors) == len(self.paths) else ()

    def read(self) -> Sequence[int | None]:
        """The values now, in the order of *paths*; None for what fails."""
        values = self._read_kept()
        if len(values) == len(self.paths):
            return values
        result: list[int | None] = [None] * len(self.paths)
        for place, value in zip(self._kept, values, strict=True):
            result[place] = value
        for place in self._unkept:
            result[place] = self._read_once(place)
        if any(place in self.failures for place in self._unkept):
            self._bind()
        return result

    def retry(self, places: Iterable[int] | None = None) -> None:
        """Read failed files again from now on, all or those of *places*, through new descriptors.

        Where a whole directory was refused, retry one of its files first: each refused read may be a line in the kernel's log.
        """
        again = sorted(self.failures if places is None else self.failures.keys() & set(places))
        for place in again:
            del self.failures[place]
        for path in {os.path.dirname(self.paths[place]) for place in again} & self._directories.keys():
            os.close(self._directories.pop(path))
        self._open(again)

    def gone(self) -> bool:
        """Whether a device has been removed: its descriptors stay dead even after it is back, its directories have to be listed anew."""
        return any(failure.reason is Reason.GONE for failure in self.failures.values())

    def close(self) -> None:
        """May be called again."""
        self._budget.free += len(self._kept)
        for descriptor in (*self._kept.values(), *self._directories.values()):
            os.close(descriptor)
        self._kept.clear()
        self._directories.clear()
        self.paths = ()
        self._bind()

    def _open(self, places: Iterable[int]) -> None:
        for place in places:
            if self._budget.free <= 0:
                break
            try:
                self._kept[place] = os.open(self.paths[place], os.O_RDONLY | os.O_CLOEXEC)
                self._budget.free -= 1
            except OSError as error:
                self.failures[place] = unavailable(error, self.paths[place], needs=self.paths[place])
        self._bind()

    def _bind(self) -> None:
        """What read() goes through."""
        self._kept = dict(sorted(self._kept.items()))
        self._descriptors = list(self._kept.values())
        self._unkept = [place for place in range(len(self.paths)) if place not in self._kept and place not in self.failures]

    def _read_kept(self) -> list[int]:
        """All through kept descriptors at once; one by one when one has failed."""
        values = sweep(self._descriptors)
        if values is not None:
            return values
        values = []
        for place, descriptor in self._kept.copy().items():
            value = self._number(place, descriptor)
            if value is not None:
                values.append(value)
            else:
                os.close(self._kept.pop(place))
                self._budget.free += 1
        self._bind()
        return values

    def _read_once(self, place: int) -> int | None:
        """Through the directory's descriptor."""
        path = self.paths[place]
        directory, name = os.path.split(path)
        try:
            if directory not in self._directories:
                self._directories[directory] = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directories[directory])
        except FileNotFoundError:  # it was there when the caller listed it
            self.failures[place] = Unavailable(Reason.GONE, path, "removed")
            return None
        except OSError as error:
            self.failures[place] = unavailable(error, path, needs=path)
            return None
        try:
            return self._number(place, descriptor)
        finally:
            os.close(descriptor)

    def _number(self, place: int, descriptor: int) -> int | None:
        path = self.paths[place]
        content = b""
        try:
            content = os.pread(descriptor, _SIZE, 0)
            return int(content)
        except OSError as error:
            self.failures[place] = unavailable(error, path, needs=path)
        except ValueError:
            # "N/A (no PMA)": iWARP, virtual functions
            reason = Reason.UNSUPPORTED if content.startswith(b"N/A") else Reason.MALFORMED
            self.failures[place] = Unavailable(reason, path, ascii(content.decode("ascii", "backslashreplace").strip()))
        return None
