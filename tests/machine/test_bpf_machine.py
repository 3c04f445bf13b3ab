"""The BPF source on the kernel of Debian 12 (6.1), compared with bpftool, the other engine and what was loaded."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machine.conftest import Chapter
from tests.machine.guest.bpf import RUNS
from tests.machine.machine import Finished
from tests.machine.page import Page, by, parse

Record = dict[str, Any]
_KINDS = {"program": "bpf_program_info", "map": "bpf_map_info", "link": "bpf_link_info"}


@pytest.fixture(scope="module")
def record(chapter: Chapter) -> Record:
    return chapter("bpf")  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def page(record: Record) -> Page:
    return parse(record["page"])


def test_everything_loaded_is_on_the_page_and_later_gone(record: Record, page: Page) -> None:
    after = parse(record["page_after"])
    for kind, metric in _KINDS.items():
        loaded = {(str(number),) for number in record["ids"][kind]}
        assert len(loaded) > 10
        assert loaded <= by(page, metric, "id").keys()
        assert not loaded & by(after, metric, "id").keys()


def test_programs_equal_bpftool(record: Record, page: Page) -> None:
    theirs = {
        (str(row["id"]), row["type"], row["tag"], str(row["gpl_compatible"]).lower(), str(row["uid"]), str(row.get("map_ids", [])))
        for row in record["bpftool"]["prog"]
    }
    assert by(page, "bpf_program_info", "id", "type", "tag", "gpl_compatible", "uid", "map_ids").keys() == theirs


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ("bpf_program_size_translated_bytes_total", "bytes_xlated"),
        ("bpf_program_size_jitted_bytes_total", "bytes_jited"),
        ("bpf_program_mem_bytes_total", "bytes_memlock"),
    ],
)
def test_sizes_of_programs_equal_bpftool(record: Record, page: Page, metric: str, field: str) -> None:
    assert by(page, metric, "id") == {(str(row["id"]),): str(row[field]) for row in record["bpftool"]["prog"]}


def test_full_names_of_programs_are_those_of_bpftool(record: Record, page: Page) -> None:
    theirs = {(str(row["id"]), row.get("name", "")) for row in record["bpftool"]["prog"]}
    ours = by(page, "bpf_program_memory_usage_bytes", "bpf_program_id", "bpf_program_name")
    assert ours.keys() == theirs
    assert any(len(name) > 15 for _, name in ours)


def test_maps_equal_bpftool(record: Record, page: Page) -> None:
    fields = ("id", "type", "bytes_key", "bytes_value", "max_entries", "flags")
    theirs = {tuple(str(row[field]) for field in fields) for row in record["bpftool"]["map"]}
    assert by(page, "bpf_map_info", "id", "type_name", "key_size", "value_size", "max_entries", "flags").keys() == theirs
    memory = {(str(row["id"]),): str(row["bytes_memlock"]) for row in record["bpftool"]["map"]}
    assert by(page, "bpf_map_memory_usage_bytes", "bpf_map_id") == memory


def test_links_equal_bpftool(record: Record, page: Page) -> None:
    theirs = {(str(row["id"]), row["type"], str(row["prog_id"])) for row in record["bpftool"]["link"]}
    assert by(page, "bpf_link_info", "id", "type_name", "prog_id").keys() == theirs


def test_attachments_equal_bpftool(record: Record, page: Page) -> None:
    """bpftool's words for what a link is attached to, where this kernel has any."""
    target, attach = "bpf_target_name", "bpf_attach_type"
    named = {"tp_name": target, "target_name": target, "attach_type": attach, "netns_ino": "bpf_netns_inode"}
    compared = 0
    for row in record["bpftool"]["link"]:
        for theirs, ours in named.items():
            if theirs in row:
                assert by(page, "bpf_link_attachment", ours, bpf_link_id=str(row["id"])).keys() == {(str(row[theirs]),)}
                compared += 1
    assert compared > 10


def test_holders_are_found(record: Record, page: Page) -> None:
    held = by(page, "bpf_object_holder", "bpf_object_id", process_pid=str(record["pid"]), bpf_object_type="program")
    assert {(str(number),) for number in record["ids"]["program"]} == held.keys()


def test_run_counts_are_exact(record: Record, page: Page) -> None:
    assert by(page, "bpf_program_run_count_total", bpf_program_id=str(record["counted"])) == {(): str(RUNS)}


def test_all_iterators_are_in_use(record: Record) -> None:
    """Those of links came with 5.19: from 6.1 on, none falls back."""
    assert set(record["engines"]["iterator"]["facts"]["engines"].values()) == {"iterator"}
    (told,) = record["engines"]["iterator"]["problems"]
    assert told.startswith("BPF objects by iterator: unsupported: memory of maps")


def test_both_engines_say_the_same(record: Record) -> None:
    """Of every object that stays while both read, except what only one knows; and programs go on running."""
    iterator, by_id = (_points(record, engine) for engine in ("iterator", "ids"))
    moving = ("bpf.program.run", "bpf.stats", "bpf.object.holder", "bpf.map.memory", "bpf.programs", "bpf.maps", "bpf.links")
    compared = {name for name in iterator.keys() | by_id.keys() if not name.startswith(moving)}
    assert len(compared) > 15
    for name in compared:
        common = {labels: value for labels, value in iterator[name].items() if labels in by_id[name]}
        assert common == by_id[name]


def _points(record: Record, engine: str) -> dict[str, dict[str, Any]]:
    """Metric -> attributes -> value, without what the engine itself has loaded."""
    points = record["engines"][engine]["points"]
    by_iterator = ("bpf.interface.name", "bpf.netns.inode")  # the network namespace of an interface
    return {
        name: {
            str(sorted((key, text) for key, text in labels.items() if key not in by_iterator)): value
            for labels, value in rows
            if "otel_" not in str(labels)
        }
        for name, rows in points.items()
    }


def test_what_this_kernel_lacks_is_absent(record: Record, page: Page) -> None:
    """No zero stands for "not known": entries of maps came with 6.6."""
    assert record["refused"].keys() == {"tcx", "netfilter", "uprobe_multi"}
    assert not {"bpf_map_entries", "bpf_map_utilization", "bpf_map_utilization_ratio"} & page.keys()


def test_the_agent_ended_well(record: Record, machine: Finished) -> None:
    assert record["status"] == 0
    log = (machine.folder / "bpf-agent.log").read_text(encoding="utf-8")
    assert "source bpf is ok" in log
    assert "level=warning" not in log
    assert "level=error" not in log
