"""GPU performance monitoring of NVML (GPM; Hopper and newer): how busy each unit was between two samples.

nvml.h, section "GPM": the GPU's own counters are copied into a sample, and two samples give percentages and MiB/s. They must
be at least 100 ms apart.
"""

from __future__ import annotations

import time
from typing import Any, Final

from otel_hostmetrics.kernel.nvml import SUCCESS, Device, Nvml
from otel_hostmetrics.kernel.nvml_batch import Value, check

PERCENT: Final = {  # nvmlGpmMetricId_t
    "graphics": 1, "sm": 2, "sm_occupancy": 3, "integer": 4, "tensor": 5, "tensor_dfma": 6, "tensor_hmma": 7, "tensor_dmma": 8,
    "tensor_imma": 9, "dram": 10, "fp64": 11, "fp32": 12, "fp16": 13,
}  # fmt: skip
_MEBIBYTES: Final = {"pcie.transmit": 20, "pcie.receive": 21}
NAMES: Final = tuple(f"profile.{name}" for name in PERCENT) + tuple(f"profile.{name}_mib" for name in _MEBIBYTES)
_APART: Final = 0.1  # s


class Profile:
    """Two samples of one GPU or MIG instance, used in turn. read() gives one value per entry of NAMES."""

    def __init__(self, nvml: Nvml, device: Device, parent: Device) -> None:
        """Raises Unavailable where the driver has no GPM; see supported() for the GPU."""
        self._nvml, self._device, self._parent = nvml, device, parent
        self._samples: list[Any] = []
        binding = nvml.binding
        try:
            self._samples = [binding.nvmlGpmSampleAlloc(), binding.nvmlGpmSampleAlloc()]
            self._request = binding.c_nvmlGpmMetricsGet_t()
            self._take(0)
        except binding.NVMLError as error:
            self.close()
            raise nvml.unavailable("nvmlGpmSampleGet", error.value) from None
        self._request.version = binding.NVML_GPM_METRICS_GET_VERSION
        self._request.numMetrics = len(NAMES)
        for place, number in enumerate((*PERCENT.values(), *_MEBIBYTES.values())):
            self._request.metrics[place].metricId = number
        self._taken = time.monotonic()
        self._newer = 1

    def read(self) -> list[Value]:
        """None for each unit that did not answer, and for all if the last reading was just now. Raises Failure."""
        if time.monotonic() - self._taken < _APART:
            return [None] * len(NAMES)
        binding, request, newer = self._nvml.binding, self._request, self._newer
        try:
            self._take(newer)
            request.sample1, request.sample2 = self._samples[1 - newer], self._samples[newer]
            self._taken, self._newer = time.monotonic(), 1 - newer
            binding.nvmlGpmMetricsGet(request)
        except binding.NVMLError as error:
            check("nvmlGpmMetricsGet", error.value)
            return [None] * len(NAMES)
        answers = (request.metrics[place] for place in range(len(NAMES)))
        return [answer.value if answer.nvmlReturn == SUCCESS and answer.value == answer.value else None for answer in answers]

    def _take(self, place: int) -> None:
        binding, sample = self._nvml.binding, self._samples[place]
        if self._device.gpu_instance >= 0:
            binding.nvmlGpmMigSampleGet(self._parent.handle, self._device.gpu_instance, sample)
        else:
            binding.nvmlGpmSampleGet(self._device.handle, sample)

    def close(self) -> None:
        """May be called again."""
        samples, self._samples = self._samples, []
        for sample in samples:
            try:
                self._nvml.binding.nvmlGpmSampleFree(sample)
            except self._nvml.binding.NVMLError:
                continue


def supported(nvml: Nvml, device: Device) -> bool:
    """Whether this GPU and driver have GPM."""
    try:
        return bool(nvml.binding.nvmlGpmQueryDeviceSupport(device.handle).isSupportedDevice)
    except nvml.binding.NVMLError:
        return False
