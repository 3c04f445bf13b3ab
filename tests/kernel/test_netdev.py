"""Network interfaces of a recorded and of the running host."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import netdev
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.hosts.recorded import unpack


def test_an_interface(tmp_path: Path) -> None:
    fs = unpack("rdma-rxe", tmp_path)
    assert (netdev.mtu(fs, "veth0"), netdev.operstate(fs, "veth0"), netdev.speed(fs, "veth0")) == (1500, "up", 10_000_000_000)
    assert (netdev.carrier_changes(fs, "veth0"), netdev.carrier_up_count(fs, "veth0"), netdev.carrier_down_count(fs, "veth0")) == (2, 1, 1)
    assert netdev.interfaces(fs)[3] == "veth0"


def test_an_interface_without_a_speed(tmp_path: Path) -> None:
    for fs, name in ((HostFS(), "lo"), (unpack("rdma-rxe", tmp_path), "unknown")):
        if name == "unknown":
            path = Path(fs.sys("class/net/unknown/speed"))
            path.parent.mkdir()
            path.write_text("-1\n")
        with pytest.raises(Unavailable, match="speed") as caught:
            netdev.speed(fs, name)
        assert caught.value.reason is Reason.UNSUPPORTED


def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        netdev.mtu(HostFS(str(tmp_path)), "veth0")
    assert caught.value.reason is Reason.ABSENT
