"""PCI functions behind devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_hostmetrics.kernel import pci
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.pci import Function

BUS = "sys/devices/pci0000:3a/0000:3a:00.0"


def function(root: Path, address: str, files: dict[str, str], links: dict[str, str]) -> str:
    """A function as sysfs shows it, and the link from an RDMA device to it."""
    directory = root / BUS / address
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_text(f"{content}\n")
    for name, target in links.items():
        os.symlink(target, directory / name)
    link = root / "sys/class/infiniband/mlx5_0/device"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    os.symlink(f"../../../../{BUS}/{address}", link)
    return str(link)


def test_a_physical_function(tmp_path: Path) -> None:
    files = {
        "vendor": "0x15b3", "device": "0x1021", "numa_node": "1", "sriov_numvfs": "8",
        "current_link_speed": "32.0 GT/s PCIe", "current_link_width": "16", "max_link_speed": "32.0 GT/s PCIe", "max_link_width": "16",
    }  # fmt: skip
    link = function(tmp_path, "0000:3b:00.0", files, {"driver": "../../../../bus/pci/drivers/mlx5_core"})
    read = pci.function(HostFS(str(tmp_path)), link)
    assert read == Function("0000:3b:00.0", 0x15B3, 0x1021, "mlx5_core", 1, 32.0, 16, 32.0, 16, 8, None)


def test_a_virtual_function_knows_its_physical_one_and_no_link(tmp_path: Path) -> None:
    files = {"vendor": "0x15b3", "device": "0x101e", "numa_node": "-1", "current_link_speed": "Unknown", "current_link_width": "0"}
    link = function(tmp_path, "0000:3b:02.3", files, {"physfn": "../0000:3b:00.0"})
    read = pci.function(HostFS(str(tmp_path)), link)
    assert read == Function("0000:3b:02.3", 0x15B3, 0x101E, None, None, None, None, None, None, None, "0000:3b:00.0")


def test_nonsense_in_every_file(tmp_path: Path) -> None:
    names = ("vendor", "device", "numa_node", "sriov_numvfs", "current_link_speed", "current_link_width")
    link = function(tmp_path, "0000:3b:00.0", dict.fromkeys(names, "?"), {})
    assert pci.function(HostFS(str(tmp_path)), link) == Function("0000:3b:00.0", *[None] * 10)


def test_what_is_no_pci_function(tmp_path: Path) -> None:
    fs = HostFS(str(tmp_path))
    assert pci.function(fs, str(tmp_path / "missing")) is None
    assert pci.function(fs, str(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "speed"), [("16.0 GT/s PCIe", 16.0), ("2.5 GT/s", 2.5), ("8 GT/s", 8.0), ("Unknown", None), ("", None), ("GT/s", None)]
)
def test_link_speeds(text: str, speed: float | None) -> None:
    assert pci.parse_link_speed(text) == speed


CARD = ("0000:00:01.1", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0")  # a root port, the ports of the card's switch, its GPU
SLOT, INSIDE = pci.Link(16.0, 8, 32.0, 16), pci.Link(32.0, 16, 32.0, 16)


def card(root: Path, *vendors: str) -> str:
    """The functions of CARD that have a vendor here, the last ones; the directory of the GPU."""
    path = root / "sys/devices/pci0000:00"
    for address, vendor in zip(CARD[-len(vendors) :], vendors, strict=True):
        path /= address
        found = SLOT if address == CARD[1] else INSIDE
        path.mkdir(parents=True)
        (path / "vendor").write_text(f"{vendor}\n")
        for name, value in (("current_link_speed", f"{found.speed} GT/s PCIe"), ("current_link_width", found.width),
                            ("max_link_speed", f"{found.max_speed} GT/s PCIe"), ("max_link_width", found.max_width)):  # fmt: skip
            (path / name).write_text(f"{value}\n")
    return str(path)


@pytest.mark.parametrize(
    ("vendors", "expected"),
    [
        (("0x1022", "0x1002", "0x1002", "0x1002"), SLOT),  # Navi: its own switch
        (("0x8086", "0x8086", "0x8086", "0x8086"), SLOT),  # Arc, behind a root port of Intel's too
        (("0x8086", "0x10b5", "0x10b5", "0x8086"), INSIDE),  # a switch of the board
        (("0x8086", "0x8086", "0x8086"), INSIDE),  # the upper one is a root port
        (("0x8086", "0x8086"), INSIDE),
        (("0x8086",), INSIDE),  # in the processor
    ],
)
def test_the_link_of_a_card_is_that_of_its_own_switch(vendors: tuple[str, ...], expected: pci.Link, tmp_path: Path) -> None:
    assert pci.slot_link(HostFS(str(tmp_path)), card(tmp_path, *vendors)) == expected
