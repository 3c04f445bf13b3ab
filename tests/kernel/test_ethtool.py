"""ethtool requests to the running kernel's own interfaces."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.ethtool import Ethtool, Pause, picker
from tests.kernel.links import Links


@pytest.fixture
def ethtool() -> Iterator[Ethtool]:
    before = os.listdir("/proc/self/fd")
    with Ethtool() as ethtool:
        yield ethtool
    ethtool.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.fixture
def veth() -> Iterator[str]:
    with Links() as links:
        links.veth("keth0", "keth1", queues=2)
        yield "keth0"


def test_a_driver(ethtool: Ethtool, veth: str) -> None:
    assert ethtool.driver(veth)[::2] == ("veth", "")


def test_features_have_the_kernels_names(ethtool: Ethtool, veth: str) -> None:
    features = ethtool.features(veth)
    assert features["tx-checksum-ip-generic"] is True
    assert features["rx-gro-hw"] is False
    assert len(features) > 40


def test_only_allowed_statistics_by_their_position(ethtool: Ethtool, veth: str) -> None:
    every = ethtool.statistics(veth, lambda name: True)
    assert every.names[0] == "peer_ifindex"
    with open(f"/sys/class/net/{veth}/iflink") as file:
        assert every.read()[0] == int(file.read())
    some = ethtool.statistics(veth, lambda name: name == "peer_ifindex" or name.endswith("_drops"))
    assert set(some.names) < set(every.names)
    by_name = dict(zip(every.names, every.read(), strict=True))
    assert some.read() == [by_name[name] for name in some.names]
    assert ethtool.statistics(veth, lambda name: name == "peer_ifindex").read() == every.read()[:1]
    assert ethtool.statistics(veth, lambda name: False).read() == []


def test_names_are_read_again_when_the_driver_has_more(ethtool: Ethtool) -> None:
    """An interface is replaced by one of the same name with more queues, as drivers do when their number is set."""
    with Links() as links:
        links.veth("keth0", "keth1", queues=1)
        statistics = ethtool.statistics("keth0", lambda name: name.endswith("xdp_packets"))
        before, values = statistics.names, statistics.read()
        assert len(values) == len(before)
        assert statistics.read() is not values
        assert statistics.names is before
        links.delete("keth0")
        with pytest.raises(Unavailable, match="ethtool keth0") as caught:
            statistics.read()
        assert caught.value.reason is Reason.GONE
        links.veth("keth0", "keth1", queues=4)
        assert len(statistics.read()) == len(statistics.names) == 4 * len(before)


def test_pause_frames_where_the_driver_has_them(ethtool: Ethtool) -> None:
    """Virtual interfaces do not; where an interface does, the answer is a record."""
    for name in os.listdir("/sys/class/net"):
        try:
            assert isinstance(ethtool.pause(name), Pause)
        except Unavailable as caught:
            assert caught.reason in (Reason.UNSUPPORTED, Reason.GONE)  # noqa: PT017 - either is right


def test_loopback_has_no_statistics(ethtool: Ethtool) -> None:
    with pytest.raises(Unavailable, match="ethtool lo") as caught:
        ethtool.statistics("lo", lambda name: True)
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "reason"), [("nonesuch", Reason.GONE), ("", Reason.ABSENT), ("x" * 16, Reason.ABSENT), ("a\0b", Reason.ABSENT)]
)
def test_no_such_interface(ethtool: Ethtool, name: str, reason: Reason) -> None:
    for ask in (ethtool.driver, ethtool.pause, ethtool.features):
        with pytest.raises(Unavailable, match="ethtool") as caught:
            ask(name)
        assert caught.value.reason is reason


@given(st.lists(st.integers(0, 9), max_size=10))
def test_elements_by_position(places: list[int]) -> None:
    words = memoryview(bytearray(range(80))).cast("Q")
    assert list(picker(places)(words)) == [words[place] for place in places]
