"""Runs something in a child process that is nobody but has certain capabilities."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from tests.kernel.as_nobody import NOBODY, in_child

PERFMON, BPF = 38, 39  # include/uapi/linux/capability.h
_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS = 8


def with_capabilities(capabilities: tuple[int, ...], call: Callable[[], str]) -> str:
    """What *call* returns in a forked child with exactly *capabilities*; its error, if it raised one."""
    return in_child(lambda: _become(capabilities), call)


def _become(capabilities: tuple[int, ...]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    mask = sum(1 << number for number in capabilities)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    if libc.capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", low, low, 0, high, high, 0)) < 0:
        raise OSError(ctypes.get_errno(), "capset")
