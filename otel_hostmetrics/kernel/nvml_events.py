"""XID errors, counted as they come: nvmlEventSetWait_v2 in a thread of its own.

NVML's and DCGM's other views of XIDs keep the last number only: a repeated error does not show. The set queues events, so
that a wait of half a second at a time loses none, costs two wake-ups a second, and lets the thread end soon.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from typing import Final

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.nvml import DEAD, TIMEOUT, Device, Nvml

_WAIT_MS: Final = 500
_MOST_KINDS: Final = 1000  # (device, XID) pairs; there are some 150 XIDs
_PAUSE: Final = 5.0  # s, after an error: the wait then returns at once


class XidEvents:
    """Counts XIDs of *devices* until close(). Has its own hold on the library, so that neither end waits for the other."""

    def __init__(self, nvml: Nvml, devices: list[Device]) -> None:
        """Raises Unavailable where no device can send the event (vGPU guests, WSL)."""
        self._nvml = nvml
        binding = self._binding = nvml.binding
        self._counts: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        try:
            binding.nvmlInit()  # counted by the library: it stays up until our own nvmlShutdown
        except binding.NVMLError as error:
            raise nvml.unavailable("nvmlInit", error.value) from None
        try:
            self._set = binding.nvmlEventSetCreate()
            self._uuids = self._register(devices)
        except (binding.NVMLError, Unavailable) as error:
            binding.nvmlShutdown()
            raise error if isinstance(error, Unavailable) else nvml.unavailable("nvmlEventSetCreate", error.value) from None
        self._thread = threading.Thread(target=self._run, name="gpu-xid", daemon=True)
        self._thread.start()

    def counts(self) -> Counter[tuple[str, int]]:
        """(UUID, XID) -> errors seen."""
        with self._lock:
            return self._counts.copy()

    def _register(self, devices: list[Device]) -> dict[int, str]:
        """Handle -> UUID of the devices that send XIDs."""
        binding, registered, refusal = self._binding, {}, None
        for device in devices:
            try:
                binding.nvmlDeviceRegisterEvents(device.handle, binding.nvmlEventTypeXidCriticalError, self._set)
                registered[_address(device.handle)] = device.uuid
            except binding.NVMLError as error:
                refusal = self._nvml.unavailable("nvmlDeviceRegisterEvents", error.value)
        if not registered and refusal:
            binding.nvmlEventSetFree(self._set)
            raise refusal
        return registered

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wait()
        finally:
            self._leave()

    def _wait(self) -> None:
        binding = self._binding
        try:
            event = binding.nvmlEventSetWait_v2(self._set, _WAIT_MS)
        except binding.NVMLError as error:
            if error.value in DEAD:
                self._stopping.set()
            elif error.value != TIMEOUT:  # GPU_IS_LOST and UNKNOWN return at once, again and again
                self._stopping.wait(_PAUSE)
            return
        uuid = self._uuids.get(_address(event.device), "")
        if not uuid or event.eventType != binding.nvmlEventTypeXidCriticalError:
            return
        kind = uuid, int(event.eventData)
        with self._lock:
            if kind in self._counts or len(self._counts) < _MOST_KINDS:
                self._counts[kind] += 1

    def _leave(self) -> None:
        for close in (lambda: self._binding.nvmlEventSetFree(self._set), self._binding.nvmlShutdown):
            try:
                close()
            except self._binding.NVMLError:  # the driver went first
                continue

    def close(self, wait: float) -> None:
        """Let the thread end, which it does within half a second; wait for it at most *wait* seconds. May be called again."""
        self._stopping.set()
        self._thread.join(wait)


def _address(handle: object) -> int:
    """Handles are pointers, and new objects of the binding each time: the address they hold tells them apart."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0  # type: ignore[arg-type]
