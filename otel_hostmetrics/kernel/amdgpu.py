"""AMD GPUs: sysfs of the amdgpu driver, no ROCm library.

Documentation/gpu/amdgpu/thermal.rst, drivers/gpu/drm/amd/pm/amdgpu_pm.c, amdgpu/amdgpu_ras.c. Not ``pcie_bw``: reading it takes a
second. Any of these files wakes a GPU that sleeps; see gpu_pci.RuntimePower.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Final

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.amdgpu_metrics import ENERGY, GpuMetrics
from otel_hostmetrics.kernel.gpu_files import Files, Value, hwmons, link_state, sensors
from otel_hostmetrics.kernel.gpu_pci import Gpu
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.pci import slot_link

_FILES: Final = {
    "busy.general_percent": "gpu_busy_percent", "busy.memory_percent": "mem_busy_percent", "busy.video_percent": "vcn_busy_percent",
    "vram.total": "mem_info_vram_total", "vram.used": "mem_info_vram_used", "gtt.total": "mem_info_gtt_total",
    "gtt.used": "mem_info_gtt_used",
    "pcie.replays": "pcie_replay_count",
}  # fmt: skip
_RAS: Final = re.compile(r"\s*ue:\s*(\d{1,18})\s+ce:\s*(\d{1,18})(?:\s+de:\s*(\d{1,18}))?\s*")
_RAS_KINDS: Final = ("uncorrected", "corrected", "deferred")
_MI300A: Final = 0x74A0  # PCI device: an APU whose gpu_metrics have the form of a GPU's
_BAD_PAGE: Final = re.compile(r"0x[0-9a-f]+ : 0x[0-9a-f]+ : ([RPF])")  # reserved; to be reserved; cannot be


class Amdgpu:
    """One GPU. ``names`` are those of the values read() gives, in its units.

    Power of an APU is that of its processors too, which others measure as well: its names begin with ``socket_``, and its energy,
    which is of the same kind, is left out.
    """

    def __init__(self, fs: HostFS, gpu: Gpu) -> None:
        self._fs, self._gpu = fs, gpu
        self._metrics = GpuMetrics(f"{gpu.path}/gpu_metrics", gpu.device)
        apu = self._is_apu()
        found = ((f"socket_{name}" if apu and name.startswith("power.") else name, path) for name, path in sensors(fs, gpu.path))
        self._files = Files((*((name, f"{gpu.path}/{file}") for name, file in _FILES.items()), *found))
        self.denied = self._files.denied
        self._metrics.keep([name for name in self._metrics.names if name != ENERGY or not apu])
        self._slow = dict(self._rarely())
        self.fast_names = (*self._files.names, *self._metrics.names)
        self.names = (*self.fast_names, *self._slow)

    def read(self, slow: bool) -> list[Value]:
        """*slow* reads again what rarely changes: error counts, bad pages, link state."""
        if slow:
            fresh = dict(self._rarely())
            self._slow = {name: fresh.get(name) for name in self._slow}
        return [*self._files.read(), *self._metrics.read(), *self._slow.values()]

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
        if self._gpu.device == _MI300A or self._metrics.format > b"\1":
            return True
        return any(_text(self._fs, f"{hwmon}/in1_label") == "vddnb" for hwmon in hwmons(self._fs, self._gpu.path))

    def _rarely(self) -> Iterator[tuple[str, Value]]:
        yield from link_state(slot_link(self._fs, self._gpu.path))
        try:
            blocks = self._fs.names(f"{self._gpu.path}/ras")
        except Unavailable:  # no ECC memory
            return
        with contextlib.suppress(Unavailable):
            yield "pages.unusable", bad_pages(self._fs.text(f"{self._gpu.path}/ras/gpu_vram_bad_pages"))
        for block in blocks:
            counts = ras(_text(self._fs, f"{self._gpu.path}/ras/{block}")) if block.endswith("_err_count") else {}
            for kind, count in counts.items():
                yield f"ras.{block.removesuffix('_err_count')}.{kind}", count

    def close(self) -> None:
        """May be called again."""
        self._files.close()
        self._metrics.close()


def ras(text: str) -> dict[str, int]:
    """Errors by kind, of ``ue: 0`` and, on lines of their own, ``ce: 3`` and, of some blocks on newer kernels, ``de: 0``; else empty."""
    match = _RAS.fullmatch(text)
    return {kind: int(count) for kind, count in zip(_RAS_KINDS, match.groups(), strict=True) if count} if match else {}


def bad_pages(text: str) -> int:
    """Whether the driver still uses a page of memory that it knows to be bad: 0 also where it knows of none."""
    return int(any(state != "R" for state in _BAD_PAGE.findall(text)))


def _text(fs: HostFS, path: str) -> str:
    try:
        return fs.text(path)[:128]
    except Unavailable:
        return ""
