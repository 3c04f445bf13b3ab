"""struct bpf_prog_info and bpf_map_info, recorded on Linux 6.18 (x86-64) and cut to the lengths of older kernels."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.bpf_objects import Map, Program, RunStats, parse_map_info, parse_program_info, parse_run_stats

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the recorded bytes are little-endian")

PROGRAM = bytes.fromhex(
    "010000000213000091f06c8170743b34210000002000000000000000000000000000000000000000ce198763790100000000000001000000"
    "0000000000000000636f756e74735f7061636b65747300000000000001000000000000000000000000000000000000000100000001000000"
    "0000000000000000000000000000000016000000080000000000000000000000010000000000000000000000000000000000000000000000"
    "000000001000000008000000010000000000000000000000d801000000000000070000000000000000000000000000000300000000000000"
    "0000000000000000"
)
MAP = bytes.fromhex(
    "01000000e91600000400000010000000e8030000010000007061636b65745f636f756e747300000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
)


def cut(recorded: bytes, length: int) -> bytes:
    """What an older kernel writes into a larger buffer; the rest is marked to show that nobody reads it."""
    return recorded[:length].ljust(256, b"\xff")


def test_a_program_of_a_new_kernel() -> None:
    assert parse_program_info(cut(PROGRAM, 232), 232, map_ids=(5865,), memory_bytes=4096) == Program(
        id=4866,
        type=1,
        tag="91f06c8170743b34",
        name="counts_packets",
        full_name=None,
        jited_bytes=33,
        translated_bytes=32,
        memory_bytes=4096,
        load_time_ns=1_620_872_468_942,
        uid=0,
        map_ids=(5865,),
        gpl_compatible=True,
        ifindex=0,
        btf_id=22,
        verified_instructions=3,
        attach_btf_id=0,
    )


@pytest.mark.parametrize(
    ("length", "first_kernel", "told"),
    [
        (40, "4.13", set()),
        (80, "4.15", {"load_time_ns", "uid"}),
        (104, "4.16", {"load_time_ns", "uid", "ifindex"}),
        (128, "4.18", {"load_time_ns", "uid", "ifindex", "gpl_compatible"}),
        (192, "5.0", {"load_time_ns", "uid", "ifindex", "gpl_compatible", "btf_id"}),
        (208, "5.1", {"load_time_ns", "uid", "ifindex", "gpl_compatible", "btf_id"}),
        (216, "5.12", {"load_time_ns", "uid", "ifindex", "gpl_compatible", "btf_id"}),
        (224, "5.16", {"load_time_ns", "uid", "ifindex", "gpl_compatible", "btf_id", "verified_instructions"}),
        (232, "6.0", {"load_time_ns", "uid", "ifindex", "gpl_compatible", "btf_id", "verified_instructions", "attach_btf_id"}),
    ],
)
def test_a_program_of_an_older_kernel_has_none_for_what_it_lacks(length: int, first_kernel: str, told: set[str]) -> None:
    record = parse_program_info(cut(PROGRAM, length), length)
    optional = {"load_time_ns", "uid", "ifindex", "gpl_compatible", "btf_id", "verified_instructions", "attach_btf_id"}
    assert {field for field in optional if getattr(record, field) is not None} == told, first_kernel
    new = parse_program_info(cut(PROGRAM, 232), 232)
    assert all(getattr(record, field) == getattr(new, field) for field in told | {"id", "type", "tag", "jited_bytes", "translated_bytes"})
    assert record.name == (new.name if length >= 80 else "")


def test_a_licence_that_is_not_gpl() -> None:
    assert parse_program_info(PROGRAM[:84] + bytes(4) + PROGRAM[88:], 232).gpl_compatible is False


def test_run_statistics_by_kernel() -> None:
    assert parse_run_stats(cut(PROGRAM, 232), 232) == RunStats(472, 7, 0)
    assert parse_run_stats(cut(PROGRAM, 208), 208) == RunStats(472, 7, None)
    with pytest.raises(Unavailable) as caught:
        parse_run_stats(cut(PROGRAM, 192), 192)
    assert caught.value.reason is Reason.UNSUPPORTED


def test_a_map_of_a_new_kernel() -> None:
    expected = Map(5865, 1, "packet_counts", 4, 16, 1000, 1, extra=0, ifindex=0, btf_id=0, memory_bytes=17280, frozen=False)
    assert parse_map_info(cut(MAP, 104), 104, memory_bytes=17280, frozen=False) == expected


@pytest.mark.parametrize(
    ("length", "first_kernel", "told"),
    [
        (24, "4.13", set()),
        (40, "4.15", set()),
        (64, "4.16", {"ifindex"}),
        (80, "4.18", {"ifindex", "btf_id"}),
        (88, "5.16", {"ifindex", "btf_id", "extra"}),
        (104, "6.18", {"ifindex", "btf_id", "extra"}),
    ],
)
def test_a_map_of_an_older_kernel_has_none_for_what_it_lacks(length: int, first_kernel: str, told: set[str]) -> None:
    record = parse_map_info(cut(MAP, length), length)
    assert {field for field in ("ifindex", "btf_id", "extra") if getattr(record, field) is not None} == told, first_kernel
    assert (record.id, record.type, record.key_bytes, record.value_bytes, record.max_entries, record.flags) == (5865, 1, 4, 16, 1000, 1)
    assert record.name == ("packet_counts" if length >= 40 else "")


def test_a_name_that_is_not_utf8_is_shown_as_hex() -> None:
    assert parse_map_info(MAP[:24] + b"caf\xe9\0rest of it\0" + MAP[40:], 104).name == "caf\\xe9"


@given(info=st.binary(max_size=300), length=st.integers(-1, 4096))
def test_any_bytes_and_length_give_a_record_or_a_reason(info: bytes, length: int) -> None:
    for parse, expected, reasons in (
        (parse_program_info, Program, {Reason.MALFORMED}),
        (parse_map_info, Map, {Reason.MALFORMED}),
        (parse_run_stats, RunStats, {Reason.MALFORMED, Reason.UNSUPPORTED}),
    ):
        try:
            outcome: object = parse(info, length)
        except Unavailable as error:
            outcome = error.reason
        assert isinstance(outcome, expected) or outcome in reasons
