"""Which processes use a GPU: nvmlDeviceGet*RunningProcesses_v3 and nvmlDeviceGetProcessUtilization.

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

_PROCESS: Final = struct.Struct("=I4xQII")  # nvmlProcessInfo_v2_t: pid, used memory, GPU instance, compute instance
_SAMPLE: Final = struct.Struct("=I4xQIIII")  # nvmlProcessUtilizationSample_t: pid, time, SM, memory, encoder, decoder
_NOT_AVAILABLE: Final = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE: under MIG without rights, on WSL
_LISTS: Final = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)
_ROOM: Final = 64  # entries, at first
_MOST: Final = 8192  # entries: more is not believed
_FIRST_WINDOW_US: Final = 10_000_000  # how old samples may be when asked for the first time


class Sample(NamedTuple):
    """What one process did since the samples before, in percent of the GPU's time."""

    pid: int
    sm: int
    encoder: int
    decoder: int


class Processes:
    """The processes of one GPU or MIG instance. Lists the driver does not support are asked for once."""

    def __init__(self, nvml: Nvml, device: Device, now_us: int) -> None:
        """*now_us* is the Unix time."""
        self._handle = device.handle
        self._functions = {name: function for name in _LISTS if (function := nvml.function(name)) is not None}
        self._lists: dict[str, Callable[[], int]] = dict(self._functions)
        self._utilization = nvml.function("nvmlDeviceGetProcessUtilization")
        self._seen_us = now_us - _FIRST_WINDOW_US
        self.complete = False  # whether memory() was told of all there are: the driver has the list of compute, and none failed
        self._make_room(_ROOM)

    def memory(self) -> dict[int, int | None]:
        """pid -> bytes of GPU memory; None where the driver does not tell. A pid in several lists has its memory once.

        Raises Failure where the device is gone.
        """
        found: dict[int, int | None] = {}
        self.complete = True
        for name in tuple(self._lists):
            listed = self._list(name)
            if listed is None:
                del self._lists[name]
                continue
            for pid, used, _, _ in listed:
                if pid:
                    known = None if used == _NOT_AVAILABLE else used
                    found[pid] = max(known or 0, found.get(pid) or 0) if known is not None else found.get(pid)
        self.complete &= _LISTS[0] in self._lists
        return found

    def _list(self, name: str) -> list[tuple[int, ...]] | None:
        """One list; None if the driver does not have it. It may grow between the two calls, hence the room to spare."""
        for _ in range(4):
            self._count.value = self._room
            code = self._lists[name]()
            if code == SUCCESS:
                return self._unpack(_PROCESS)
            check(name, code)
            if code in UNSUPPORTED:
                return None
            if code != INSUFFICIENT_SIZE:
                break
            self._make_room(self._count.value)
        self.complete = False
        return []

    def _make_room(self, entries: int) -> None:
        """One buffer for all answers, with the calls bound to it: making one for each call took half of the time."""
        self._room = min(max(entries, _ROOM // 2) * 2, _MOST)
        self._buffer = ctypes.create_string_buffer(max(_PROCESS.size, _SAMPLE.size) * self._room)
        self._count = ctypes.c_uint(self._room)
        self._buffer_pointer, self._count_pointer = ctypes.byref(self._buffer), ctypes.byref(self._count)
        pointers = self._handle, self._count_pointer, self._buffer_pointer
        self._lists = {name: functools.partial(self._functions[name], *pointers) for name in self._lists}

    def _unpack(self, form: struct.Struct) -> list[tuple[int, ...]]:
        count = min(self._count.value, self._room)
        return list(form.iter_unpack(self._buffer.raw[: form.size * count])) if count else []

    def utilization(self) -> list[Sample]:
        """The newest sample of each process since the last call; empty where none is new, or where MIG is on.

        Raises Failure where the device is gone.
        """
        newest: dict[int, tuple[int, ...]] = {}
        for pid, time_us, sm, memory, encoder, decoder in self._samples():
            old = time_us <= self._seen_us or (pid in newest and newest[pid][0] >= time_us)
            if pid and not old and max(sm, memory, encoder, decoder) <= 100:
                newest[pid] = (time_us, sm, encoder, decoder)
        # The time of the newest sample, not ours: with any other the driver repeats or skips samples.
        self._seen_us = max([self._seen_us, *(sample[0] for sample in newest.values())])
        return [Sample(pid, *sample[1:]) for pid, sample in newest.items()]

    def _samples(self) -> list[tuple[int, ...]]:
        function = self._utilization
        if function is None:
            return []
        self._count.value = self._room
        code = function(self._handle, self._buffer_pointer, self._count_pointer, ctypes.c_ulonglong(self._seen_us))
        if code == SUCCESS:
            return self._unpack(_SAMPLE)
        check("nvmlDeviceGetProcessUtilization", code)
        if code == INSUFFICIENT_SIZE:
            self._make_room(self._count.value)  # the samples are still there in the next cycle
        elif code == 3:  # NOT_SUPPORTED, as with MIG; NOT_FOUND is only "nothing new"
            self._utilization = None
        return []
