"""What the RDMA source says on a real kernel, compared with its files and with ``rdma`` of iproute2."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

import pytest

from tests.machine.conftest import Chapter
from tests.machine.page import by, parse
from tests.machine.rdma_stats import exported, in_files, in_tool, of

Record = dict[str, Any]
_DEVICE, _PORT = "rdma_device_name", "rdma_port_number"


@pytest.fixture(scope="module")
def record(chapter: Chapter) -> Record:
    return chapter("rdma")  # type: ignore[no-any-return]


def test_every_counter_equals_its_file(record: Record) -> None:
    """All of them and nothing else: soft-RoCE and InfiniBand, of ports and of the device, and no setting among them."""
    quiet = record["quiet"]
    assert quiet["before"] == quiet["after"]
    expected = in_files(quiet["before"])
    assert {len(of(expected, device)) for device in ("rxe0", "rxe1")} == {15}
    assert len(of(expected, "fakeib0")) == 2 * (21 + 28) + 2
    assert exported(parse(quiet["page"])) == expected


def test_counters_equal_what_the_rdma_tool_says(record: Record) -> None:
    ours = exported(parse(record["quiet"]["page"]))
    theirs = in_tool(record["quiet"]["statistic"])
    assert len(theirs) == 2 * 15 + 2 * 28
    assert {key: ours.get(key) for key in theirs} == theirs


def test_counters_under_traffic_are_of_that_moment(record: Record) -> None:
    before, after = (in_files(record["traffic"][moment]) for moment in ("before", "after"))
    now = exported(parse(record["traffic"]["page"]))
    assert before.keys() == now.keys() == after.keys()
    assert [key for key in now if not before[key] <= now[key] <= after[key]] == []
    assert before["rxe0", "1", "sent_pkts"] < now["rxe0", "1", "sent_pkts"] < after["rxe0", "1", "sent_pkts"]


def test_the_source_says_that_it_is_up(record: Record) -> None:
    page = parse(record["quiet"]["page"])
    assert by(page, "rdma_up") == {(): "1"}
    assert 0 < float(by(page, "rdma_scrape_duration_seconds")[()]) < 10


def test_bytes_are_four_times_the_words(record: Record) -> None:
    """Up to the largest values that fit an OTLP integer."""
    files, page = record["full"]["files"], parse(record["full"]["page"])
    for direction, name in (("transmit", "port_xmit_data"), ("receive", "port_rcv_data")):
        words = int(files[f"full0/ports/1/counters/{name}"])
        assert words > 1 << 59
        found = by(page, "hw_network_io_bytes_total", rdma_device_name="full0", rdma_port_number="1", network_io_direction=direction)
        assert list(found.values()) == [str(4 * words)]


def test_large_counters_are_exact_and_full_ones_are_marked(record: Record) -> None:
    files, page = record["full"]["files"], parse(record["full"]["page"])
    assert exported(page) == in_files(files)
    assert int(files["full0/ports/1/counters/port_xmit_data"]) > 1 << 53  # more than a float holds exactly
    full = dict.fromkeys(("symbol_error", "port_rcv_errors", "port_xmit_discards"), 2**16 - 1)
    full |= {"link_error_recovery": 2**8 - 1, "port_xmit_wait": 2**32 - 1}
    marked = by(page, "rdma_stat_saturated", "rdma_stat_name", rdma_device_name="full0", rdma_port_number="1")
    assert {name for (name,), value in marked.items() if value == "1"} == full.keys()
    assert {name: int(files[f"full0/ports/1/counters/{name}"]) for name in full} == full


@pytest.mark.parametrize(
    ("metric", "file"), [("state", "state"), ("physical_state", "phys_state"), ("lid", "lid"), ("sm_lid", "sm_lid"), ("lanes", "rate")]
)
def test_ports_equal_their_files(record: Record, metric: str, file: str) -> None:
    """LIDs are of InfiniBand only."""
    ports, page = record["quiet"]["ports"], parse(record["quiet"]["page"])
    expected = {}
    for name, content in ports.items():
        device, _, port, last = PurePosixPath(name).parts
        if last == file and ("lid" not in file or ports[f"{device}/ports/{port}/link_layer"] == "InfiniBand"):
            expected[device, port] = _number(content)
    assert len(expected) in (2, 4)
    assert {key: int(value) for key, value in by(page, f"rdma_port_{metric}", _DEVICE, _PORT).items()} == expected


def _number(content: str) -> int:
    """Of ``4: ACTIVE``, ``0x11`` and ``400 Gb/sec (4X NDR)``."""
    lanes = re.search(r"\((\d+)X ", content)
    return int(lanes[1] if lanes else content.split(":", maxsplit=1)[0], 0)


@pytest.mark.parametrize("moment", ["traffic", "quiet"])
def test_resources_equal_the_summary_of_the_rdma_tool(record: Record, moment: str) -> None:
    rows = record[moment]["summary"]
    theirs = {(row["ifname"], kind): str(count) for row in rows for kind, count in row.items() if not kind.startswith("if")}
    assert by(parse(record[moment]["page"]), "rdma_resources", _DEVICE, "rdma_resource_type") == theirs


def test_resources_are_of_the_processes_that_hold_them(record: Record) -> None:
    pids, resources = record["traffic"]["pids"], record["traffic"]["resources"]
    found = by(parse(record["traffic"]["page"]), "rdma_process_resources", _DEVICE, "rdma_resource_type", "process_pid")
    ours = {key: int(count) for key, count in found.items() if key[-1]}  # the others are of kernel modules
    owned = [(kind, row) for kind in resources.keys() - {"qp"} for row in resources[kind] if "pid" in row]
    assert ours == Counter((row["ifname"], kind, str(row["pid"])) for kind, row in owned)
    for role, kinds in {"rxe0": {"mr", "cq", "pd", "ctx"}, "rxe1": {"mr", "cq", "pd", "ctx"}, "listener": {"cm_id"}}.items():
        assert kinds <= {kind for _, kind, pid in ours if pid == str(pids[role])}


def test_registered_memory_is_that_of_the_process(record: Record) -> None:
    traffic = record["traffic"]
    theirs: Counter[tuple[str, ...]] = Counter()
    for row in traffic["resources"]["mr"]:
        theirs[row["ifname"], str(row["pid"])] += row["mrlen"]
    ours = by(parse(traffic["page"]), "rdma_process_memory_registered_bytes", _DEVICE, "process_pid")
    assert {key: int(value) for key, value in ours.items()} == theirs
    assert set(theirs) == {(device, str(traffic["pids"][device])) for device in ("rxe0", "rxe1")}


def test_queue_pairs_have_their_type_state_and_process(record: Record) -> None:
    traffic = record["traffic"]
    labels = (_DEVICE, "rdma_qp_type", "rdma_qp_state", "process_pid")
    ours = by(parse(traffic["page"]), "rdma_process_queue_pairs", *labels)
    theirs = Counter((row["ifname"], row["type"], row["state"], str(row.get("pid", ""))) for row in traffic["resources"]["qp"])
    assert {tuple(each.lower() for each in key): int(value) for key, value in ours.items()} == {
        tuple(each.lower() for each in key): count for key, count in theirs.items()
    }
    assert sum(row.get("pid") in traffic["pids"].values() for row in traffic["resources"]["qp"]) == 2


def test_resources_go_with_their_process(record: Record) -> None:
    assert not by(parse(record["quiet"]["page"]), "rdma_process_resources", process_pid=str(record["traffic"]["pids"]["rxe0"]))


def test_messages_of_the_connection_manager_equal_their_files(record: Record) -> None:
    """Of every port; a connection has been made and ended on rxe1."""
    names = {"cm_tx_msgs": "messages", "cm_rx_msgs": "messages", "cm_tx_retries": "retries", "cm_rx_duplicates": "duplicates"}
    expected: dict[tuple[str, ...], str] = {}
    for name, content in record["quiet"]["connections"].items():
        device, _, port, directory, message = PurePosixPath(name).parts
        way = {"cm_tx_msgs": "transmit", "cm_rx_msgs": "receive"}.get(directory, "")
        expected[names[directory], device, port, message, way] = content
    page = parse(record["quiet"]["page"])
    labels = (_DEVICE, _PORT, "rdma_cm_message", "network_io_direction")
    ours = {(name, *key): value for name in set(names.values()) for key, value in by(page, f"rdma_cm_{name}_total", *labels).items()}
    assert ours == expected
    assert all(int(ours["messages", "rxe1", "1", message, way]) for message in ("req", "rtu", "dreq") for way in ("transmit", "receive"))
