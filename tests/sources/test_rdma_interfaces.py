"""Whose a network interface is: names are the same in many network namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.settings import Rdma as Chosen
from otel_hostmetrics.sources.rdma.devices import Device, discover
from otel_hostmetrics.sources.rdma.interfaces import interfaces, place
from tests.hosts.gentree import generate
from tests.kernel.links import Links as Interfaces
from tests.kernel.nldev_recording import Recording, encode
from tests.sources.rdma_host import opened, port, values

OWN, TWIN, OTHER = "0000:10:00.0", "0000:10:00.1", "0000:03:00.0"
DUMP = 0x300


def interface(root: Path, name: str, function: str | None = None, lower: tuple[str, ...] = ()) -> None:
    """One in /sys/class/net, of a PCI function, or virtual and above others."""
    directory = root / "sys/class/net" / name
    directory.mkdir(parents=True)
    if function:
        where = root / "sys/devices/pci0000:00" / function
        where.mkdir(parents=True, exist_ok=True)
        (directory / "device").symlink_to(where)
    for each in lower:
        (directory / f"lower_{each}").symlink_to(root / "sys/class/net" / each)
    for way in ("up", "down"):
        (directory / f"carrier_{way}_count").write_text("7\n")


def told_by_gids(root: Path, name: str) -> None:
    (port(root, "mlx5_0") / "gid_attrs/ndevs/0").write_text(f"{name}\n")


def live(root: Path) -> list[Device]:
    """The devices as those of the running kernel."""
    devices = discover(HostFS(str(root)), Chosen(), {}).devices
    return [device._replace(number=number) for number, device in enumerate(devices)]


def kernel(**told: object) -> Nldev:
    """What PORT_GET says of port 1 of the first device; of the second it tells no interface."""
    recording = Recording()
    recording.answer(5, DUMP, {"DEV_INDEX": 0}, encode({"DEV_INDEX": 0, "PORT_INDEX": 1, **told}))
    recording.answer(5, DUMP, {"DEV_INDEX": 1}, encode({"DEV_INDEX": 1, "PORT_INDEX": 1}))
    return Nldev(recording)


def found(root: Path, nldev: Nldev, ours: Mapping[str, str]) -> tuple[list[str], list[Reason]]:
    """*ours*: what ethtool tells, in our namespace, of where interfaces are."""
    result = interfaces(HostFS(str(root)), live(root), nldev, lambda name: ours.get(name, ""))
    return [netdev.name for netdev in result.netdevs], [problem.reason for problem in result.problems]


def test_the_interface_of_another_device_is_not_taken_for_that_of_its_name_in_a_pod(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    told_by_gids(tmp_path, "eth0")
    interface(tmp_path, "eth0", OTHER)
    with opened(tmp_path) as source:
        reading = source.read()
    assert not [key for key in values(reading, "rdma.link.events") if {"carrier_up", "carrier_down"} & {*key}]
    assert "eth0" not in next(iter(values(reading, "rdma.port.info")))
    assert found(tmp_path, kernel(), {"eth0": OTHER}) == ([], [])


def test_a_name_that_the_kernel_tells_is_in_our_namespace(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    assert found(tmp_path, kernel(NDEV_INDEX=3, NDEV_NAME="ens0f0np0"), {}) == (["ens0f0np0"], [])
    interface(tmp_path, "net1", OTHER)  # this sysfs is of another namespace than ours
    assert found(tmp_path, kernel(NDEV_INDEX=3, NDEV_NAME="net1"), {}) == (["net1"], [])


@pytest.mark.parametrize("ours", [{}, {"ens0f0np0": OTHER}], ids=["none", "namesake"])
def test_interfaces_of_another_namespace_are_one_problem_with_its_cure(ours: Mapping[str, str], tmp_path: Path) -> None:
    """The agent in a pod: the host's sysfs has the interface, our namespace does not, or has another one of that name."""
    generate(tmp_path, 2)
    interface(tmp_path, "ens0f0np0", OWN)
    assert found(tmp_path, kernel(), ours) == ([], [Reason.UNREADABLE])
    (problem,) = interfaces(HostFS(str(tmp_path)), live(tmp_path), kernel(), lambda name: "").problems
    assert "mlx5_0/1, mlx5_1/1" in str(problem)
    assert "hostNetwork" in str(problem)


def test_an_interface_on_the_same_place_of_the_bus_is_ours(tmp_path: Path) -> None:
    """As that of an InfiniBand port, which the kernel does not tell."""
    generate(tmp_path, 1)
    interface(tmp_path, "ens0f0np0", OWN)
    assert found(tmp_path, kernel(), {"ens0f0np0": OWN}) == (["ens0f0np0"], [])


def test_a_virtual_function_in_a_pod_is_no_problem_where_others_are_reached(tmp_path: Path) -> None:
    generate(tmp_path, 2)
    interface(tmp_path, "ens0f0np0", OWN)
    assert live(tmp_path)[1].ports[0].netdevs == ("ens1f0np0",)  # its name there
    assert found(tmp_path, kernel(), {"ens0f0np0": OWN}) == (["ens0f0np0"], [])


def test_the_port_of_a_lag_has_the_interfaces_of_both_physical_ports(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    told_by_gids(tmp_path, "bond0")
    ours = {"eth1": OWN, "eth2": TWIN, "eth3": OTHER}
    for name, function in ours.items():
        interface(tmp_path, name, function)
    interface(tmp_path, "bond0", lower=tuple(ours))
    interface(tmp_path, "bond0.5", lower=("bond0",))
    for nldev in (kernel(), kernel(NDEV_INDEX=9, NDEV_NAME="bond0"), kernel(NDEV_INDEX=9, NDEV_NAME="bond0.5")):
        assert found(tmp_path, nldev, ours) == (["eth1", "eth2"], [])


def test_a_bond_over_functions_that_are_rdma_devices_themselves_is_no_lag(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    told_by_gids(tmp_path, "bond0")
    ours = {"eth1": OWN, "eth2": TWIN}
    for name, function in ours.items():
        interface(tmp_path, name, function)
    interface(tmp_path, "bond0", lower=tuple(ours))
    (tmp_path / "sys/devices/pci0000:00" / TWIN / "infiniband").mkdir()
    assert found(tmp_path, kernel(), ours) == (["eth1"], [])


def test_devices_of_a_recording_have_no_interfaces_to_ask(tmp_path: Path) -> None:
    generate(tmp_path, 1)
    interface(tmp_path, "ens0f0np0", OWN)
    devices = discover(HostFS(str(tmp_path)), Chosen(), {}).devices
    assert interfaces(HostFS(str(tmp_path)), devices, None, lambda name: OWN) == ((), ())


def test_a_virtual_interface_and_one_that_is_not_there_have_no_place() -> None:
    assert place("nowhere0") == ""
    with Interfaces() as made:
        made.veth("rdmatest0", "rdmatest1")
        assert place("rdmatest0") == ""
