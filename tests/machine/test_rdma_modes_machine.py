"""Turning counters on by ``otel-hostmetrics rdma``: what it says, and what ``rdma`` of iproute2 says afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machine.conftest import Chapter

Record = dict[str, Any]
_COUNTERS = ("cc_rx_ce_pkts", "cc_rx_cnp_pkts", "cc_tx_cnp_pkts")


@pytest.fixture(scope="module")
def modes(chapter: Chapter) -> Record:
    return chapter("rdma")["modes"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("asked", "said", "theirs"),
    [
        ("show", "queue pairs not counted", "qp auto off"),
        ("auto", "queue pairs counted by type,pid", "qp auto type,pid on"),
        ("auto by type", "queue pairs counted by type", "qp auto type on"),
        ("off", "queue pairs not counted", "qp auto off"),
        ("off again", "queue pairs not counted", "qp auto off"),
    ],
)
def test_the_mode_of_counter_sets(modes: Record, asked: str, said: str, theirs: str) -> None:
    answer = modes[asked]
    assert (answer["status"], answer["error"]) == (0, "")
    assert answer["output"].startswith(f"rxe0/1: {said}; optional counters: none")
    assert len(answer["output"].splitlines()) == 1
    assert [(row["ifname"], row["port"], row["mode"]) for row in answer["mode"]] == [("rxe0", 1, theirs)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("optional", ["cc_rx_ce_pkts", "cc_rx_cnp_pkts"]), ("one optional", ["cc_rx_cnp_pkts"]), ("no optional", [])],
)
def test_optional_counters_are_those_that_were_named(modes: Record, asked: str, expected: list[str]) -> None:
    answer = modes[asked]
    assert (answer["status"], answer["error"]) == (0, "")
    listed = ", ".join(f"{name} {'on' if name in expected else 'off'}" for name in _COUNTERS)
    assert answer["output"] == f"optional0/1: queue pairs not counted; optional counters: {listed}\n"
    assert [name for row in answer["optional"] for name in row["optional-counters"]] == expected


def test_without_the_right_to_it_nothing_changes(modes: Record) -> None:
    """One line with the cure, the exit status of a denial, and the mode of before."""
    answer = modes["auto as nobody"]
    assert (answer["status"], answer["output"]) == (77, "")
    assert answer["error"].splitlines() == [
        "otel-hostmetrics: RDMA counter mode: denied: Operation not permitted; it takes CAP_NET_ADMIN: run it as root"
    ]
    assert [row["mode"] for row in answer["mode"]] == ["qp auto type on"]


@pytest.mark.parametrize(("asked", "why"), [("unknown", "has no optional counter 'nonesuch'"), ("no port", "no RDMA port 'rxe0/9'")])
def test_what_there_is_not_is_wrong_usage(modes: Record, asked: str, why: str) -> None:
    assert modes[asked]["status"] == 2
    assert why in modes[asked]["error"]
