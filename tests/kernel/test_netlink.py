"""Netlink messages and the socket, against the running kernel's rtnetlink."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.netlink import DUMP, Answer, Notifications, Socket, attribute, attributes, message
from tests.kernel.links import Links

ROUTE, GETLINK, NEWLINK = 0, 18, 16
NOOP, MULTI, ERROR, DONE = 1, 2, 2, 3
SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20  # linux/unix_diag.h: struct unix_diag_req
IFINFO = bytes(16)


def error(code: int) -> bytes:
    return message(ERROR, 0, 1, struct.pack("=i", code))


def test_attributes_are_padded_and_flags_are_not_their_type() -> None:
    data = attribute(5, b"abc") + attribute(0x8000 | 6, b"") + attribute(0x4007, b"12345678")
    assert len(data) == 8 + 4 + 12
    assert [(kind, data[at:end]) for kind, at, end in attributes(data, 0, len(data))] == [(5, b"abc"), (6, b""), (7, b"12345678")]


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_that_does_not_fit(length: int) -> None:
    data = struct.pack("=HHI", length, 1, 0)
    with pytest.raises(ValueError, match=f"attribute of {length} bytes"):
        list(attributes(data, 0, len(data)))


def test_a_single_message_is_a_whole_answer() -> None:
    answer = Answer(1, "test")
    answer.feed(message(100, 0, 1, b"abcd"))
    assert (answer.done, answer.bodies) == (True, [b"abcd"])


def test_a_dump_ends_with_done_in_whatever_datagrams() -> None:
    answer = Answer(1, "test")
    answer.feed(message(100, MULTI, 1, b"abcd") + message(100, MULTI, 1, b"efgh"))
    assert not answer.done
    answer.feed(message(100, MULTI, 1, b"ijkl") + message(DONE, MULTI, 1, bytes(4)))
    assert (answer.done, answer.bodies) == (True, [b"abcd", b"efgh", b"ijkl"])


def test_the_answer_to_an_earlier_request_is_passed_over() -> None:
    answer = Answer(2, "test")
    answer.feed(message(100, MULTI, 1, b"abcd") + error(-errno.EINVAL))
    assert (answer.done, answer.bodies) == (False, [])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EMSGSIZE, Reason.UNSUPPORTED),
        (errno.EOPNOTSUPP, Reason.UNSUPPORTED),
        (errno.EINVAL, Reason.UNSUPPORTED),
        (errno.EPERM, Reason.DENIED),
        (errno.ENODEV, Reason.GONE),
        (errno.ENOENT, Reason.ABSENT),
        (99999, Reason.UNREADABLE),
        (-1, Reason.UNREADABLE),
        (2**31, Reason.UNREADABLE),
    ],
)
def test_refusals(code: int, reason: Reason) -> None:
    for refused in (error(-code), message(DONE, MULTI, 1, struct.pack("=i", -code))):
        with pytest.raises(Unavailable, match="test") as caught:
            Answer(1, "test").feed(refused)
        assert caught.value.reason is reason


@given(st.binary(max_size=200) | st.binary(max_size=64).map(lambda body: message(100, 2, 1, body)[:-1] + body))
def test_any_datagram_is_taken_or_malformed(datagram: bytes) -> None:
    answer = Answer(1, "test")
    try:
        answer.feed(datagram)
    except Unavailable as caught:
        assert isinstance(caught.reason, Reason)  # noqa: PT017 - either is right


def test_the_kernel_answers() -> None:
    with Socket(ROUTE, "rtnetlink") as kernel:
        (link,) = kernel.ask(GETLINK, 0, struct.pack("=BBHiII", 0, 0, 0, 1, 0, 0), "link 1")
        assert b"lo\0" in link
        for _ in range(2):
            links = kernel.ask(GETLINK, DUMP, IFINFO, "links")
            assert len(links) == len([name for name in os.listdir("/sys/class/net") if name != "bonding_masters"])
        with pytest.raises(Unavailable, match="link 99999999") as caught:
            kernel.ask(GETLINK, 0, struct.pack("=BBHiII", 0, 0, 0, 99999999, 0, 0), "link 99999999")
        assert caught.value.reason is Reason.GONE
        assert b"lo\0" in kernel.ask(GETLINK, 0, struct.pack("=BBHiII", 0, 0, 0, 1, 0, 0), "link 1")[0]


def test_no_answer_is_late() -> None:
    """A message that asks for nothing is not answered."""
    with Socket(ROUTE, "rtnetlink", timeout=0.05) as kernel, pytest.raises(Unavailable, match="no answer") as caught:
        kernel.ask(NOOP, 0, b"", "nothing")
    assert caught.value.reason is Reason.LATE


def test_a_dump_that_was_given_up_does_not_stand_in_the_way_of_the_next() -> None:
    """The kernel has one dump at a time for a socket: EBUSY, as long as the rest of another one waits to be fetched."""
    nothing, everything = (struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, states, 0, 0x7F, 0, 0) for states in (0, 0xFFFFFFFF))
    with contextlib.ExitStack() as stack:
        for number in range(300):  # 200 bytes each: more than the kernel prepares in advance
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(f"\0{os.getpid()}-{number}".ljust(100, "x"))
        diag = stack.enter_context(Socket(SOCK_DIAG, "sockets", limit=1000))
        try:
            diag.ask(SOCK_DIAG_BY_FAMILY, DUMP, nothing, "no sockets")
        except Unavailable as refused:
            if refused.reason not in (Reason.ABSENT, Reason.UNSUPPORTED):
                raise
            pytest.skip(f"the kernel lists no sockets of AF_UNIX: {refused}")
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(Unavailable, match="bytes or more") as caught:
                diag.ask(SOCK_DIAG_BY_FAMILY, DUMP, everything, "sockets")
            assert caught.value.reason is Reason.MALFORMED
            assert diag.ask(SOCK_DIAG_BY_FAMILY, DUMP, nothing, "no sockets") == []
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_closed_socket_stays_closed() -> None:
    conversation = Socket(ROUTE, "rtnetlink", timeout=0.05)
    with pytest.raises(Unavailable, match="no answer"):
        conversation.ask(NOOP, 0, b"", "nothing")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        conversation.close()
        with pytest.raises(Unavailable, match="links"):
            conversation.ask(GETLINK, DUMP, IFINFO, "links")
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_family_that_does_not_exist() -> None:
    for make in (lambda: Socket(31, "family 31"), lambda: Notifications(31, 1, "family 31")):
        with pytest.raises(Unavailable, match="family 31") as caught:
            make()
        assert caught.value.reason is Reason.ABSENT


def test_a_group_that_does_not_exist_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(Unavailable, match="links"):
        Notifications(ROUTE, 9999, "links")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_notifications_tell_that_something_changed() -> None:
    notifications = Notifications(ROUTE, 1, "links")  # RTNLGRP_LINK
    try:
        assert not notifications.changed()
        with Links() as links:
            links.veth("kntf0", "kntf1")
            assert notifications.changed()
            assert not notifications.changed()
        assert notifications.changed()
    finally:
        notifications.close()
        notifications.close()
