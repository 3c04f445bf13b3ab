"""One run of the machine for all tests: the guest gathers, the tests judge."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.machine.kernel import Kernel
from tests.machine.machine import Finished, run_chapters

_CHAPTERS = ("bpf", "rdma")

Chapter = Callable[[str], Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory starts other programs; what uses the machine is marked so."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)
            if "machine" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.machine)


def skip(missing: str) -> None:
    """Skip for what is missing; in CI that is a failure."""
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    kernel = Kernel.current()
    skip(kernel.missing())
    return kernel


@pytest.fixture(scope="session")
def machine(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The machine after all chapters."""
    return run_chapters(kernel, _CHAPTERS, tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def chapter(machine: Finished) -> Chapter:
    """What a chapter gathered; fails the test if the chapter did not come to its end."""

    def read(name: str) -> Any:
        record = json.loads((machine.folder / f"{name}.json").read_text(encoding="utf-8"))
        if "error" in record:
            pytest.fail(f"chapter {name} in the machine:\n{record['error']}", pytrace=False)
        return record

    return read
