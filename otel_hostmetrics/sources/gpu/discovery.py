"""Which vendors' parts this host has use for; and where there is none, what is missing: device, driver or library."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import gpu_pci, nvidia_smi, nvml
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Gpu
from otel_hostmetrics.sources.gpu.backend import Backend
from otel_hostmetrics.sources.gpu.points import Names

Maker: TypeAlias = Callable[[HostFS, Gpu, Names], Backend]

_DRIVERS = {"NVIDIA": ("nvidia",), "AMD": ("amdgpu",), "Intel": ("i915", "xe")}
_NVIDIA_SIGNS = ("dev/nvidiactl", "dev/dxg")  # also where the PCI bus shows no GPU: Jetson, WSL 2


@dataclass(slots=True)
class Found:
    """The parts to be made, by name; problems of GPUs that no part can read; and that there is none, if so."""

    makers: dict[str, Maker] = field(default_factory=dict)
    problems: list[Unavailable] = field(default_factory=list)
    off: Unavailable | None = None


def discover(fs: HostFS, settings: Gpu) -> Found:
    """Looks at sysfs, procfs and /dev only. Loads no driver, wakes no GPU."""
    present, found = gpu_pci.gpus(fs), Found()
    driven = {gpu.vendor for gpu in present if gpu.driver in _DRIVERS[gpu.vendor]}
    if (
        "NVIDIA" in driven
        or os.path.exists(fs.proc("driver/nvidia/version"))
        or any(os.path.exists(fs.path(sign)) for sign in _NVIDIA_SIGNS)
    ):
        _find_nvidia(settings, found)
        driven.add("NVIDIA")
    if "AMD" in driven:
        found.makers["amd"] = _amd
    if "Intel" in driven:
        found.makers["intel"] = _intel
    # A GPU that was given to another driver (vfio-pci, nouveau) is a problem only where there is nothing else to read.
    undriven = [gpu for gpu in present if gpu.vendor not in driven]
    found.problems += [_undriven(gpu) for gpu in undriven if not gpu.driver or not found.makers]
    if not found.makers and not found.problems:
        found.off = Unavailable(Reason.ABSENT, fs.sys("bus/pci/devices"), "no GPU of NVIDIA, AMD or Intel")
    return found


def _find_nvidia(settings: Gpu, found: Found) -> None:
    try:
        nvml.find(settings.nvml_library)
    except Unavailable as error:
        if settings.nvidia_smi == "auto" and nvidia_smi.program():
            found.makers["nvidia-smi"] = _nvidia_smi
        else:
            found.problems.append(error)
    else:
        found.makers["nvidia"] = _nvidia


def _undriven(gpu: gpu_pci.Gpu) -> Unavailable:
    wanted = " or ".join(_DRIVERS[gpu.vendor])
    bound = f"bound to {gpu.driver}" if gpu.driver else "bound to no driver"
    return Unavailable(Reason.ABSENT, f"{gpu.vendor} GPU {gpu.address}", f"{bound}; its driver {wanted} is not loaded")


# Imported when there is such a GPU: resident memory is a feature.
def _nvidia(fs: HostFS, settings: Gpu, names: Names) -> Backend:
    from otel_hostmetrics.sources.gpu.nvidia import Nvidia

    return Nvidia(fs, settings, names)


def _nvidia_smi(fs: HostFS, settings: Gpu, names: Names) -> Backend:
    from otel_hostmetrics.sources.gpu.smi import NvidiaSmi

    return NvidiaSmi(fs, settings, names)


def _amd(fs: HostFS, settings: Gpu, names: Names) -> Backend:
    from otel_hostmetrics.kernel.amdgpu import Amdgpu
    from otel_hostmetrics.sources.gpu.sysfs import SysfsGpus

    return SysfsGpus(fs, settings, names, "AMD", _DRIVERS["AMD"], Amdgpu)


def _intel(fs: HostFS, settings: Gpu, names: Names) -> Backend:
    from otel_hostmetrics.kernel.intel_gpu import IntelGpu
    from otel_hostmetrics.sources.gpu.sysfs import SysfsGpus

    make = functools.partial(IntelGpu, xe_engines=settings.xe_engines)
    return SysfsGpus(fs, settings, names, "Intel", _DRIVERS["Intel"], make)
