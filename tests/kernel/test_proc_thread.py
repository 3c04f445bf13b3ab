"""Whose thread it is: on this very process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.proc_thread import process_of
from tests.process import eventually
from tests.threads import threads


def test_a_thread_and_its_process() -> None:
    with threads(1) as (thread,):
        assert thread != os.getpid()
        assert process_of("/proc", thread) == os.getpid()
    assert process_of("/proc", os.getpid()) == os.getpid()


def test_a_thread_that_has_ended() -> None:
    with threads(1) as (thread,):
        pass
    eventually(lambda: not Path(f"/proc/{thread}").exists())  # the kernel is a little later than Python
    with pytest.raises(Unavailable) as raised:
        process_of("/proc", thread)
    assert raised.value.reason is Reason.ABSENT


@pytest.mark.parametrize("content", ["", "Name:\tworker\nPid:\t7\n", "Tgid:\tseven\n", "Name:\tTgid:\t5\n"])
def test_a_file_that_does_not_tell(tmp_path: Path, content: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text(content)
    with pytest.raises(Unavailable) as raised:
        process_of(str(tmp_path), 7)
    assert raised.value.reason is Reason.MALFORMED
