"""Which devices and ports are read, and that nothing of the others is opened."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from tests.hosts.gentree import generate
from tests.sources.rdma_host import opened, port, stats, values


def host(root: Path) -> None:
    """mlx5_0 and mlx5_1 with two ports; mlx5_1's are InfiniBand."""
    generate(root, 2, ports=2)
    for number in (1, 2):
        (port(root, "mlx5_1", number) / "link_layer").write_text("InfiniBand\n")


def mine(root: Path, device: str, number: int | None = None, spare: tuple[str, ...] = ()) -> None:
    """Make each file of a port, or of a device, a FIFO: opening one for reading would hang for ever."""
    directory = port(root, device, number or 1)
    for path in (directory if number else directory.parent.parent).rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name not in spare:
            path.unlink()
            os.mkfifo(path)


def read_in_time(root: Path, **chosen: object) -> set[tuple[str, str]]:
    """(device, port) of every counter; fails when a FIFO holds the reader."""
    found: list[set[tuple[str, str]]] = []

    def read() -> None:
        with opened(root, **chosen) as source:
            source.read()
            found.append({(device, number) for device, number, _ in stats(source.read())})

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert not reader.is_alive(), "a file of an excluded device or port was opened"
    return found[0]


ALL = {("mlx5_0", "1"), ("mlx5_0", "2"), ("mlx5_1", "1"), ("mlx5_1", "2")}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ALL),
        ({"devices": ("mlx5_0",)}, {("mlx5_0", "1"), ("mlx5_0", "2")}),
        ({"devices": ("mlx5_*/2",)}, {("mlx5_0", "2"), ("mlx5_1", "2")}),
        ({"devices": ("mlx5_0/1", "mlx5_1")}, ALL - {("mlx5_0", "2")}),
        ({"exclude_devices": ("mlx5_1",)}, {("mlx5_0", "1"), ("mlx5_0", "2")}),
        ({"exclude_devices": ("*/2",)}, {("mlx5_0", "1"), ("mlx5_1", "1")}),
        ({"devices": ("mlx5_0",), "exclude_devices": ("mlx5_0/1",)}, {("mlx5_0", "2")}),
        ({"mode": "ib"}, {("mlx5_1", "1"), ("mlx5_1", "2")}),
        ({"mode": "roce"}, {("mlx5_0", "1"), ("mlx5_0", "2")}),
    ],
)
def test_what_is_chosen_is_read_and_nothing_else_is_opened(
    chosen: dict[str, object], expected: set[tuple[str, str]], tmp_path: Path
) -> None:
    host(tmp_path)
    for device in ("mlx5_0", "mlx5_1"):
        ports = {int(number) for name, number in expected if name == device}
        if ports:
            for number in {1, 2} - ports:
                mine(tmp_path, device, number)
        else:
            mine(tmp_path, device, spare=("link_layer", "node_type", *DEVICE_FILES) if "mode" in chosen else ())
    assert read_in_time(tmp_path, **chosen) == expected


# To tell RoCE from iWARP and EFA a mode needs the node type and the driver; the kernel answers these from memory.
DEVICE_FILES = ("fw_ver", "hca_type", "board_id", "hw_rev", "node_guid", "sys_image_guid", "node_desc", "0")


def test_nothing_chosen_is_absent_and_names_the_settings(tmp_path: Path) -> None:
    host(tmp_path)
    with pytest.raises(Unavailable) as caught, opened(tmp_path, devices=("mlx4_*",)):
        pass
    assert caught.value.reason is Reason.ABSENT
    assert "rdma.devices" in caught.value.detail


@pytest.mark.parametrize(
    ("node_type", "link_layer", "protocol"),
    [
        ("1: CA", "InfiniBand", "infiniband"),
        ("1: CA", "Ethernet", "roce"),
        ("4: RNIC", "Ethernet", "iwarp"),
        ("7: unspecified", "Unspecified", "efa"),
    ],
)
def test_the_protocol_is_detected(node_type: str, link_layer: str, protocol: str, tmp_path: Path) -> None:
    generate(tmp_path, 1)
    (port(tmp_path, "mlx5_0") / "link_layer").write_text(f"{link_layer}\n")
    (port(tmp_path, "mlx5_0").parents[1] / "node_type").write_text(f"{node_type}\n")
    with opened(tmp_path) as source:
        (labels,) = values(source.read(), "rdma.port.info")
    assert protocol in labels
