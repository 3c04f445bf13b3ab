"""CPU time of the host and of its processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import proc_stat, proc_times
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.proc_stat import CpuTime, ProcStat

TICK = 10_000_000


def test_guests_are_counted_once_and_stolen_time_is_not_ours():
    line = b"cpu  100 10 30 1000 60 2 8 500 40 5\ncpu0 1 2 3\n"
    assert proc_stat.parse(line) == CpuTime(150 * TICK, 1210 * TICK)


@pytest.mark.parametrize("content", [b"", b"cpu", b"cpu 1 2 3 4 5 6\n", b"cpu0 1 2 3 4 5 6 7\n", b"cpu a b c d e f g\n"])
def test_what_is_no_such_line_is_none(content: bytes) -> None:
    assert proc_stat.parse(content) is None


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    proc_stat.parse(b"cpu " + content)
    proc_times.parse(1, b"1 (a) " + content)


def test_the_running_kernel() -> None:
    stat = ProcStat(HostFS())
    try:
        first, second = stat.read(), stat.read()
        assert 0 < first.busy <= second.busy < second.total
    finally:
        stat.close()
        stat.close()


def test_a_file_that_is_not_there_or_says_something_else(tmp_path: Path) -> None:
    fs = HostFS(str(tmp_path))
    with pytest.raises(Unavailable) as refused:
        ProcStat(fs)
    assert refused.value.reason is Reason.ABSENT
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("nonsense\n")
    stat = ProcStat(fs)
    with pytest.raises(Unavailable) as refused:
        stat.read()
    assert refused.value.reason is Reason.MALFORMED
    stat.close()


def test_a_process_is_told_by_its_start_and_a_name_may_be_anything():
    fields = b"S 1 1 1 0 -1 4194560 5 0 0 0 120 34 7 8 20 0 1 0 4711 0 0"
    assert proc_times.parse(9, b"9 (a) (b\n) " + fields) == proc_times.ProcessTime(9, 4711, 154, b"a) (b\n")


def test_this_process_is_among_all():
    mine = [each for each in proc_times.processes("/proc") if each.pid == os.getpid()]
    assert len(mine) == 1
    assert mine[0].start > 0
    assert list(proc_times.processes("/nowhere")) == []
