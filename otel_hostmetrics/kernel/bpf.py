"""The bpf(2) system call, as include/uapi/linux/bpf.h (``union bpf_attr``) defines it.

The call is made through libc's ``syscall``, not through libbpf.so.1: libbpf is 10 % faster from Python (measured, 4.9
against 5.5 us for a fully read object), and would cost a package on every host and a matrix of library versions to
test against. The ABI of the system call is stable; a kernel that does not know a command says EINVAL.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Callable
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable

# enum bpf_cmd, with the first kernel
MAP_CREATE: Final = 0
MAP_LOOKUP_ELEM: Final = 1
MAP_UPDATE_ELEM: Final = 2
MAP_DELETE_ELEM: Final = 3
PROG_LOAD: Final = 5
OBJ_PIN: Final = 6
OBJ_GET: Final = 7
PROG_ATTACH: Final = 8
PROG_DETACH: Final = 9
PROG_TEST_RUN: Final = 10
PROG_GET_NEXT_ID: Final = 11  # 4.13
MAP_GET_NEXT_ID: Final = 12  # 4.13
PROG_GET_FD_BY_ID: Final = 13  # 4.13
MAP_GET_FD_BY_ID: Final = 14  # 4.13
OBJ_GET_INFO_BY_FD: Final = 15  # 4.13
PROG_QUERY: Final = 16  # 4.15
RAW_TRACEPOINT_OPEN: Final = 17  # 4.17
BTF_LOAD: Final = 18  # 4.18
BTF_GET_FD_BY_ID: Final = 19  # 4.18
TASK_FD_QUERY: Final = 20  # 4.18
BTF_GET_NEXT_ID: Final = 23  # 5.1
LINK_CREATE: Final = 28  # 5.7
LINK_UPDATE: Final = 29  # 5.7
LINK_GET_FD_BY_ID: Final = 30  # 5.8
LINK_GET_NEXT_ID: Final = 31  # 5.8
ENABLE_STATS: Final = 32  # 5.8
ITER_CREATE: Final = 33  # 5.8
PROG_BIND_MAP: Final = 35  # 5.10

# arch/*/include/asm/unistd*.h: the number of bpf(2) by the machine name of uname(2)
_NUMBERS: Final = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "s390x": 351, "ppc64": 361, "ppc64le": 361,
    "i686": 357, "i586": 357, "i386": 357, "armv7l": 386, "armv6l": 386, "mips64": 5315,
}  # fmt: skip

_ROOM: Final = 128  # bytes: more than a kernel writes of the attributes of any command

_number = _NUMBERS.get(platform.machine())
_NUMBER = ctypes.c_long(_number or 0)
_COMMANDS = tuple(ctypes.c_long(command) for command in range(64))
_SIZES = tuple(ctypes.c_long(size) for size in range(257))

# Untyped on purpose: with prebuilt c_long and byref objects a call skips argtypes conversion (6.3 -> 5.4 us per
# fully read object, measured). use_errno keeps a private copy of errno, safe between threads.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long

# PyDLL keeps the interpreter lock: giving it up for a call of half a microsecond lets any busy thread take it every
# time. A walk over 1000 ids beside such a thread took 404 ms with CDLL and 0.95 ms with PyDLL (measured).
_syscall_locked = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_locked.restype = ctypes.c_long


def bpf(command: int, attr: bytes | bytearray) -> int:
    """Make the system call once: its result (often a descriptor, which is close-on-exec) or OSError.

    *attr* is the part of ``union bpf_attr`` that the command uses, at most 256 bytes. What the kernel writes back is
    seen in a bytearray, and lost with bytes.
    """
    buffer = (ctypes.c_char * len(attr)).from_buffer(attr) if isinstance(attr, bytearray) else ctypes.create_string_buffer(attr, len(attr))
    result: int = _syscall(_NUMBER, _COMMANDS[command], ctypes.byref(buffer), _SIZES[len(attr)])
    if result < 0:
        raise failure(command)
    return result


def failure(command: int) -> OSError:
    """The error of the call this thread has just made."""
    error = ctypes.get_errno()
    return OSError(error, f"{os.strerror(error)} (bpf command {command})")


class Call:
    """One command with its attributes in one reused buffer: for calls that are made again and again.

    Fill :attr:`words` (the attributes as 32-bit words), then ``issue()``: the kernel's result, or -1 with the reason
    in :func:`failure`, so that loops which expect ENOENT pay for no exception. Not thread-safe.
    """

    __slots__ = ("attr", "command", "issue", "words")

    def __init__(self, command: int, size: int, blocking: bool = False) -> None:
        """*blocking* is for commands that may wait for a lock in the kernel: they must not hold the interpreter's."""
        self.command = command
        # BPF_PROG_QUERY on a cgroup writes 8 bytes at 56, whatever *size* says: Linux 6.17 (120933984460) to 7.2 (21c4b99b27f3).
        self.attr = ctypes.create_string_buffer(max(size, _ROOM))
        self.words = memoryview(self.attr).cast("B").cast("I")  # a tenth of the loop cheaper than struct.pack_into
        # partial, not a method: a Python frame per call would cost another 10 % (measured)
        self.issue: Callable[[], int] = functools.partial(
            _syscall if blocking else _syscall_locked, _NUMBER, _COMMANDS[command], ctypes.byref(self.attr), _SIZES[size]
        )

    def point(self, word: int, target: int) -> None:
        """Put an address into the 64-bit field that begins at *word*. The caller keeps alive what lies there."""
        struct.pack_into("=Q", self.attr, word * 4, target)

    def check(self) -> int:
        """The call's result, or OSError."""
        result = self.issue()
        if result < 0:
            raise failure(self.command)
        return result


def require() -> None:
    """Raises Unavailable(UNSUPPORTED) on a machine whose number of bpf(2) is not known here."""
    if _number is None:
        raise Unavailable(Reason.UNSUPPORTED, "bpf(2)", f"unknown machine {platform.machine()}")


def address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Where a buffer lies: what goes into the pointer fields of ``union bpf_attr``. The caller keeps the buffer."""
    return ctypes.addressof(buffer)
