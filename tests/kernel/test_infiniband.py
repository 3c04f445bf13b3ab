"""Devices and ports of /sys/class/infiniband, on recorded hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import infiniband
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.infiniband import Device, Port, Rate, State
from tests.hosts.recorded import unpack

GUID = "d420:b0ff:feb1:f9c7"
HCA_GUID = "0002:c903:00fa:4e00"


def test_a_software_device_has_no_firmware_board_or_pci_function(tmp_path: Path) -> None:
    fs = unpack("rdma-rxe", tmp_path)
    assert infiniband.devices(fs) == ["rxe0", "rxe1", "rxe_dn"]
    assert infiniband.device(fs, "rxe0") == Device("rxe0", None, None, None, None, State(1, "CA"), GUID, GUID, "rxe", None, ())


def test_a_port_of_soft_roce(tmp_path: Path) -> None:
    fs = unpack("rdma-rxe", tmp_path)
    assert infiniband.ports(fs, "rxe1") == [1]
    assert infiniband.port(fs, "rxe1", 1) == Port(
        "rxe1", 1, "Ethernet", State(4, "ACTIVE"), State(5, "LinkUp"), Rate(10e9, 1, "FDR10"), 0, 0, 0, 0x10000, ()
    )
    down = infiniband.port(fs, "rxe_dn", 1)
    assert (down.state, down.phys_state, down.rate) == (State(1, "DOWN"), State(3, "Disabled"), Rate(2.5e9, 1, "SDR"))


def test_two_ports_of_an_infiniband_adapter(tmp_path: Path) -> None:
    fs = unpack("rdma-ib", tmp_path)
    device = infiniband.device(fs, "fakeib0")
    assert (device.firmware, device.node_guid, device.description) == ("28.39.1002", HCA_GUID, "fakeib HCA-0")
    assert infiniband.ports(fs, "fakeib0") == [1, 2]
    assert infiniband.port(fs, "fakeib0", 2) == Port(
        "fakeib0", 2, "InfiniBand", State(4, "ACTIVE"), State(5, "LinkUp"), Rate(400e9, 4, "NDR"), 0x12, 1, 0, 0x2651E848, ()
    )
    down = infiniband.port(unpack("rdma-ib-down", tmp_path / "down"), "fakeib0", 1)
    assert (down.state, down.phys_state) == (State(1, "DOWN"), State(2, "Polling"))


def test_what_each_driver_counts(tmp_path: Path) -> None:
    """Per port in counters and hw_counters, and per device: none of them is everywhere."""
    hosts = {
        "rdma-ib": "fakeib0", "rdma-ib-32bit": "fakeib0", "rdma-rxe": "rxe1", "rdma-rxe-pod": "rxe0", "rdma-efa": "rdmap0s6",
        "rdma-irdma": "irdma0",
    }  # fmt: skip
    found = {}
    for host, device in hosts.items():
        fs = unpack(host, tmp_path / host)
        port = [infiniband.port_path(fs, device, 1, name) for name in ("counters", "hw_counters")]
        found[host] = [len(infiniband.listed(fs, path)) for path in (*port, fs.sys("class/infiniband", device, "hw_counters"))]
    assert found == {
        "rdma-ib": [21, 29, 3],
        "rdma-ib-32bit": [17, 29, 3],
        "rdma-rxe": [0, 16, 0],
        "rdma-rxe-pod": [0, 0, 0],  # another network namespace
        "rdma-efa": [0, 23, 13],
        "rdma-irdma": [0, 47, 3],
    }


def test_port_zero_of_a_switch_and_names_that_are_no_ports(tmp_path: Path) -> None:
    for name in ("0", "1", "12", "2", "x", "99999999999999999999"):
        (tmp_path / "sys/class/infiniband/switch0/ports" / name).mkdir(parents=True)
    assert infiniband.ports(HostFS(str(tmp_path)), "switch0") == [0, 1, 2, 12]


def test_a_host_without_rdma(tmp_path: Path) -> None:
    fs = HostFS(str(tmp_path))
    with pytest.raises(Unavailable) as caught:
        infiniband.devices(fs)
    assert caught.value.reason is Reason.ABSENT
    assert infiniband.device(fs, "mlx5_0") == Device("mlx5_0", *[None] * 9, ())


def test_a_file_that_is_not_understood_costs_itself_only(tmp_path: Path) -> None:
    fs = unpack("rdma-ib", tmp_path)
    port = Path(infiniband.port_path(fs, "fakeib0", 1))
    (port / "rate").write_text("fast\n")
    (port / "lid").write_text("17\n")
    (port / "sm_lid").write_bytes(b"\xff\n")
    read = infiniband.port(fs, "fakeib0", 1)
    assert (read.rate, read.lid, read.sm_lid, read.lmc) == (None, None, None, 0)
    assert [(problem.what, problem.reason) for problem in read.problems] == [
        (str(port / name), Reason.MALFORMED) for name in ("rate", "lid", "sm_lid")
    ]


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("400 Gb/sec (4X NDR)", Rate(400e9, 4, "NDR")),
        ("2.5 Gb/sec (1X SDR)", Rate(2.5e9, 1, "SDR")),
        ("10 Gb/sec (4X)", Rate(10e9, 4, "")),
        ("1600 Gb/sec (8X XDR)", Rate(1600e9, 8, "XDR")),
        ("14 Gb/sec (1X FDR)", Rate(14e9, 1, "FDR")),
        ("50 Gb/sec (2X EDR)", Rate(50e9, 2, "EDR")),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert infiniband.parse_rate(text) == rate


@given(st.text() | st.from_regex(r"\A\d+: .*\Z") | st.from_regex(r"\A\d+(\.\d+)? Gb/sec \(\d+X \w+\)\Z"))
def test_any_text_is_a_record_or_malformed(text: str) -> None:
    for parse, kind in ((infiniband.parse_state, State), (infiniband.parse_rate, Rate)):
        try:
            assert isinstance(parse(text), kind)
        except Unavailable as error:
            assert error.reason is Reason.MALFORMED  # noqa: PT017 - either is right
