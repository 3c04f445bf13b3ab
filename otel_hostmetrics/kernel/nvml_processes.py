"""Which processes use a GPU: nvmlDeviceGet*RunningProcesses and nvmlDeviceGetProcessUtilization.

NVML tells of processes that have ended, in particular killed ones, with numbers that mean nothing (pid 0, 37100 % of the
SMs), and repeats old samples. What cannot be true is left out here; whether a pid still lives is for the caller to ask.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from otel_hostmetrics.kernel.nvml import INSUFFICIENT_SIZE, SUCCESS, UNSUPPORTED, Device, Nvml
from otel_hostmetrics.kernel.nvml_batch import check

# nvmlProcessInfo_t by size. All begin with pid and used memory; then come the instances (24) and protected memory (32).
_FORMS: Final = {16: struct.Struct("=I4xQ"), 24: struct.Struct("=I4xQ8x"), 32: struct.Struct("=I4xQ16x")}
_USUAL: Final = 24  # also of a driver that writes to the whole buffer
_LARGEST: Final = max(_FORMS)
_UNTOUCHED: Final = 0xA5  # fills the buffer; the last byte of an entry, the highest of a number, is never that
_NOT_AVAILABLE: Final = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE: under MIG without rights, on WSL
_KINDS: Final = ("Compute", "Graphics", "MPSCompute")
_VERSIONS: Final = ("_v3", "_v2")  # R510; 535.98 has no v3 again
_SAMPLE: Final = struct.Struct("=I4xQIIII")  # nvmlProcessUtilizationSample_t: pid, time, SM, memory, encoder, decoder
_ROOM: Final = 64  # entries, at first
_MOST: Final = 8192  # entries: more is not believed
_FIRST_WINDOW_US: Final = 10_000_000  # how old samples may be when asked for the first time
_AHEAD_US: Final = 1_000_000  # a sample with a later time than that is of a clock that was set back since


class Sample(NamedTuple):
    """What one process did since the samples before, in percent of the GPU's time."""

    pid: int
    sm: int
    encoder: int
    decoder: int


class _List:
    """One list of processes. ``supported`` until the driver says that it does not have it.

    Drivers from 535.43 to 535.86 write 32 bytes an entry for the same symbol that has 24 before and after, and some 16: the
    first answer that is not empty shows how many, by how much of the buffer it filled.
    """

    def __init__(self, name: str, function: Callable[..., int], handle: object) -> None:
        self.name = name
        self.supported = True
        self.failed = False  # in the last call
        self._function, self._handle = function, handle
        self._form: struct.Struct | None = None
        self._make_room(_ROOM)

    def read(self) -> list[tuple[int, int]]:
        """(pid, bytes). The list may grow between two calls, hence the room to spare. Raises Failure where the device is gone."""
        self.failed = False
        for _ in range(4):
            self._count.value = self._room
            code = self._call()
            if code == SUCCESS:
                count = self._count.value
                return self._unpack(min(count, self._room)) if count else []
            check(self.name, code)
            if code != INSUFFICIENT_SIZE:
                break
            self._make_room(self._count.value)
        self.supported = code not in UNSUPPORTED
        self.failed = self.supported
        return []

    def _unpack(self, count: int) -> list[tuple[int, int]]:
        if self._form is None:
            size, rest = divmod(len(self._buffer.raw.rstrip(bytes((_UNTOUCHED,)))), count)
            self._form = _FORMS.get(0 if rest else size, _FORMS[_USUAL])
        return list(self._form.iter_unpack(self._buffer.raw[: self._form.size * count]))

    def _make_room(self, entries: int) -> None:
        """One buffer for all answers, with the call bound to it: making one for each call took half of the time."""
        self._room = min(max(entries, _ROOM // 2) * 2, _MOST)
        self._buffer = ctypes.create_string_buffer(bytes((_UNTOUCHED,)) * (_LARGEST * self._room), _LARGEST * self._room)
        self._count = ctypes.c_uint(self._room)
        self._call = functools.partial(self._function, self._handle, ctypes.byref(self._count), ctypes.byref(self._buffer))


class Processes:
    """The processes of one GPU or MIG instance. Lists the driver does not support are asked for once."""

    def __init__(self, nvml: Nvml, device: Device, now_us: int) -> None:
        """*now_us* is the Unix time."""
        found = ((kind, _function(nvml, kind)) for kind in _KINDS)
        self._lists = {kind: _List(*named, device.handle) for kind, named in found if named}
        self._samples = _Samples(nvml, device, now_us)
        self.complete = False  # whether memory() was told of all there are: the driver has the list of compute, and none failed

    def memory(self) -> dict[int, int | None]:
        """pid -> bytes of GPU memory; None where the driver does not tell. A pid in several lists has its memory once.

        Raises Failure where the device is gone.
        """
        found: dict[int, int | None] = {}
        for kind, each in tuple(self._lists.items()):
            for pid, used in each.read():
                if pid:
                    known = None if used == _NOT_AVAILABLE else used
                    found[pid] = max(known or 0, found.get(pid) or 0) if known is not None else found.get(pid)
            if not each.supported:
                del self._lists[kind]
        self.complete = _KINDS[0] in self._lists and not any(each.failed for each in self._lists.values())
        return found

    def utilization(self, now_us: int) -> list[Sample]:
        """The newest sample of each process since the last call; empty where none is new, or where MIG is on.

        Raises Failure where the device is gone.
        """
        return self._samples.newest(now_us)


class _Samples:
    """nvmlDeviceGetProcessUtilization: what is new."""

    def __init__(self, nvml: Nvml, device: Device, now_us: int) -> None:
        self._handle = device.handle
        self._function = nvml.function("nvmlDeviceGetProcessUtilization")
        self._seen_us = now_us - _FIRST_WINDOW_US
        self._make_room(_ROOM)

    def newest(self, now_us: int) -> list[Sample]:
        latest = now_us + _AHEAD_US
        if self._seen_us > latest:  # the clock was set back
            self._seen_us = now_us - _FIRST_WINDOW_US
        newest: dict[int, tuple[int, ...]] = {}
        for pid, time_us, sm, memory, encoder, decoder in self._read():
            new = self._seen_us < time_us <= latest and (pid not in newest or newest[pid][0] < time_us)
            if pid and new and max(sm, memory, encoder, decoder) <= 100:
                newest[pid] = (time_us, sm, encoder, decoder)
        # The time of the newest sample, not ours: with any other the driver repeats or skips samples.
        self._seen_us = max([self._seen_us, *(sample[0] for sample in newest.values())])
        return [Sample(pid, *sample[1:]) for pid, sample in newest.items()]

    def _read(self) -> list[tuple[int, ...]]:
        function = self._function
        if function is None:
            return []
        self._count.value = self._room
        code = function(self._handle, self._buffer_pointer, self._count_pointer, ctypes.c_ulonglong(self._seen_us))
        if code == SUCCESS:
            count = min(self._count.value, self._room)
            return list(_SAMPLE.iter_unpack(self._buffer.raw[: _SAMPLE.size * count])) if count else []
        check("nvmlDeviceGetProcessUtilization", code)
        if code == INSUFFICIENT_SIZE:
            self._make_room(self._count.value)  # the samples are still there in the next cycle
        elif code == 3:  # NOT_SUPPORTED, as with MIG; NOT_FOUND is only "nothing new"
            self._function = None
        return []

    def _make_room(self, entries: int) -> None:
        self._room = min(max(entries, _ROOM // 2) * 2, _MOST)
        self._buffer = ctypes.create_string_buffer(_SAMPLE.size * self._room)
        self._count = ctypes.c_uint(self._room)
        self._buffer_pointer, self._count_pointer = ctypes.byref(self._buffer), ctypes.byref(self._count)


def _function(nvml: Nvml, kind: str) -> tuple[str, Callable[..., int]] | None:
    """The newest version that this driver has."""
    for version in _VERSIONS:
        name = f"nvmlDeviceGet{kind}RunningProcesses{version}"
        if (function := nvml.function(name)) is not None:
            return name, function
    return None
