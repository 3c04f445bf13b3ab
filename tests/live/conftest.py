"""The running kernel as a fixture: what it needs, what it must not leave behind."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.bpf_ids import ObjectsById
from tests.live.bpfload import Loader
from tests.live.zoo import cgroup2, populate


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory is live."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session", autouse=True)
def _kernel() -> None:
    """Skip where BPF cannot be used, and say why; in CI that is a failure."""
    try:
        ObjectsById().ids("program")
    except Unavailable as reason:
        message = f"the running kernel's BPF: {reason}{f', needs {reason.needs}' if reason.needs else ''}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(autouse=True)
def _no_descriptor_left(_kernel: None) -> Iterator[None]:
    """A test that leaks a descriptor fails: it would keep a BPF object alive for ever."""
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) <= len(before)  # fewer: other tests' connections end at their own time


@pytest.fixture
def loader(_no_descriptor_left: None) -> Iterator[Loader]:
    with Loader() as loader:
        yield loader


@pytest.fixture(scope="module")
def zoo(_kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loader, dict[str, int]]]:
    """One object of every type, and the ids of the links by species."""
    tracefs = tmp_path_factory.mktemp("tracefs")
    _mount("tracefs", tracefs)
    try:
        with Loader() as loader:
            yield loader, populate(loader, str(tracefs))
    finally:
        _unmount(tracefs)


@pytest.fixture
def bpffs(_kernel: None, tmp_path: Path) -> Iterator[Path]:
    """An empty BPF file system of our own."""
    directory = tmp_path / "bpffs"
    directory.mkdir()
    _mount("bpf", directory)
    yield directory
    _unmount(directory)


@pytest.fixture
def cgroup(_kernel: None) -> Iterator[str]:
    """A cgroup2 directory of our own, without processes."""
    directory = f"{cgroup2()}/test-{os.getpid()}"
    os.mkdir(directory)
    yield directory
    os.rmdir(directory)


def _mount(kind: str, directory: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(directory), kind.encode(), 0, None) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {kind}: {os.strerror(error)}")


def _unmount(directory: Path) -> None:
    ctypes.CDLL(None).umount2(os.fsencode(directory), 2)  # MNT_DETACH
