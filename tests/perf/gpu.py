"""What a cycle over NVIDIA GPUs costs on our side: 8 GPUs of tests/gpu/fakenvml.c, whose calls take next to no time.

What the real driver takes for each call comes on top, and is the same for whoever asks. Compared with the functions of
nvidia-ml-py, as exporters in Python usually call them.
"""

from __future__ import annotations

import ctypes
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Gpu as GpuSettings
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.gpu import Gpu
from tests.gpu.conftest import add_gpu, compiled
from tests.perf.measure import Bound, Mode, Report, Subject, compare, in_process

_GPUS = 8
_TARGET = Bound(150.0)  # us per cycle of 8 GPUs with 40 readings each
_BINDING = "nvidia-ml-py, a call per value"


def run(mode: Mode) -> Report:
    report = Report()
    if not shutil.which("cc"):
        report.skipped.append("GPU: no C compiler (cc)")
        return report
    with tempfile.TemporaryDirectory() as directory:
        report.results = _measure(Path(directory), mode)
    return report


def _measure(directory: Path, mode: Mode) -> list:
    library = compiled(directory, "-O2")
    ctypes.CDLL(str(library)).fakenvml_set(b"gpus", ctypes.c_longlong(_GPUS))
    for number in range(1, 1 + _GPUS):
        add_gpu(directory, f"0000:{number:02x}:00.0")
    sources = {
        name: Gpu(
            HostFS(str(directory), procfs="/proc"), Settings(gpu=GpuSettings(nvml_library=str(library), xid=False, processes=processes))
        )
        for name, processes in (("Gpu.read()", False), ("Gpu.read(), processes too", True))
    }
    try:
        series = sum(len(column.series) for column in sources["Gpu.read()"].read().columns.values())
        values = len(sources["Gpu.read()"]._parts["nvidia"]._session._devices[0]._batches.fast.names)
        subjects = [
            Subject(name, in_process(source.read, 1, mode.seconds), None if "too" in name else _TARGET, _BINDING)
            for name, source in sources.items()
        ]
        subjects.append(Subject(_BINDING, in_process(_with_binding(), 1, mode.seconds)))
        return compare(f"GPU, {_GPUS} x {values} values a cycle, {series} series", "us/cycle", subjects, mode.rounds)
    finally:
        for source in sources.values():
            source.close()


def _with_binding() -> Callable[[], object]:
    """The same values as Gpu.read()'s fast ones, without making anything of them."""
    import pynvml as nvml

    handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(_GPUS)]
    plain = (
        nvml.nvmlDeviceGetUtilizationRates, nvml.nvmlDeviceGetEncoderUtilization, nvml.nvmlDeviceGetDecoderUtilization,
        nvml.nvmlDeviceGetPerformanceState, nvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    )  # fmt: skip
    fields = [83, 186, 185, 190, 74, 75, 76, 77, 78, 79, 269, 270, 271, 94, 197, 198, (138, 0xFFFFFFFF), (139, 0xFFFFFFFF), 3, 4, 230]

    def read() -> list[object]:
        found: list[object] = []
        for handle in handles:
            found += [call(handle) for call in plain]
            found.append(nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)
            found.append(nvml.nvmlDeviceGetTemperatureV(handle, 0))
            found.append(nvml.nvmlDeviceGetFanSpeed_v2(handle, 0))
            found += [nvml.nvmlDeviceGetClockInfo(handle, domain) for domain in range(4)]
            found += [each.value.ullVal for each in nvml.nvmlDeviceGetFieldValues(handle, fields)]
        return found

    return read
