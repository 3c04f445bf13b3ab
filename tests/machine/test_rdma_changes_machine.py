"""The RDMA source when devices go, come, refuse and hide; and what it costs their driver."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.machine.conftest import Chapter
from tests.machine.machine import Finished
from tests.machine.page import by, parse
from tests.machine.rdma_stats import exported, in_files, in_tool, of

Record = dict[str, Any]


@pytest.fixture(scope="module")
def record(chapter: Chapter) -> Record:
    return chapter("rdma")  # type: ignore[no-any-return]


def test_a_deleted_device_is_gone_at_once_and_alone(record: Record) -> None:
    page = parse(record["deleted"]["page"])
    assert [name for name, samples in page.items() for labels in samples if ("rxe0" in dict(labels).values())] == []
    assert {key[0] for key in exported(page)} == {"rxe1", "fakeib0"}
    assert by(page, "rdma_up") == {(): "1"}


def test_a_device_that_comes_back_is_read_anew(record: Record) -> None:
    added = record["added"]
    assert added["seconds"] < 5
    ours = of(exported(parse(added["page"])), "rxe0")
    assert ours == of(in_files(added["files"]), "rxe0")
    assert ours["rxe0", "1", "rdma_sends"] == 0


def test_a_device_that_comes_and_goes_leaves_no_descriptor_open(record: Record) -> None:
    before, after = record["added"]["descriptors"]
    assert after == before


def test_in_a_namespace_that_hides_counters_netlink_tells_them(record: Record) -> None:
    """What sysfs does not show there at all, and netlink does not know, is absent: counters/ and those of devices."""
    namespace = record["namespace"]
    assert "state" in namespace["folders"]
    assert not {"counters", "hw_counters"} & set(namespace["folders"])
    page = parse(namespace["page"])
    expected = {key: value for key, value in in_files(namespace["files"], "hw_counters").items() if key[1] != "0"}
    assert exported(page) == expected
    assert len(by(page, "rdma_port_state", "rdma_device_name", "rdma_port_number")) == 4
    assert by(page, "rdma_up") == {(): "1"}


def test_a_device_with_more_counters_than_a_message_holds(record: Record) -> None:
    large = record["large"]
    assert of(exported(parse(large["gone"])), "full0") == {}
    ours = of(exported(parse(large["page"])), "large0")
    assert ours == of(in_files(large["files"]), "large0")
    assert len(ours) == 100 + 2


def test_an_optional_counter_that_was_enabled_is_read(record: Record) -> None:
    """No file shows it."""
    optional = record["optional"]
    page = parse(optional["page"])
    counter = ("optional0", "1", "cc_rx_ce_pkts")
    assert of(exported(page), "optional0") == of({**in_files(optional["files"]), counter: 1000 + 1000 + 28}, "optional0")
    assert in_tool(optional["statistic"])[counter] == 2028
    enabled = by(page, "rdma_stat_enabled", "rdma_port_number", "rdma_stat_name", rdma_device_name="optional0")
    assert len(enabled) == 2 * 3
    assert [key for key, value in enabled.items() if value == "1"] == [("1", "cc_rx_ce_pkts")]


def test_a_refused_counter_is_absent_and_costs_only_itself(record: Record) -> None:
    refused = record["refused"]
    assert {content for name, content in refused["files"].items() if "/counters/" in name} == {"EINVAL"}
    page = parse(refused["page"])
    assert of(exported(page), "refuses0") == of(in_files(refused["files"]), "refuses0")
    assert by(page, "rdma_up") == {(): "1"}
    both = exported(parse(refused["both"]))
    assert of(both, "refuses0") == {}
    assert of(both, "rxe1")


def test_what_refuses_is_not_asked_at_every_cycle(record: Record) -> None:
    """Five cycles of 2 x 21 files would be 210 calls, each of which the real drivers write to the kernel's log."""
    assert record["refused"]["asked"] < 21


@pytest.mark.parametrize("driver", ["mlx5", "other"])
def test_the_driver_is_asked_as_little_as_possible(record: Record, driver: str) -> None:
    """Of 2 ports and the device: hw_counters once each, a port's state once, and of counters/ the 10 files that change often.

    The least of some cycles: on a machine this slow the kernel may forget between two files what it has just read.
    """
    least = {name: min(cycle[name] for cycle in record["cost"][driver]) for name in record["cost"][driver][0]}
    assert least == {"hw_reads": 3, "port_queries": 2, "pma_reads": 2 * 10}


def test_the_agent_and_the_kernel_came_through_it_well(record: Record, machine: Finished) -> None:
    assert record["status"] == 0
    log = (machine.folder / "rdma-agent.log").read_text(encoding="utf-8")
    assert "level=error" not in log
    assert "Traceback" not in log
    assert not re.search("BUG:|WARNING:|Call Trace|Oops", (machine.folder / "dmesg").read_text(encoding="utf-8"))
