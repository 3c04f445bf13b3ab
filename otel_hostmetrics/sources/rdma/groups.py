"""Counters that are read together: the files of one directory of a port, or the answer to one netlink request."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import infiniband
from otel_hostmetrics.kernel.counterfiles import Budget, CounterFiles
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.kernel.nldev_records import CounterStatus
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.backoff import Backoff
from otel_hostmetrics.sources.rdma.devices import Device, Owner

# Drivers refresh all hardware counters when number 0 is read, and the kernel then answers the others from memory for
# `lifespan`. mlx5 with optional counters (5.16) does so for number 0 only: read by name it is asked once per file, 28 times,
# read in this order once. Elsewhere any first file does. These are the names where netlink cannot be asked.
_NUMBER_0 = ("rx_write_requests", "vport_rx_write_requests")


class Where(NamedTuple):
    """Whose counters, and in which directory of sysfs: what the names mean depends on it."""

    owner: Owner
    directory: str  # counters, hw_counters


class Group(Protocol):
    """Counters in an order that stays. *values* are those last read, None for what could not be; *holes* are their places."""

    where: Where
    names: tuple[str, ...]
    values: Sequence[int | None]
    holes: tuple[int, ...]

    @property
    def descriptors(self) -> Sequence[int]:
        """Files that may be read in its place, in one sweep with those of other groups; empty if it has to read itself."""

    @property
    def due(self) -> float:
        """Monotonic time before which read() does nothing."""

    def read(self) -> None:
        """Read what is due in this cycle."""

    def problems(self) -> Iterator[Unavailable]:
        """Why values are missing."""

    def gone(self) -> bool:
        """Whether the device has been removed; the group is of no use any more."""

    def close(self) -> None: ...


class FileGroup:
    """Files of one directory. With *interval* (s) they are read at that pace, and keep their values in between.

    They are counters: a value of half a minute ago is what the counter was then, and rates over longer spans stay right.
    """

    def __init__(self, where: Where, path: str, names: Sequence[str], budget: Budget, interval: float = 0) -> None:
        self.where = where
        self.names = tuple(names)
        self.values: Sequence[int | None] = ()
        self.holes: tuple[int, ...] = ()
        self._path = path
        self._interval = interval
        self.due = float("-inf")
        self._backoff = Backoff()
        self._files = CounterFiles([f"{path}/{name}" for name in names], budget)

    @property
    def descriptors(self) -> Sequence[int]:
        return () if self._interval else self._files.descriptors

    def read(self) -> None:
        if self._interval:
            now = time.monotonic()
            if now < self.due:
                return
            self.due = now + self._interval
        if self._files.failures:
            self._read_again()
        else:
            self.values = self._files.read()
            if self._files.failures:
                self._backoff.failed()
        self.holes = tuple(self._files.failures)

    def _read_again(self) -> None:
        """With files that have failed: when they are due, one of each kind tells whether to ask the others.

        Each may be a line in the kernel's log. The one that fails again goes to the end of the line.
        """
        failures = self._files.failures
        due = self._backoff.due()
        probes = {failure.reason: place for place, failure in reversed(failures.items())} if due else {}
        self._files.retry(probes.values())
        self.values = self._files.read()
        if due and failures and any(place not in failures for place in probes.values()):
            self._files.retry()
            self.values = self._files.read()
        if due:
            self._backoff.failed() if failures else self._backoff.succeeded()

    def problems(self) -> Iterator[Unavailable]:
        """One for each reason: a port that refuses all its counters is one problem."""
        by_reason: dict[Reason, list[Unavailable]] = {}
        for failure in self._files.failures.values():
            by_reason.setdefault(failure.reason, []).append(failure)
        for reason, failures in by_reason.items():
            first = failures[0]
            if len(failures) == 1:
                yield first
            else:
                yield Unavailable(reason, self._path, f"{len(failures)} of {len(self.names)} counters: {first.detail}", first.needs)

    def gone(self) -> bool:
        return self._files.gone()

    def close(self) -> None:
        self._files.close()


class NetlinkGroup:
    """Hardware counters of a port in one message: where sysfs has none, and where optional counters are enabled."""

    def __init__(self, where: Where, nldev: Nldev, number: int) -> None:
        """Raises Unavailable; UNSUPPORTED if they do not fit into one message."""
        self.where = where
        self._nldev = nldev
        self._number = number
        self._backoff = Backoff()
        self._problem: Unavailable | None = None
        self.names, values = nldev.counters(number, where.owner.number)
        self.values: Sequence[int | None] = values
        self.holes: tuple[int, ...] = ()
        self.descriptors = ()
        self.due = float("-inf")

    def read(self) -> None:
        if self._problem and not self._backoff.due():
            return
        try:
            self.names, self.values = self._nldev.counters(self._number, self.where.owner.number)
        except Unavailable as error:
            self._problem = error
            self._backoff.failed()
            self.values = [None] * len(self.names)
            self.holes = tuple(range(len(self.names)))
        else:
            self._problem = None
            self.holes = ()
            self._backoff.succeeded()

    def problems(self) -> Iterator[Unavailable]:
        if self._problem:
            yield self._problem

    def gone(self) -> bool:
        """A removed device is refused like one that never was (EINVAL), and this one has answered before."""
        return self._problem is not None and self._problem.reason in (Reason.UNSUPPORTED, Reason.GONE)

    def close(self) -> None:
        """The socket is not ours."""


def groups(
    fs: HostFS, settings: Rdma, device: Device, nldev: Nldev | None, budget: Budget, problem: Callable[[Unavailable], None]
) -> list[Group]:
    """All counters of a device: of its ports, and of itself (EFA, hfi1, mlx4, mlx5 in switchdev mode)."""
    found: list[Group] = []
    once = infiniband.ports_show_the_function(fs, device.record)
    for place, port in enumerate(device.ports):
        path = infiniband.port_path(fs, *port.owner)
        if not (once and place):
            found += _files(fs, settings, Where(port.owner, "counters"), path, budget, problem)
        found += _hardware(fs, settings, device, Where(port.owner, "hw_counters"), path, nldev, budget, problem)
    found += _files(fs, settings, Where(device.owner, "hw_counters"), fs.sys("class/infiniband", device.name), budget, problem)
    return found


def _hardware(
    fs: HostFS, settings: Rdma, device: Device, where: Where, path: str, nldev: Nldev | None, budget: Budget,
    problem: Callable[[Unavailable], None],
) -> list[Group]:  # fmt: skip
    """Files cost a sixth of a netlink request (kept descriptors, measured), so that is for what files do not have."""
    if nldev is None or device.number is None:
        return _files(fs, settings, where, path, budget, problem)
    status = _status(nldev, device.number, where.owner.number)
    files = _files(fs, settings, where, path, budget, problem, [counter.name for counter in status if counter.number == 0])
    if files and not any(counter.enabled for counter in status):  # sysfs shows no optional counter
        return files
    try:
        group = NetlinkGroup(where, nldev, device.number)
    except Unavailable as error:
        if error.reason is not Reason.UNSUPPORTED:
            problem(error)
        return files
    for each in files:
        each.close()
    return [group]


def _status(nldev: Nldev, number: int, port: int) -> Sequence[CounterStatus]:
    try:
        return nldev.counter_status(number, port)
    except Unavailable:  # before 5.16
        return ()


def _files(
    fs: HostFS, settings: Rdma, where: Where, parent: str, budget: Budget, problem: Callable[[Unavailable], None],
    first: Collection[str] = (),
) -> list[Group]:  # fmt: skip
    """*first* is counter number 0, where netlink tells."""
    path = f"{parent}/{where.directory}"
    try:
        names = infiniband.listed(fs, path)
    except Unavailable as error:
        problem(error)
        return []
    slow = {name for name in names if any(fnmatchcase(f"{where.directory}/{name}", pattern) for pattern in settings.slow_counters)}
    fast = sorted(set(names) - slow, key=lambda name: (name not in (first or _NUMBER_0), name))
    paces = ((fast, 0.0), (sorted(slow), float(settings.slow_interval)))
    return [FileGroup(where, path, members, budget, interval) for members, interval in paces if members]
