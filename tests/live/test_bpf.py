"""The system call itself."""

from __future__ import annotations

import errno
import struct

import pytest

from otel_hostmetrics.kernel import bpf
from tests.live.bpfload import Loader


def test_what_the_kernel_writes_back_is_seen_in_a_bytearray(loader: Loader) -> None:
    loader.map()
    number = loader.ids["map"][0]
    attr = bytearray(struct.pack("=III", number - 1, 0, 0))
    assert bpf.bpf(bpf.MAP_GET_NEXT_ID, attr) == 0
    assert struct.unpack_from("=I", attr, 4) == (number,)


def test_a_prepared_call_gives_the_same(loader: Loader) -> None:
    loader.map()
    number = loader.ids["map"][0]
    call = bpf.Call(bpf.MAP_GET_NEXT_ID, 12)
    call.words[0] = number - 1
    assert call.check() == 0
    assert call.words[1] == number


@pytest.mark.parametrize(("command", "attr", "reason"), [(63, bytes(8), errno.EINVAL), (bpf.MAP_GET_FD_BY_ID, bytes(12), errno.ENOENT)])
def test_errors_have_the_kernels_errno(command: int, attr: bytes, reason: int) -> None:
    with pytest.raises(OSError, match=f"bpf command {command}") as caught:
        bpf.bpf(command, attr)
    assert caught.value.errno == reason
    call = bpf.Call(command, len(attr))
    assert call.issue() == -1
    assert bpf.failure(command).errno == reason


def test_a_call_has_room_for_what_kernels_write_beyond_the_size_they_are_told() -> None:
    """BPF_PROG_QUERY on a cgroup, from Linux 6.17 on: query.revision, 8 bytes at 56."""
    assert len(bpf.Call(bpf.PROG_QUERY, 32).attr) >= 64
