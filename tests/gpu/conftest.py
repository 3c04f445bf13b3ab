"""A libnvidia-ml.so.1 of our own, and hosts that have NVIDIA GPUs in sysfs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from otel_hostmetrics.settings import Gpu as GpuSettings
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.gpu import Gpu
from tests.gpu.sysfs_hosts import metrics, place
from tests.hosts.recorded import unpack

SOURCE = Path(__file__).with_name("fakenvml.c")
_IN_CI = os.environ.get("CI") == "true"  # there, a missing compiler fails the test
needs_compiler = pytest.mark.skipif(not shutil.which("cc") and not _IN_CI, reason="needs a C compiler (cc)")


def compiled(directory: Path, *options: str) -> Path:
    """The library, in a directory of its own: what LD_LIBRARY_PATH or gpu.nvml_library names."""
    path = directory / "libnvidia-ml.so.1"
    soname = "-Wl,-soname,libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-pthread", soname, *options, "-o", str(path), str(SOURCE)], check=True)
    return path


class Fake:
    """The library in this process: a fault or a value is set by name, as fakenvml.c explains."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self._library.fakenvml_calls.restype = self._library.fakenvml_references.restype = ctypes.c_longlong

    def set(self, **values: int) -> None:
        """``lost_0=1`` is the setting lost.0."""
        for key, value in values.items():
            self._library.fakenvml_set(key.replace("_", ".", 1).encode(), ctypes.c_longlong(value))

    def clear(self) -> None:
        self._library.fakenvml_clear()

    def calls(self, gpu: int) -> int:
        """Calls that reached a GPU."""
        return self._library.fakenvml_calls(gpu)

    @property
    def references(self) -> int:
        """nvmlInit less nvmlShutdown."""
        return self._library.fakenvml_references()


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    if not shutil.which("cc") and not _IN_CI:
        pytest.skip("needs a C compiler (cc)")
    return Fake(compiled(tmp_path_factory.mktemp("nvml")))


@pytest.fixture
def fake(library):
    """Two GPUs and no fault; whoever uses it must have shut it down in the end."""
    library.clear()
    yield library
    library.clear()
    assert library.references == 0


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


def add_gpu(
    root: Path, address: str, *, vendor: str = "0x10de", driver: str = "nvidia", kind: str = "0x030200", control: str = "on"
) -> Path:
    """A GPU on the PCI bus of the host below *root*: its directory in sysfs."""
    device = root / "sys/devices/pci0000:00" / address
    for name, content in {
        "vendor": vendor,
        "device": "0x2335",
        "class": kind,
        "power/control": control,
        "power/runtime_status": "active",
    }.items():
        write(device / name, content)
    (root / "sys/bus/pci/devices").mkdir(parents=True, exist_ok=True)
    (root / "sys/bus/pci/devices" / address).symlink_to(os.path.join("../../../devices/pci0000:00", address))
    if driver:
        (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
        (device / "driver").symlink_to(os.path.join("../../../bus/pci/drivers", driver))
    return device


def count_by_software(root: Path, pmu: str, **events: str) -> None:
    """Let a recorded PMU be the running kernel's own, in which event 0 and 1 are clocks and 2 counts page faults."""
    directory = root / "sys/bus/event_source/devices" / pmu
    (directory / "type").write_text("1\n")
    for file in (directory / "events").iterdir():
        file.unlink()
    for name, text in events.items():
        (directory / "events" / name.replace("_", "-")).write_text(f"{text}\n")


@pytest.fixture
def host(tmp_path):
    """Two NVIDIA GPUs, as the library has them."""
    for address in ("0000:01:00.0", "0000:02:00.0"):
        add_gpu(tmp_path, address)
    return tmp_path


@pytest.fixture
def amd(tmp_path):
    """The host, with its files of several lines and of bytes."""
    fs = unpack("gpu-amd", tmp_path)
    instinct = tmp_path / "sys/devices/pci0000:00/0000:c1:00.0"
    place(instinct / "ras/umc_err_count", "gpu-amd/ras")
    (instinct / "gpu_metrics").write_bytes(metrics(1, 6, 16, 3 << 16))
    for pid, descriptor in ((2311, 5), (2311, 6), (2312, 9)):
        place(tmp_path / f"proc/{pid}/fdinfo/{descriptor}", "gpu-amd/fdinfo")
    return fs


@pytest.fixture
def intel(tmp_path):
    fs = unpack("gpu-intel", tmp_path)
    place(tmp_path / "proc/4711/fdinfo/12", "gpu-intel/fdinfo")
    return fs


@pytest.fixture
def opened():
    sources = []

    def make(fs, **more):
        sources.append(Gpu(fs, Settings(gpu=GpuSettings(**more))))
        sources[-1].open()
        return sources[-1]

    yield make
    for source in sources:
        source.close()
