"""Interoperability: rotel, an OTLP collector in Rust that shares no code with us, understands what we push."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.bpfload import Loader

pytestmark = [pytest.mark.system, pytest.mark.live]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def rotel(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A running rotel: (its OTLP gRPC port, what it prints of every request)."""
    found = importlib.util.find_spec("rotel")
    if found is None or found.origin is None:
        if os.environ.get("CI"):
            pytest.fail("rotel is not installed")
        pytest.skip("rotel is not installed: it has wheels for x86-64 Linux only")
    port, log = _free_port(), tmp_path / "rotel.log"
    command = [
        str(Path(found.origin).parent / "rotel-agent"), "start", "--otlp-grpc-endpoint", f"127.0.0.1:{port}",
        "--otlp-http-endpoint", f"127.0.0.1:{_free_port()}", "--exporter", "blackhole",
        "--debug-log", "metrics", "--debug-log-verbosity", "detailed",
    ]  # fmt: skip
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        yield port, log
        process.terminate()


def _received(log: Path) -> str:
    return _COLOURS.sub("", log.read_text(errors="replace"))


def test_rotel_receives_every_loaded_program_map_and_link(rotel: tuple[int, Path]) -> None:
    port, log = rotel
    with Loader() as loader:
        loader.bulk(5, 5, 2)
        wanted = {"bpf_program_info": loader.ids["program"], "bpf_map_info": loader.ids["map"], "bpf_link_info": loader.ids["link"]}
        command = [sys.executable, "-m", "otel_hostmetrics", "--otlp-grpc", f"localhost:{port}", "--interval", "1s"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as agent:
            deadline = time.monotonic() + 20
            while "otel_hostmetrics.export.requests" not in _received(log) and time.monotonic() < deadline:
                time.sleep(0.2)
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(5) == 0
    received = _received(log)
    assert "service.name: Str(otel-hostmetrics)" in received
    for name, ids in wanted.items():
        block = received.partition(f"Name: {name}\n")[2].partition("Descriptor:")[0]
        assert ids
        assert {str(each) for each in ids} <= set(re.findall(r"-> id: Str\((\d+)\)", block)), name
    counter = received.partition("Name: bpf_program_mem_bytes\n")[2].partition("Data point attributes")[0]
    assert "IsMonotonic: true" in counter
    assert "AGGREGATION_TEMPORALITY_CUMULATIVE" in counter
