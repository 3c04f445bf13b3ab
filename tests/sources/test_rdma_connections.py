"""Messages of the connection manager, on the recorded soft-RoCE machine."""

from __future__ import annotations

from pathlib import Path

from otel_hostmetrics.errors import Reason
from otel_hostmetrics.settings import Seconds
from tests.hosts.recorded import unpack
from tests.sources.rdma_host import opened, port, values


def test_each_file_is_a_point(tmp_path: Path) -> None:
    unpack("rdma-rxe", tmp_path)
    with opened(tmp_path) as source:
        reading = source.read()
    directory = port(tmp_path, "rxe0")
    for metric, name, way in (
        ("rdma.cm.messages", "cm_tx_msgs", "transmit"), ("rdma.cm.messages", "cm_rx_msgs", "receive"),
        ("rdma.cm.retries", "cm_tx_retries", ""), ("rdma.cm.duplicates", "cm_rx_duplicates", ""),
    ):  # fmt: skip
        found = {key[-3]: value for key, value in values(reading, metric).items() if "rxe0" in key and (not way or way in key)}
        assert found == {file.name: int(file.read_text()) for file in (directory / name).iterdir()}
        assert len(found) == 11
    assert sum(values(reading, "rdma.cm.messages").values()) > 0


def test_they_are_not_among_the_seeds_counters(tmp_path: Path) -> None:
    """These are of counters/ and hw_counters/ only."""
    unpack("rdma-rxe", tmp_path)
    with opened(tmp_path) as source:
        assert not any("sidr_req" in key for key in values(source.read(), "rdma_port_stat"))


def test_files_that_cannot_be_read_are_one_problem(tmp_path: Path) -> None:
    unpack("rdma-rxe", tmp_path)
    for file in (port(tmp_path, "rxe0") / "cm_tx_msgs").iterdir():
        file.write_text("N/A\n")
    with opened(tmp_path, devices=("rxe0",)) as source:
        reading = source.read()
    assert [problem.reason for problem in reading.problems] == [Reason.MALFORMED]
    assert len(values(reading, "rdma.cm.messages")) == 11


def test_they_have_the_pace_of_slow_counters(tmp_path: Path) -> None:
    unpack("rdma-rxe", tmp_path)
    with opened(tmp_path, slow_interval=Seconds(3600)) as source:
        before = values(source.read(), "rdma.cm.messages")
        for file in (port(tmp_path, "rxe0") / "cm_tx_msgs").iterdir():
            file.write_text("123456\n")
        assert values(source.read(), "rdma.cm.messages") == before


def test_a_host_without_them_has_none(tmp_path: Path) -> None:
    unpack("rdma-mlx5-ib", tmp_path)
    with opened(tmp_path) as source:
        reading = source.read()
    assert values(reading, "rdma.cm.messages") == {}
    assert reading.problems == []
