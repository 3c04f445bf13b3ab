"""Asking for a module's memory: requests to the running kernel, whose virtual interfaces have none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.ethtool import Ethtool
from otel_hostmetrics.kernel.module_access import Cages, Conversation, Flattened, Paged, content
from otel_hostmetrics.kernel.module_eeprom import A2
from otel_hostmetrics.kernel.netlink import attribute
from tests.kernel.as_nobody import as_nobody
from tests.kernel.links import Links


@pytest.fixture
def veth() -> Iterator[str]:
    with Links() as links:
        links.veth("kmod0", "kmod1")
        yield "kmod0"


def test_by_ioctl_the_driver_has_none(veth: str) -> None:
    with Ethtool() as ethtool, pytest.raises(Unavailable, match="ethtool kmod0") as caught:
        Flattened(ethtool, veth)
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("offset", "page", "why"),
    [(0, 0, "Operation not supported"), (128, 0x11, "Operation not supported"), (100, 0, "Invalid argument"), (0, 1, "Invalid argument")],
)
def test_by_netlink_the_request_is_understood(veth: str, offset: int, page: int, why: str) -> None:
    """What the kernel says before it asks the driver (half pages must not be crossed) is another refusal than that of the driver."""
    conversation = Conversation()
    try:
        with pytest.raises(Unavailable, match=why) as caught:
            Paged(conversation, veth).read(offset, 128, page)
    finally:
        conversation.close()
    assert (caught.value.reason, caught.value.what) == (Reason.UNSUPPORTED, "ethtool kmod0")


def test_both_ways_are_tried_and_closed(veth: str) -> None:
    before = os.listdir("/proc/self/fd")
    cages = Cages()
    with pytest.raises(Unavailable) as caught:
        cages.open(veth).read(0, 128, address=A2)
    assert caught.value.reason is Reason.UNSUPPORTED
    cages.close()
    cages.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


class Flat(Ethtool):
    """A driver that shows *memory* and counts its reads."""

    memory = bytes(range(256)) + bytes(range(255, -1, -1))

    def module_size(self, name: str) -> int:
        return len(self.memory)

    def module_eeprom(self, name: str, offset: int, length: int) -> bytes:
        return self.memory[offset : offset + length]


@pytest.mark.parametrize(
    ("where", "begin"), [((0, 128), 0), ((128, 128), 128), ((128, 128, 1), 256), ((128, 128, 2), 384), ((0, 128, 0, A2), 256)]
)
def test_pages_one_after_the_other(where: tuple[int, ...], begin: int) -> None:
    """As in struct ethtool_eeprom of QSFP: page 1 at 256; and of SFP: the second address at 256."""
    with Flat() as ethtool:
        assert Flattened(ethtool, "eth0").read(*where) == Flat.memory[begin : begin + 128]


@pytest.mark.parametrize("where", [(128, 128, 3), (128, 128, 0x11), (128, 129, 2)])
def test_what_the_driver_does_not_show(where: tuple[int, ...]) -> None:
    with Flat() as ethtool, pytest.raises(Unavailable, match="the driver shows 512 bytes") as caught:
        Flattened(ethtool, "eth0").read(*where)
    assert caught.value.reason is Reason.UNSUPPORTED


@given(st.binary(max_size=128))
def test_the_answer_of_netlink(data: bytes) -> None:
    """struct genlmsghdr, the header with the interface, the data: ETHTOOL_A_MODULE_EEPROM_DATA is 7."""
    header = attribute(1 | 0x8000, attribute(1, bytes(4)) + attribute(2, b"eth0\0"))
    assert content([bytes(4) + header + attribute(7, data)], 7, "module") == data


@given(st.lists(st.binary(max_size=64), max_size=2), st.integers(0, 8))
def test_any_answer_is_content_or_malformed(bodies: list[bytes], kind: int) -> None:
    try:
        assert content(bodies, kind, "module") in bodies[0]
    except Unavailable as refused:
        assert refused.reason is Reason.MALFORMED  # noqa: PT017 - either is right


def test_no_such_interface() -> None:
    cages = Cages()
    try:
        with pytest.raises(Unavailable, match="ethtool nonesuch") as caught:
            cages.open("nonesuch")
    finally:
        cages.close()
    assert caught.value.reason is Reason.GONE


def test_it_takes_a_capability(veth: str) -> None:
    """Whichever way is asked, by ioctl first."""

    def refused() -> str:
        answers = []
        for ask in (lambda: Cages().open(veth), lambda: Paged(Conversation(), veth).read(0, 128)):
            try:
                ask()
            except Unavailable as error:
                answers.append(f"{error.reason.name} {error.needs}")
        return ", ".join(answers)

    assert as_nobody(refused) == "DENIED CAP_NET_ADMIN, DENIED CAP_NET_ADMIN"
