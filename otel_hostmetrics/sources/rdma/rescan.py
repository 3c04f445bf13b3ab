"""When to look for devices again, and whom to ask about them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import infiniband, nldev, nldev_records
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.netlink import Notifications
from otel_hostmetrics.settings import Rdma

_RUNNING_KERNEL = HostFS()


class Rescan:
    """Signs of change: the kernel's notifications (6.12), another listing, a timer. ENODEV is seen where counters are read."""

    def __init__(self, fs: HostFS, settings: Rdma) -> None:
        self._fs = fs
        self._settings = settings
        self._nldev: nldev.Nldev | None = None
        self._notifications: Notifications | None = None
        self._names: list[str] = []
        self._next = float("-inf")

    def wanted(self) -> bool:
        """Whether to look again now."""
        announced = self._notifications is not None and self._notifications.changed()
        return announced or time.monotonic() >= self._next or self._listing() != self._names

    def done(self) -> None:
        """Devices have just been looked for."""
        self._names = self._listing()
        self._next = time.monotonic() + self._settings.rescan_interval

    def netlink(self) -> tuple[nldev.Nldev | None, Mapping[str, nldev_records.Device]]:
        """The conversation with the kernel, and its devices by name; None where there is nobody to ask.

        Opening the socket makes the kernel load ib_core, so that is done only on a kernel that has devices - the running
        one: *fs* may be a recording.
        """
        if not self._settings.netlink:
            return None, {}
        try:
            if self._nldev is None:
                if not infiniband.devices(_RUNNING_KERNEL):
                    return None, {}
                self._nldev = nldev.connect()
                self._notifications = self._subscribe()
            return self._nldev, {device.name: device for device in self._nldev.devices() if device.name}
        except Unavailable:  # no RDMA in this kernel, or no netlink: everything there is comes from sysfs
            return self._nldev, {}

    def _subscribe(self) -> Notifications | None:
        try:
            return nldev.notifications()
        except Unavailable:  # the other signs will do
            return None

    def _listing(self) -> list[str]:
        try:
            return infiniband.devices(self._fs)
        except Unavailable:
            return []

    def close(self) -> None:
        for each in (self._nldev, self._notifications):
            if each:
                each.close()
        self._nldev = self._notifications = None
