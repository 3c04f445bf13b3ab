"""sd_notify against a real datagram socket."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator

import pytest

from otel_hostmetrics.service import Service


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path) -> Iterator[tuple[socket.socket, str]]:
    """What systemd listens on, and NOTIFY_SOCKET."""
    address = f"{tmp_path}/notify" if request.param == "path" else f"\0otel-hostmetrics-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(2)
        yield sock, address.replace("\0", "@")


def test_every_message_arrives(manager):
    sock, address = manager
    service = Service({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    service.ready("Prometheus on port 1")
    assert sock.recv(4096) == b"READY=1\nSTATUS=Prometheus on port 1"
    before = time.monotonic_ns() // 1000
    service.reloading()
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", sock.recv(4096))
    assert found
    assert before <= int(found[1]) <= time.monotonic_ns() // 1000
    service.alive()
    assert sock.recv(4096) == b"WATCHDOG=1"
    service.stopping()
    assert sock.recv(4096) == b"STOPPING=1"


def test_undecodable_text_is_sent_all_the_same(manager):
    sock, address = manager
    Service({"NOTIFY_SOCKET": address}).ready("snapshots in /tmp/\udcff")
    assert sock.recv(4096) == b"READY=1\nSTATUS=snapshots in /tmp/?"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time_if_it_is_ours(manager, environment, expected):
    sock, address = manager
    service = Service({"NOTIFY_SOCKET": address, **environment})
    assert service.watchdog == expected
    service.alive()
    service.stopping()
    assert sock.recv(4096) == (b"STOPPING=1" if expected is None else b"WATCHDOG=1")


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@nobody-listens", "/" + "x" * 200])
def test_without_a_manager_nothing_happens(address):
    service = Service({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    service.ready("x")
    service.reloading()
    service.alive()
    service.stopping()


def test_a_manager_that_does_not_listen_blocks_for_a_second_at_most(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        sock.bind(f"{tmp_path}/notify")
        flood.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                flood.sendto(b"x", f"{tmp_path}/notify")
        began = time.monotonic()
        Service({"NOTIFY_SOCKET": f"{tmp_path}/notify"}).stopping()
        assert time.monotonic() - began < 1.5
