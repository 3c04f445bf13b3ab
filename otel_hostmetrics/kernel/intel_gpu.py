"""Intel GPUs: sysfs of the drivers i915 and xe, no Level Zero.

Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon, sysfs-driver-intel-xe-hwmon; drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c;
drivers/gpu/drm/xe/xe_gt_freq.c, xe_gt_throttle.c, xe_survivability_mode.c. Neither driver tells utilization in sysfs: their PMUs do
(intel_pmu.py), and processes (drm_fdinfo.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import intel_pmu
from otel_hostmetrics.kernel.gpu_files import Files, Value, link_state, sensors
from otel_hostmetrics.kernel.gpu_pci import Gpu
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.pci import slot_link

_CARD, _PACKAGE = "energy.card.input", "energy.pkg.input"
_THROTTLE: Final = "throttle_reason_"  # i915; xe: throttle/reason_*


class IntelGpu:
    """One GPU. ``names`` are those of the values read() gives; clocks and throttle reasons carry the GT's number.

    Engines of i915 are always counted, those of xe only with *xe_engines*: that keeps the GPU awake.
    """

    def __init__(self, fs: HostFS, gpu: Gpu, xe_engines: bool = False) -> None:
        self._fs, self._gpu = fs, gpu
        self._files = Files((*_i915(fs, gpu.path), *_xe(fs, gpu.path), *_sensors(fs, gpu.path)))
        self.denied = self._files.denied
        self._slow = dict(self._rarely())
        self._engines = self._open_engines(xe_engines)
        self.fast_names = (*self._files.names, *(self._engines.names if self._engines else ()))
        self.names = (*self.fast_names, *self._slow)

    def read(self, slow: bool) -> list[Value]:
        """*slow* reads again what rarely changes: link state, and whether the driver only waits for new firmware."""
        if slow:
            fresh = dict(self._rarely())
            self._slow = {name: fresh.get(name) for name in self._slow}
        return [*self._files.read(), *(self._engines.read() if self._engines else ()), *self._slow.values()]

    @property
    def gone(self) -> bool:
        """Whether the driver was unloaded since: nothing is read through its old files again."""
        return self._files.gone

    def identity(self) -> dict[str, str]:
        """Nothing that sysfs tells."""
        return {}

    def _open_engines(self, xe_engines: bool) -> intel_pmu.Engines | None:
        address = self._gpu.address
        try:
            if self._gpu.driver == "i915":
                pmu = intel_pmu.i915(self._fs, address)
            elif xe_engines:
                pmu = intel_pmu.xe(self._fs, address, [int(gt) for gt, _ in _gts(self._fs, self._gpu.path) if gt.isdecimal()])
            else:
                return None
        except Unavailable as error:
            self.denied += [error] if error.reason is not Reason.ABSENT else []
            return None
        engines = intel_pmu.Engines(pmu)
        self.denied += engines.denied
        return engines

    def _rarely(self) -> Iterator[tuple[str, Value]]:
        yield from link_state(slot_link(self._fs, self._gpu.path))
        if self._gpu.driver == "xe":
            yield "firmware.broken", int(os.path.exists(f"{self._gpu.path}/survivability_mode"))
        sizes = Files((tile, f"{self._gpu.path}/{tile}/physical_vram_size_bytes") for tile in _names(self._fs, self._gpu.path))
        if sizes.names:  # xe
            yield "vram.total", sum(size for size in sizes.read() if size)
        sizes.close()

    def close(self) -> None:
        """May be called again."""
        self._files.close()
        if self._engines:
            self._engines.close()


def _sensors(fs: HostFS, device: str) -> Iterator[tuple[str, str]]:
    """Those that say something.

    In its automatic mode pwmN of xe is 0 however fast the fan turns. Up to Linux 6.16 the energy of a whole Battlemage card is 0, that
    of its package is not.
    """
    found = {name: path for name, path in sensors(fs, device) if not name.startswith("pwm.")}
    energy = Files((name, found[name]) for name in (_CARD, _PACKAGE) if name in found)
    counted = dict(zip(energy.names, energy.read(), strict=True))
    energy.close()
    if counted.get(_CARD) == 0 and counted.get(_PACKAGE):
        del found[_CARD]
    yield from found.items()


def _i915(fs: HostFS, device: str) -> Iterator[tuple[str, str]]:
    """drm/cardN/gt/gtM/*, since 5.18; before, the only GT had its files in drm/cardN/."""
    for card in (name for name in _names(fs, f"{device}/drm") if name.startswith("card")):
        root = f"{device}/drm/{card}"
        for gt in (name for name in _names(fs, f"{root}/gt") if name.startswith("gt")):
            number = gt.removeprefix("gt")
            yield f"gt.{number}.clock_mhz", f"{root}/gt/{gt}/rps_act_freq_mhz"
            yield f"gt.{number}.clock.max_mhz", f"{root}/gt/{gt}/rps_max_freq_mhz"
            for name in _names(fs, f"{root}/gt/{gt}"):
                if name.startswith(_THROTTLE) and name != f"{_THROTTLE}status":
                    yield f"gt.{number}.throttle.{name.removeprefix(_THROTTLE)}", f"{root}/gt/{gt}/{name}"
        yield "gt.0.clock_mhz", f"{root}/gt_act_freq_mhz"
        yield "gt.0.clock.max_mhz", f"{root}/gt_max_freq_mhz"


def _xe(fs: HostFS, device: str) -> Iterator[tuple[str, str]]:
    """tileN/gtM/freq0/*, since 6.8. GTs are numbered over all tiles."""
    for number, gt in _gts(fs, device):
        root = f"{gt}/freq0"
        yield f"gt.{number}.clock_mhz", f"{root}/act_freq"
        yield f"gt.{number}.clock.max_mhz", f"{root}/max_freq"
        for name in _names(fs, f"{root}/throttle"):
            if name.startswith("reason_"):
                yield f"gt.{number}.throttle.{name.removeprefix('reason_')}", f"{root}/throttle/{name}"


def _gts(fs: HostFS, device: str) -> Iterator[tuple[str, str]]:
    """xe: (number, directory) of each."""
    for tile in (name for name in _names(fs, device) if name.startswith("tile")):
        for gt in (name for name in _names(fs, f"{device}/{tile}") if name.startswith("gt")):
            yield gt.removeprefix("gt"), f"{device}/{tile}/{gt}"


def _names(fs: HostFS, directory: str) -> list[str]:
    try:
        return fs.names(directory)
    except Unavailable:
        return []
