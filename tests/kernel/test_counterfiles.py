"""Many counter files at once: in order, within a budget, each failure its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel.counterfiles import Budget, CounterFiles
from tests.kernel.links import Links

EINVAL = "/sys/class/net/lo/speed"  # loopback has none


@pytest.fixture(autouse=True)
def _no_descriptor_left():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


def files(directory: Path, count: int) -> list[str]:
    """Files with the values 0, 1, 2, ... in two directories."""
    paths = []
    for number in range(count):
        path = directory / ("a" if number < count // 2 else "b") / f"counter{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("limit", [100, 10, 3, 0])
def test_values_come_in_the_order_of_the_paths_whatever_the_budget(tmp_path: Path, limit: int) -> None:
    budget = Budget(limit)
    counters = CounterFiles(files(tmp_path, 10), budget)
    try:
        assert list(counters.read()) == list(range(10))
        Path(counters.paths[7]).write_text(f"{2**64 - 1}\n")
        assert list(counters.read()) == [0, 1, 2, 3, 4, 5, 6, 2**64 - 1, 8, 9]
        assert counters.failures == {}
        assert budget.free == max(limit - 10, 0)
    finally:
        counters.close()
    assert budget.free == limit
    counters.close()
    assert list(counters.read()) == []


@pytest.mark.parametrize("limit", [100, 6, 0])
def test_each_failure_is_its_own_and_is_not_asked_again(tmp_path: Path, limit: int) -> None:
    paths = files(tmp_path, 8)
    Path(paths[1]).write_text("N/A (no PMA)\n")
    Path(paths[2]).write_text("")
    Path(paths[3]).unlink()
    paths[4] = EINVAL
    counters = CounterFiles(paths, Budget(limit))
    try:
        assert list(counters.read()) == [0, None, None, None, None, 5, 6, 7]
        missing = Reason.ABSENT if limit > 3 else Reason.GONE  # kept files are opened first, the others when they are read
        assert {place: failure.reason for place, failure in counters.failures.items()} == {
            1: Reason.UNSUPPORTED,
            2: Reason.MALFORMED,
            3: missing,
            4: Reason.UNSUPPORTED,
        }
        assert counters.failures[4].what == EINVAL
        for place in (1, 2, 3):
            Path(paths[place]).write_text(f"{place}\n")
        assert list(counters.read()) == [0, None, None, None, None, 5, 6, 7]
        counters.retry([1, 7])
        assert list(counters.read()) == [0, 1, None, None, None, 5, 6, 7]
        counters.retry()
        assert list(counters.read()) == [0, 1, 2, 3, None, 5, 6, 7]
        assert list(counters.failures) == [4]
    finally:
        counters.close()


def test_a_failing_file_gives_its_descriptor_back_to_the_budget(tmp_path: Path) -> None:
    paths = files(tmp_path, 4)
    Path(paths[0]).write_text("?\n")
    budget = Budget(4)
    counters = CounterFiles(paths, budget)
    try:
        counters.read()
        assert budget.free == 1
        Path(paths[0]).write_text("5\n")
        counters.retry()
        assert (list(counters.read()), budget.free) == ([5, 1, 2, 3], 0)
    finally:
        counters.close()


def test_a_directory_that_is_replaced_is_opened_again_on_retry(tmp_path: Path) -> None:
    """As when a device is removed and added again, beyond the budget."""
    paths = files(tmp_path, 4)
    counters = CounterFiles(paths, Budget(0))
    try:
        assert list(counters.read()) == [0, 1, 2, 3]
        shutil.rmtree(tmp_path / "b")
        assert list(counters.read()) == [0, 1, None, None]
        assert counters.gone()
        files(tmp_path, 4)
        assert list(counters.read()) == [0, 1, None, None]
        counters.retry()
        assert list(counters.read()) == [0, 1, 2, 3]
        assert not counters.gone()
    finally:
        counters.close()


@pytest.mark.parametrize("limit", [10, 0])
def test_an_interface_that_is_removed_is_gone(limit: int) -> None:
    """The files of the running kernel, whose descriptors outlive their device."""
    with Links() as links:
        links.veth("kcnt0", "kcnt1")
        counters = CounterFiles(
            ["/sys/class/net/kcnt0/statistics/rx_bytes", "/sys/class/net/lo/statistics/rx_bytes", "/sys/class/net/kcnt0/carrier_changes"],
            Budget(limit),
        )
        try:
            assert all(value is not None for value in counters.read())
            links.delete("kcnt0")
            values = counters.read()
            assert [value is None for value in values] == [True, False, True]
            assert counters.gone()
            assert {failure.reason for failure in counters.failures.values()} == {Reason.GONE}
        finally:
            counters.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(contents=st.lists(st.binary(max_size=40), max_size=6), limit=st.integers(0, 6))
def test_any_content_is_a_number_or_a_failure(tmp_path: Path, contents: list[bytes], limit: int) -> None:
    paths = []
    for number, content in enumerate(contents):
        path = tmp_path / str(number)
        path.write_bytes(content)
        paths.append(str(path))
    counters = CounterFiles(paths, Budget(limit))
    try:
        for _ in range(2):
            values = counters.read()
            assert len(values) == len(contents)
            assert {place for place, value in enumerate(values) if value is None} == counters.failures.keys()
    finally:
        counters.close()
