"""A page of what needs RDMA netlink and ethtool, which an agent over a recorded tree cannot ask: the source over recorded answers.

The answers are the machine's of tests/hosts/rdma-machine; beside them a counter set of queue pairs, and statistics with the
names of mlx5, which no virtual interface has.
"""

from __future__ import annotations

import http.server
import re
import struct
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Self

from otel_hostmetrics.export.prometheus.text import Format, Page
from otel_hostmetrics.kernel.ethtool import Ethtool, Statistics
from otel_hostmetrics.kernel.netlink import attribute
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.settings import Rdma
from otel_hostmetrics.sources.rdma.congestion import Netdev, _Statistics
from otel_hostmetrics.sources.rdma.devices import Owner, discover
from otel_hostmetrics.sources.rdma.resources import Resources
from otel_hostmetrics.sources.rdma.table import Tables
from tests.export.prometheus.batches import batch
from tests.hosts.recorded import unpack
from tests.kernel.nldev_recording import NUMBER, encode, recorded

_RXE1 = 1  # its number in the recording
_DUMP, _STAT_GET = 0x300, 17
_STATISTICS = {
    "rx_prio3_pause": 7, "tx_prio3_pause": 5, "rx_prio3_pause_duration": 900, "tx_global_pause_duration": 40, "rx_prio3_cong_discard": 2,
    "outbound_pci_stalled_rd": 1, "outbound_pci_stalled_wr": 0, "rx_crc_errors_phy": 3, "rx_symbol_err_phy": 2, "link_down_events_phy": 1,
}  # fmt: skip


class _Driver(Statistics):
    """Statistics that a driver of our own has."""

    def __init__(self, allow: Callable[[str], bool]) -> None:
        self.names = tuple(filter(allow, _STATISTICS))

    def read(self) -> list[int]:
        return [_STATISTICS[name] for name in self.names]


class _Ethtool(Ethtool):
    def statistics(self, name: str, allow: Callable[[str], bool]) -> Statistics:
        return _Driver(allow)


def page(folder: Path) -> bytes:
    """In Prometheus' text format; *folder* is for a tree of files."""
    recording = recorded()
    known = {device.name: device for device in Nldev(recording).devices() if device.name}
    fs = unpack("rdma-rxe", folder)
    (folder / "sys/class/infiniband/rxe1/node_guid").write_text(f"{known['rxe1'].node_guid}\n")
    counters = [{"STAT_HWCOUNTER_ENTRY_NAME": "out_of_sequence", "STAT_HWCOUNTER_ENTRY_VALUE": 5}]
    entry = {"STAT_COUNTER_ID": 7, "PORT_INDEX": 1, "STAT_MODE": 1, "RES_TYPE": 2, "RES_PID": 4711, "STAT_HWCOUNTERS": counters}
    asked = {"DEV_INDEX": _RXE1, "PORT_INDEX": 1, "STAT_RES": NUMBER["RES_QP"]}
    where = b"".join(attribute(NUMBER[name], struct.pack("=I", value)) for name, value in asked.items())
    recording.put(5 << 10 | _STAT_GET, _DUMP, where, encode({"DEV_INDEX": _RXE1, "PORT_INDEX": 1, "STAT_COUNTER": [entry]}))
    devices = discover(fs, Rdma(devices=("rxe1",)), known).devices
    tables = Tables()
    with _Ethtool() as ethtool:
        tables.fill(_Statistics(Netdev(Owner("mlx5_0", 1), "ens1")).points(ethtool, re.compile(".*")))
    resources = Resources(fs, Rdma(qps=True), devices, Nldev(recording))
    return Page({}).render(batch(*resources.columns(), *tables.columns()), Format.TEXT)


class Served:
    """Answers every request with *page*."""

    def __init__(self, page: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                """Nowhere."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="recorded-rdma", daemon=True)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
