"""struct bpf_link_info, one example per link type, packed as the kernel's header declares it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_links import parse_link_info
from otel_hostmetrics.kernel.bpf_names import LINK_TYPES
from otel_hostmetrics.kernel.bpf_objects import Link, LinkDetail

CASES = [
    ("raw_tracepoint", struct.pack("=QIIQ", 1, 10, 0, 7), "sys_enter", LinkDetail(target_name="sys_enter")),
    ("tracing", struct.pack("=IIIIQ", 24, 1, 4711, 0, 0), None, LinkDetail(attach_type=24, target_object_id=1, target_btf_id=4711)),
    ("cgroup", struct.pack("=QI", 1 << 40, 6), None, LinkDetail(attach_type=6, cgroup_id=1 << 40)),
    ("iter", struct.pack("=QII", 1, 5, 9), "bpf_map_elem", LinkDetail(target_name="bpf_map_elem", map_id=9)),
    ("iter", struct.pack("=QIIQI", 1, 5, 0, 77, 2), "cgroup", LinkDetail(target_name="cgroup", cgroup_id=77)),
    ("iter", struct.pack("=QIIII", 1, 5, 0, 0, 12), "task_file", LinkDetail(target_name="task_file", pid=12)),
    ("iter", struct.pack("=QIIII", 1, 5, 0, 13, 0), "task", LinkDetail(target_name="task", tid=13)),
    ("iter", struct.pack("=QIIQ", 1, 5, 0, 0), "bpf_prog", LinkDetail(target_name="bpf_prog")),
    ("netns", struct.pack("=II", 4026531833, 36), None, LinkDetail(netns_inode=4026531833, attach_type=36)),
    ("xdp", struct.pack("=I", 2), None, LinkDetail(ifindex=2)),
    ("struct_ops", struct.pack("=I", 5), None, LinkDetail(map_id=5)),
    ("netfilter", struct.pack("=IIiI", 2, 1, -200, 0), None, LinkDetail(protocol_family=2, hook=1, priority=-200)),
    ("kprobe_multi", struct.pack("=QIIQQ", 0, 40, 0, 3, 0), None, LinkDetail(places=40, missed=3)),
    ("tcx", struct.pack("=II", 3, 46), None, LinkDetail(ifindex=3, attach_type=46)),
    ("netkit", struct.pack("=II", 3, 54), None, LinkDetail(ifindex=3, attach_type=54)),
    ("sockmap", struct.pack("=II", 8, 5), None, LinkDetail(map_id=8, attach_type=5)),
    (
        "uprobe_multi",
        struct.pack("=QQQQIIII", 1, 0, 0, 0, 9, 2, 0, 321),
        "/bin/true",
        LinkDetail(target_name="/bin/true", places=2, pid=321),
    ),
    (
        "perf_event",
        struct.pack("=IIQIIQQQ", 3, 0, 1, 5, 16, 99, 4, 0),
        "do_exit",
        LinkDetail(perf_type=3, target_name="do_exit", offset=16, missed=4),
    ),
    ("perf_event", struct.pack("=IIQIIQ", 1, 0, 1, 5, 64, 0), "/bin/true", LinkDetail(perf_type=1, target_name="/bin/true", offset=64)),
    ("perf_event", struct.pack("=IIQII", 5, 0, 1, 5, 0), "sched_switch", LinkDetail(perf_type=5, target_name="sched_switch")),
    ("perf_event", struct.pack("=IIQI", 6, 0, 1, 1), None, LinkDetail(perf_type=6)),
]


def written(kind: str, union: bytes) -> bytes:
    return struct.pack("=IIII", LINK_TYPES.index(kind), 11, 22, 0) + union


@pytest.mark.parametrize(("kind", "union", "name", "detail"), CASES)
def test_each_link_type(kind: str, union: bytes, name: str | None, detail: LinkDetail) -> None:
    info = written(kind, union).ljust(256, b"\0")
    assert parse_link_info(info, 64, name) == Link(11, LINK_TYPES.index(kind), 22, detail)


@pytest.mark.parametrize(("kind", "union", "name", "detail"), CASES)
def test_a_kernel_that_knows_no_detail_yet_gives_none_of_it(kind: str, union: bytes, name: str | None, detail: LinkDetail) -> None:
    """Linux 5.8 wrote 32 bytes; here nothing of the union at all, and other bytes behind it that must not be read."""
    link = parse_link_info(written(kind, union)[:16].ljust(256, b"\xff"), 16)
    assert link == Link(11, LINK_TYPES.index(kind), 22, LinkDetail())


def test_kprobe_multi_before_missed_was_counted() -> None:
    """Linux 6.6 wrote 48 bytes, and nothing where "missed" is since 6.7."""
    link = parse_link_info(written("kprobe_multi", struct.pack("=QIIQQ", 0, 40, 0, 0, 0)).ljust(256, b"\0"), 48)
    assert link.detail == LinkDetail(places=40)


@pytest.mark.parametrize("kind", [0, LINK_TYPES.index("tracing_multi"), 1000])
def test_a_type_we_do_not_know_has_no_detail(kind: int) -> None:
    assert parse_link_info(struct.pack("=IIIIQ", kind, 11, 22, 0, 99), 24) == Link(11, kind, 22, None)


@given(kind=st.integers(0, 20), rest=st.binary(max_size=120), length=st.integers(-1, 200), name=st.none() | st.text(max_size=9))
def test_any_bytes_and_length_give_a_record_or_malformed(kind: int, rest: bytes, length: int, name: str | None) -> None:
    try:
        outcome: object = parse_link_info(struct.pack("=I", kind) + rest, length, name)
    except Unavailable as error:
        outcome = error.reason
    assert isinstance(outcome, Link) or outcome is Reason.MALFORMED
