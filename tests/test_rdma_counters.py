"""``otel-hostmetrics rdma``: its words over recorded answers, and as a command on this host. tests/machine sets something."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.rdma_counters import Port, state
from tests.kernel.nldev_recording import NUMBER, Recording, encode

PORT = Port(2, 1, "fakeib0/1")
WHERE = {"DEV_INDEX": 2, "PORT_INDEX": 1}
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | {"COLUMNS": "200"}


def says(mode: dict[str, object], counters: dict[str, int | None] | None) -> Nldev:
    """A port with a mode, and counters: 0 or 1 for an optional one. None: a kernel that does not tell."""
    recording = Recording()
    recording.answer(17, 0, {**WHERE, "STAT_RES": NUMBER["RES_QP"], "STAT_MODE": 0}, encode({**WHERE, **mode}))
    entries = [
        {"STAT_HWCOUNTER_ENTRY_NAME": name, "STAT_HWCOUNTER_INDEX": number}
        | ({} if enabled is None else {"STAT_HWCOUNTER_DYNAMIC": enabled})
        for number, (name, enabled) in enumerate((counters or {}).items())
    ]
    refused = b"" if counters is not None else bytes.fromhex("14000000020000000100000000000000eaffffff")  # EINVAL
    if refused:
        recording.answers[5 << 10 | 24, 0, encode(WHERE)] = [refused]
    else:
        recording.answer(24, 0, WHERE, encode({**WHERE, "STAT_HWCOUNTERS": entries}))
    return Nldev(recording)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ({"STAT_MODE": 0}, "queue pairs not counted"),
        ({"STAT_MODE": 1, "STAT_AUTO_MODE_MASK": 1}, "queue pairs counted by type"),
        ({"STAT_MODE": 1, "STAT_AUTO_MODE_MASK": 3}, "queue pairs counted by type,pid"),
        ({"STAT_MODE": 2}, "queue pairs counted where bound by hand"),
    ],
)
def test_how_queue_pairs_are_counted(mode: dict[str, object], words: str) -> None:
    assert state(says(mode, {}), PORT) == f"{words}; optional counters: none"


def test_which_optional_counters_there_are() -> None:
    nldev = says({"STAT_MODE": 0}, {"out_of_buffer": None, "cc_rx_ce_pkts": 1, "cc_rx_cnp_pkts": 0})
    assert state(nldev, PORT).endswith("optional counters: cc_rx_ce_pkts on, cc_rx_cnp_pkts off")


def test_a_kernel_that_knows_no_optional_counters() -> None:
    assert state(says({"STAT_MODE": 0}, None), PORT) == "queue pairs not counted; optional counters: none"


def rdma(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otel_hostmetrics", "rdma", *arguments]
    return subprocess.run(command, env=CLEAN, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.skipif(any(Path("/sys/class").glob("infiniband/*")), reason="this host has RDMA devices, of which nothing may be set")
@pytest.mark.parametrize("arguments", [("show",), ("auto", "mlx5_0"), ("off", "mlx5_0/1"), ("optional", "mlx5_0/1", "cc_rx_ce_pkts")])
def test_a_host_without_rdma_is_left_without(arguments: tuple[str, ...]) -> None:
    """One line, and no module is loaded by asking."""
    done = rdma(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("otel-hostmetrics: /sys/class/infiniband: absent: no RDMA device; load the driver")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("auto",), ("auto", "mlx5_0", "--by", "process"), ("auto", "mlx5_0", "--by", ""), ("on", "mlx5_0")])
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert rdma(*arguments).returncode == 2
