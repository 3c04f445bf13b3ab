"""RDMA: InfiniBand, RoCE, iWARP and EFA devices, their counters and links, and who uses them.

A cycle first reads all counters (counters.py over groups.py), close together in time; then the state of the links
(link.py), what the network interfaces of RoCE ports count (congestion.py) and who holds what (resources.py). Facts, and
what changes rarely, have their own pace. Devices that come and go are found by the kernel's notifications, by a listing
in each cycle, by ENODEV and by a timer (rescan.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from otel_hostmetrics.catalogue import rdma as rows
from otel_hostmetrics.catalogue.model import Metric
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.rdma.listing import listing

if TYPE_CHECKING:
    from otel_hostmetrics.sources.rdma.present import Present


class Rdma:
    """Loads the rest of this package with the first device: 2.6 MB resident that most hosts do not need."""

    name: ClassVar[str] = "rdma"
    metrics: ClassVar[tuple[Metric, ...]] = rows.ALL
    blocking: ClassVar[bool] = True  # a device in reset holds a reader for seconds

    def __init__(self, fs: HostFS, settings: Settings) -> None:
        self._fs = fs
        self._settings = settings
        self._present: Present | None = None

    def open(self) -> None:
        """Raises Unavailable(ABSENT) without a device, or when none is selected."""
        if self._present is None:
            listing(self._fs)
            from otel_hostmetrics.sources.rdma.present import Present

            self._present = Present(self._fs, self._settings)
        self._present.open()

    def read(self) -> Reading:
        assert self._present is not None  # open() came first
        return self._present.read()

    def close(self) -> None:
        if self._present:
            self._present.close()
