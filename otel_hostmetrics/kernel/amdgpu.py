"""AMD GPUs: sysfs of the amdgpu driver, no ROCm library.

Documentation/gpu/amdgpu/thermal.rst, drivers/gpu/drm/amd/pm/amdgpu_pm.c, include/kgd_pp_interface.h (gpu_metrics). Not
``pcie_bw``: reading it takes a second. Any of these files wakes a GPU that sleeps; see gpu_pci.RuntimePower.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Final

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.gpu_files import Files, Value, hwmons, link_state, sensors
from otel_hostmetrics.kernel.gpu_pci import Gpu
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.pci import link

_FILES: Final = {
    "busy.general_percent": "gpu_busy_percent", "busy.memory_percent": "mem_busy_percent", "busy.video_percent": "vcn_busy_percent",
    "vram.total": "mem_info_vram_total", "vram.used": "mem_info_vram_used", "gtt.total": "mem_info_gtt_total",
    "gtt.used": "mem_info_gtt_used",
    "pcie.replays": "pcie_replay_count",
}  # fmt: skip
# gpu_metrics: offset of energy_accumulator (u64, 2^-16 J) by content revision of format 1. Earlier revisions do not say its unit.
_ENERGY: Final = {4: 24, 5: 88, 6: 16, 7: 24, 8: 24}
_RAS: Final = re.compile(r"\s*ue:\s*(\d{1,18})\s+ce:\s*(\d{1,18})(?:\s+de:\s*(\d{1,18}))?\s*")
_RAS_KINDS: Final = ("uncorrected", "corrected", "deferred")
_MI300A: Final = 0x74A0  # PCI device: an APU whose gpu_metrics have the form of a GPU's
_NO_VALUE: Final = 2**64 - 1
_MOST: Final = 8192  # bytes of gpu_metrics


class Amdgpu:
    """One GPU. ``names`` are those of the values read() gives, in its units.

    Power of an APU is that of its processors too, which others measure as well: its names begin with ``socket_``, and its energy,
    which is of the same kind, is left out.
    """

    def __init__(self, fs: HostFS, gpu: Gpu) -> None:
        self._fs, self._gpu = fs, gpu
        self._metrics = _open(f"{gpu.path}/gpu_metrics")
        apu = self._is_apu()
        found = ((f"socket_{name}" if apu and name.startswith("power.") else name, path) for name, path in sensors(fs, gpu.path))
        self._files = Files((*((name, f"{gpu.path}/{file}") for name, file in _FILES.items()), *found))
        self.denied = self._files.denied
        if apu or self._energy() is None:
            self._close_metrics()
        self._slow = dict(self._rarely())
        energy = ("energy_2^-16_j",) if self._metrics >= 0 else ()
        self.fast_names = (*self._files.names, *energy)
        self.names = (*self.fast_names, *self._slow)

    def read(self, slow: bool) -> list[Value]:
        """*slow* reads again what rarely changes: error counts, link state."""
        if slow:
            fresh = dict(self._rarely())
            self._slow = {name: fresh.get(name) for name in self._slow}
        energy = [self._energy()] if self._metrics >= 0 else []
        return [*self._files.read(), *energy, *self._slow.values()]

    @property
    def gone(self) -> bool:
        """Whether the driver was unloaded since: nothing is read through its old files again."""
        return self._files.gone

    def identity(self) -> dict[str, str]:
        """unique_id, product_name, serial_number and vbios_version, those there are."""
        found = (
            (name, _text(self._fs, f"{self._gpu.path}/{name}")) for name in ("unique_id", "product_name", "serial_number", "vbios_version")
        )
        return {name: text for name, text in found if text}

    def _is_apu(self) -> bool:
        """Formats 2 and 3 of gpu_metrics are those of APUs, and only APUs but MI300A have the northbridge's voltage."""
        if self._gpu.device == _MI300A or self._table()[2:3] > b"\1":
            return True
        return any(_text(self._fs, f"{hwmon}/in1_label") == "vddnb" for hwmon in hwmons(self._fs, self._gpu.path))

    def _energy(self) -> Value:
        return energy(self._table()) if self._metrics >= 0 else None

    def _table(self) -> bytes:
        """gpu_metrics; empty where it cannot be read."""
        try:
            return os.pread(self._metrics, _MOST, 0) if self._metrics >= 0 else b""
        except OSError:
            return b""

    def _rarely(self) -> Iterator[tuple[str, Value]]:
        yield from link_state(link(self._fs, self._gpu.path))
        try:
            blocks = self._fs.names(f"{self._gpu.path}/ras")
        except Unavailable:  # no ECC memory
            return
        for block in blocks:
            counts = ras(_text(self._fs, f"{self._gpu.path}/ras/{block}")) if block.endswith("_err_count") else {}
            for kind, count in counts.items():
                yield f"ras.{block.removesuffix('_err_count')}.{kind}", count

    def _close_metrics(self) -> None:
        descriptor, self._metrics = self._metrics, -1
        if descriptor >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """May be called again."""
        self._files.close()
        self._close_metrics()


def energy(metrics: bytes) -> Value:
    """energy_accumulator of a gpu_metrics table, in 2^-16 J since the driver was loaded; None where it has none that we know."""
    if len(metrics) < 4:
        return None
    size, form, content = struct.unpack_from("<HBB", metrics)
    offset = _ENERGY.get(content) if form == 1 else None
    if offset is None or min(size, len(metrics)) < offset + 8:
        return None
    (value,) = struct.unpack_from("<Q", metrics, offset)
    return int(value) if value != _NO_VALUE else None


def ras(text: str) -> dict[str, int]:
    """Errors by kind, of ``ue: 0`` and, on lines of their own, ``ce: 3`` and, of some blocks on newer kernels, ``de: 0``; else empty."""
    match = _RAS.fullmatch(text)
    return {kind: int(count) for kind, count in zip(_RAS_KINDS, match.groups(), strict=True) if count} if match else {}


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _text(fs: HostFS, path: str) -> str:
    try:
        return fs.text(path)[:128]
    except Unavailable:
        return ""
