"""GIDs, P_Keys and network interfaces of a port, on recorded and on made trees."""

from __future__ import annotations

from pathlib import Path

from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.infiniband_tables import Gid, gids, netdevs, pkeys
from tests.hosts.recorded import unpack

UNUSED = "0000:0000:0000:0000:0000:0000:0000:0000"
PORT = "sys/class/infiniband/mlx5_0/ports/1"


def table(root: Path, name: str, entries: dict[int, str], length: int, unused: str) -> HostFS:
    directory = root / PORT / name
    directory.mkdir(parents=True)
    for number in range(length):
        (directory / str(number)).write_text(f"{entries.get(number, unused)}\n")
    return HostFS(str(root))


def gid(number: int) -> str:
    return f"fe80:0000:0000:0000:0000:0000:0000:{number + 1:04x}"


def test_gids_with_their_type_and_interface(tmp_path: Path) -> None:
    fs = unpack("rdma-rxe", tmp_path)
    assert gids(fs, "rxe0", 1) == [
        Gid(0, "fe80:0000:0000:0000:d420:b0ff:feb1:f9c7", "RoCE v2", "veth0"),
        Gid(1, "0000:0000:0000:0000:0000:ffff:0a09:0001", "RoCE v2", "veth0"),
    ]


def test_gids_of_infiniband_have_no_interface(tmp_path: Path) -> None:
    fs = unpack("rdma-ib", tmp_path)
    assert gids(fs, "fakeib0", 1) == [Gid(0, "fe80:0000:0000:0000:0002:c903:00fa:4e01", "IB/RoCE v1", None)]


def test_a_table_is_read_until_eight_unused_entries_in_a_row(tmp_path: Path) -> None:
    fs = table(tmp_path, "gids", {number: gid(number) for number in (0, 8, 16, 25)}, 1024, UNUSED)
    assert [entry.number for entry in gids(fs, "mlx5_0", 1)] == [0, 8, 16]


def test_a_full_table_is_read_up_to_the_limit(tmp_path: Path) -> None:
    fs = table(tmp_path, "gids", {number: gid(number) for number in range(300)}, 300, UNUSED)
    assert len(gids(fs, "mlx5_0", 1)) == 256
    assert len(gids(fs, "mlx5_0", 1, limit=5)) == 5


def test_partition_keys(tmp_path: Path) -> None:
    fs = table(tmp_path, "pkeys", {0: "0xffff", 1: "0x8001", 2: "nonsense", 3: "0x7fff"}, 128, "0x0000")
    assert pkeys(fs, "mlx5_0", 1) == [0xFFFF, 0x8001, 0x7FFF]


def test_no_tables_at_all(tmp_path: Path) -> None:
    fs = HostFS(str(tmp_path))
    assert gids(fs, "mlx5_0", 1) == pkeys(fs, "mlx5_0", 1) == netdevs(fs, "mlx5_0", 1) == []


def test_interfaces_by_the_gids(tmp_path: Path) -> None:
    fs = unpack("rdma-rxe", tmp_path)
    assert (netdevs(fs, "rxe0", 1), netdevs(fs, "rxe_dn", 1)) == (["veth0"], ["dummy0"])


def test_interfaces_of_infiniband_by_their_port(tmp_path: Path) -> None:
    fs = table(tmp_path, "gids", {0: gid(0)}, 1, UNUSED)
    for name, port in (("ib0", "0"), ("ib1", "1")):
        directory = tmp_path / "sys/class/infiniband/mlx5_0/device/net" / name
        directory.mkdir(parents=True)
        (directory / "dev_port").write_text(f"{port}\n")
    assert (netdevs(fs, "mlx5_0", 1), netdevs(fs, "mlx5_0", 2)) == (["ib0"], ["ib1"])
