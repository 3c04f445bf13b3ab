"""NVIDIA's management library, libnvidia-ml.so.1: loading it, its errors, and the devices it knows.

nvidia-ml-py (module ``pynvml``) has the handles, constants, structures and error texts. It is imported only after the
library was found, because it costs 19 MB of resident memory. What is read in every cycle does not go through its functions,
which build their arguments anew each time, but through nvml_batch.py (NVML API reference, "Device Queries").
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable

SONAME: Final = "libnvidia-ml.so.1"
# Where installers put it that do not tell the dynamic linker: WSL 2, NixOS, GKE and Bottlerocket, the GPU operator.
_PLACES: Final = (
    "/usr/lib/wsl/lib", "/run/opengl-driver/lib", "/usr/local/nvidia/lib64", "/home/kubernetes/bin/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu", "/run/nvidia/driver/usr/lib/aarch64-linux-gnu",
)  # fmt: skip

SUCCESS: Final = 0
INVALID_ARGUMENT: Final = 2
NO_PERMISSION: Final = 4
NOT_FOUND: Final = 6
INSUFFICIENT_SIZE: Final = 7
TIMEOUT: Final = 10
UNKNOWN: Final = 999
# nvmlReturn_t by what follows from it; the numbers are part of the ABI.
UNSUPPORTED: Final = frozenset({INVALID_ARGUMENT, 3, NO_PERMISSION, NOT_FOUND, 13, 22, 25, 26})  # will not be answered differently soon
LOST: Final = frozenset({15, 16, 28})  # GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND: this device
DEAD: Final = frozenset({1, 9, 18})  # UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH: every device

_REASONS: Final = {
    3: Reason.UNSUPPORTED, 4: Reason.DENIED, 9: Reason.ABSENT, 12: Reason.ABSENT, 13: Reason.UNSUPPORTED, 15: Reason.GONE, 1: Reason.GONE,
    16: Reason.GONE, 18: Reason.UNSUPPORTED, 22: Reason.UNSUPPORTED, 25: Reason.UNSUPPORTED, 26: Reason.UNSUPPORTED, 28: Reason.GONE,
}  # fmt: skip


class Failure(Exception):
    """An NVML call that returned *code* (nvmlReturn_t), for callers that decide by it."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call}: NVML error {code}")
        self.call = call
        self.code = code


class Device(NamedTuple):
    """A GPU, or a MIG instance of one."""

    handle: Any  # pynvml.c_nvmlDevice_t
    number: int  # NVML's index
    uuid: str
    name: str
    bus_id: str  # as NVML and nvidia-smi write it: 00000000:3B:00.0
    serial: str
    firmware: str  # VBIOS version
    parent: str = ""  # UUID of the GPU, of a MIG instance
    gpu_instance: int = -1
    compute_instance: int = -1

    @property
    def pci_address(self) -> str:
        """As sysfs writes it: 0000:3b:00.0."""
        return pci_address(self.bus_id)


def pci_address(bus_id: str) -> str:
    """NVML's eight-digit domain as the kernel's four, unless the domain is longer."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:] if domain[:-4].strip('0') == '' else domain}:{rest}"


def find(path: str = "") -> ctypes.CDLL:
    """The library, loaded: from *path*, or from where it is usually found. Raises Unavailable(ABSENT).

    pynvml then finds the one that is loaded, by its SONAME, wherever it came from.
    """
    complaint = ""
    for candidate in (path,) if path else (SONAME, *(os.path.join(place, SONAME) for place in _PLACES)):
        try:
            return ctypes.CDLL(candidate)
        except OSError as error:
            complaint = complaint or str(error)
    hint = "install the driver's user-space libraries; in a container use the NVIDIA runtime or set gpu.nvml_library"
    raise Unavailable(Reason.ABSENT, path or SONAME, f"{complaint}; {hint}")


class Nvml:
    """The library, initialised once and shut down once: nvmlInit in each cycle has hung in drivers of the field.

    Not thread-safe in itself; the library is.
    """

    def __init__(self, path: str = "") -> None:
        """Raises Unavailable: ABSENT without library or driver, else what nvmlInit said."""
        self.library = find(path)
        import pynvml  # type: ignore[import-untyped]

        self.binding = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise self.unavailable("nvmlInit", error.value) from None
        self._open = True

    def function(self, name: str) -> Callable[..., int] | None:
        """A function of the library; None where this driver is too old, or too new, to have it."""
        return getattr(self.library, name, None)

    def unavailable(self, what: str, code: int) -> Unavailable:
        """What a return code means."""
        text = str(self.binding.NVMLError(code))
        if code == 18:  # after an upgrade of the driver; the old library cannot be replaced in a running process
            text += ": the driver was upgraded, restart the agent"
        return Unavailable(_REASONS.get(code, Reason.UNREADABLE), what, text)

    def count(self) -> int:
        """GPUs that this process may use. Raises Unavailable."""
        return int(self._ask("nvmlDeviceGetCount"))

    def driver_version(self) -> str:
        """Empty where the driver does not say."""
        return self._text("nvmlSystemGetDriverVersion")

    def device(self, index: int) -> Device:
        """Raises Unavailable. Getting a handle wakes a GPU that sleeps: see by_address()."""
        return self._describe(index, self._ask("nvmlDeviceGetHandleByIndex", index))

    def by_address(self, address: str) -> Device:
        """The same by PCI address, for where the other GPUs are not to be woken. Raises Unavailable."""
        handle = self._ask("nvmlDeviceGetHandleByPciBusId", address.encode())
        try:
            index = int(self._ask("nvmlDeviceGetIndex", handle))
        except Unavailable:
            index = -1
        return self._describe(index, handle)

    def instances(self, device: Device) -> list[Device]:
        """The MIG devices of a GPU; empty where MIG is off, or not known to the GPU or the driver."""
        try:
            if self._ask("nvmlDeviceGetMigMode", device.handle)[0] != 1:
                return []
            most = int(self._ask("nvmlDeviceGetMaxMigDeviceCount", device.handle))
        except Unavailable:
            return []
        found = []
        for number in range(min(most, 64)):
            try:
                handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", device.handle, number)
                found.append(self._describe_instance(device, handle))
            except Unavailable:  # NOT_FOUND: this place is empty
                continue
        return found

    def _describe(self, index: int, handle: object) -> Device:
        bus = self._ask("nvmlDeviceGetPciInfo", handle).busId
        bus_id = bus.decode("ascii", "backslashreplace") if isinstance(bus, bytes) else str(bus)
        name, uuid = (_string(self._ask(call, handle)) for call in ("nvmlDeviceGetName", "nvmlDeviceGetUUID"))
        serial, firmware = (self._text(call, handle) for call in ("nvmlDeviceGetSerial", "nvmlDeviceGetVbiosVersion"))
        return Device(handle, index, uuid, name, bus_id, serial, firmware)

    def _describe_instance(self, parent: Device, handle: object) -> Device:
        uuid, name = _string(self._ask("nvmlDeviceGetUUID", handle)), self._text("nvmlDeviceGetName", handle) or parent.name
        ids = [int(self._ask(call, handle)) for call in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId")]
        return parent._replace(handle=handle, uuid=uuid, name=name, parent=parent.uuid, gpu_instance=ids[0], compute_instance=ids[1])

    def _text(self, call: str, *arguments: object) -> str:
        try:
            return _string(self._ask(call, *arguments))
        except Unavailable:
            return ""

    def _ask(self, call: str, *arguments: object) -> Any:
        """A call of the binding, its error as ours."""
        try:
            return getattr(self.binding, call)(*arguments)
        except self.binding.NVMLError as error:
            raise self.unavailable(call, error.value) from None

    def close(self) -> None:
        """Give the driver free, so that GPUs may sleep, be reset or be unbound. May be called again."""
        if self._open:
            self._open = False
            try:
                self.binding.nvmlShutdown()
            except self.binding.NVMLError:  # the driver is gone: nothing is held any more
                return


def _string(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
