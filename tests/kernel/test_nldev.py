"""RDMA netlink on recorded bytes, compared with what iproute2 showed at that moment; and on any bytes."""

from __future__ import annotations

import functools
import json
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import nldev_const, nldev_names
from otel_hostmetrics.kernel.netlink import attribute, message
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.kernel.nldev_counters import CounterLayout
from otel_hostmetrics.kernel.nldev_records import CounterMode, CounterSet, CounterStatus, Port, QueuePair, SharedReceiveQueue, System
from tests.kernel.nldev_recording import (
    ENUMS,
    MACHINE,
    NUMBER,
    WIRE,
    Always,
    Recording,
    encode,
    hardware_counters,
    recorded,
    recorded_datagrams,
)  # fmt: skip

HEADER = Path("/usr/include/rdma/rdma_netlink.h")
DUMP = 0x300
SHOWN = json.loads((MACHINE / "iproute2.json").read_text())
DEVICES = {"rxe0": 0, "rxe1": 1, "fakeib0": 2}


def shown(what: str, *fields: str) -> list[tuple[object, ...]]:
    """Fields of what iproute2 showed, with the device's name first."""
    return [(each["ifname"], *(each.get(field) for field in fields)) for each in SHOWN[what]]


def read(ask: Callable[[int], Sequence[tuple[object, ...]]], *fields: str) -> list[tuple[object, ...]]:
    """The same fields of our records, of all devices."""
    return [(name, *(getattr(record, field) for field in fields)) for name, device in DEVICES.items() for record in ask(device)]


def test_numbers_are_those_of_the_header() -> None:
    """Each constant of nldev_const stands for the place of its name in the kernel's enumerations."""
    kinds = ("QP", "CM_ID", "CQ", "MR", "PD", "CTX", "SRQ")
    commands = {"GET", "PORT_GET", "SYS_GET", "RES_GET", "STAT_SET", "STAT_GET", "STAT_GET_STATUS", *(f"RES_{kind}_GET" for kind in kinds)}
    others = {"NETLINK_RDMA": 20, "CLIENT": 5, "GROUP_NOTIFY": 4, "MODE_NONE": 0, "MODE_AUTO": 1, "MODE_MANUAL": 2}
    others |= {"MASK_QP_TYPE": 1, "MASK_PID": 2}
    constants = {name: value for name, value in vars(nldev_const).items() if name.isupper()}
    assert {name: constants.pop(name) for name in others} == others
    assert {name: constants.pop(name) for name in commands} == {name: ENUMS["command"].index(name) for name in commands}
    assert constants == {name: NUMBER[name] for name in constants}


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers (linux-libc-dev)")
def test_the_enumeration_is_that_of_the_installed_header() -> None:
    header = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    body = header.split("enum rdma_nldev_attr {")[1].split("}")[0]
    names = [prefix + name for prefix, name in re.findall(r"^\s*RDMA_NLDEV_(?:ATTR_|(SYS_)ATTR_)?(\w+)\s*,", body, re.MULTILINE)]
    known = ENUMS["attribute"]
    assert len(names) > 90
    assert names[: len(known)] == known[: len(names)]


def test_devices_as_iproute2_shows_them() -> None:
    devices = Nldev(recorded()).devices()
    assert [(device.name, device.number, device.node_guid, device.system_guid) for device in devices] == shown(
        "dev", "ifindex", "node_guid", "sys_image_guid"
    )
    assert [(device.ports, device.protocol, device.firmware) for device in devices] == [
        (1, "roce", None),
        (1, "roce", None),
        (2, "ib", "28.39.1002"),
    ]
    assert {(device.node_type, device.adaptive_moderation, device.parent) for device in devices} == {(1, 0, None)}


def test_ports_as_iproute2_shows_them() -> None:
    nldev = Nldev(recorded())
    assert read(nldev.ports, "number", "netdev", "netdev_index", "lid", "sm_lid", "lmc", "subnet_prefix") == shown(
        "link", "port", "netdev", "netdev_index", "lid", "sm_lid", "lmc", "subnet_prefix"
    )
    assert nldev.ports(2)[1] == Port(2, 4, 5, 0x12, 1, 0, 0x2651E848, "fe80:0000:0000:0000", None, None)
    assert (nldev_names.PORT_STATES[4], nldev_names.PHYS_STATES[5]) == ("ACTIVE", "LinkUp")


def test_the_summary_as_iproute2_shows_it() -> None:
    nldev = Nldev(recorded())
    kinds = ("pd", "cq", "qp", "cm_id", "mr", "ctx", "srq")
    assert [(name, *(nldev.summary(device)[kind] for kind in kinds)) for name, device in DEVICES.items()] == shown("resource", *kinds)


def test_queue_pairs_as_iproute2_shows_them() -> None:
    nldev = Nldev(recorded())
    assert read(nldev.queue_pairs, "port", "number", "remote", "pd", "pid") == shown("qp", "port", "lqpn", "rqpn", "pdn", "pid")
    for pair, (_, kind, state) in zip(nldev.queue_pairs(0) + nldev.queue_pairs(1), shown("qp", "type", "state"), strict=True):
        assert (nldev_names.QUEUE_PAIR_TYPES[pair.type or 0], nldev_names.QUEUE_PAIR_STATES[pair.state or 0]) == (kind, state)
        assert (pair.pid is None) is (pair.kernel == "ib_core")


def test_connections_as_iproute2_shows_them() -> None:
    nldev = Nldev(recorded())
    assert read(nldev.connections, "port", "number", "queue_pair", "pid", "source", "destination") == shown(
        "cm_id", "port", "cm-idn", "lqpn", "pid", "src-addr", "dst-addr"
    )
    for connection, (_, state, space) in zip(nldev.connections(1), shown("cm_id", "state", "ps"), strict=True):
        names = nldev_names.CONNECTION_STATES[connection.state or 0], nldev_names.PORT_SPACES[connection.port_space or 0]
        assert names == (state, space)


def test_other_resources_as_iproute2_shows_them() -> None:
    nldev = Nldev(recorded())
    assert read(nldev.memory_regions, "number", "length", "pd", "pid") == shown("mr", "mrn", "mrlen", "pdn", "pid")
    assert read(nldev.completion_queues, "number", "entries", "users", "context", "pid") == shown(
        "cq", "cqn", "cqe", "users", "ctxn", "pid"
    )
    assert read(nldev.protection_domains, "number", "users", "context", "pid") == shown("pd", "pdn", "users", "ctxn", "pid")
    assert read(nldev.contexts, "number", "pid") == shown("ctx", "ctxn", "pid")
    assert read(nldev.shared_receive_queues, "number", "pd", "pid") == shown("srq", "srqn", "pdn", "pid")
    assert nldev.shared_receive_queues(1)[0] == SharedReceiveQueue(0, 0, 1, None, 156, None)  # type: basic


def test_counters_as_iproute2_shows_them() -> None:
    """Of fakeib0 with the optional counter that is enabled; the second time by the layout learnt from the first."""
    nldev = Nldev(recorded())
    for each in SHOWN["statistic"]:
        if each["ifname"] != "fakeib0" or each["port"] == 1:
            first, again = (nldev.counters(DEVICES[each["ifname"]], 1) for _ in range(2))
            assert {"ifname": each["ifname"], "port": 1, **dict(zip(first.names, first.values, strict=True))} == each
            assert again == first
            assert again.names is first.names
    assert "cc_rx_ce_pkts" in nldev.counters(2, 1).names


def test_which_counters_are_optional_and_enabled() -> None:
    status = Nldev(recorded()).counter_status(2, 1)
    assert status[0] == CounterStatus("rx_write_requests", 0, None)
    optional = [each for each in status if each.enabled is not None]
    assert [each.name for each in optional] == SHOWN["supported"][0]["supported optional-counters"]
    assert [each.name for each in optional if each.enabled] == SHOWN["mode"][0]["optional-counters"]


def test_counter_modes_of_queue_pairs() -> None:
    """rxe1 was set to ``auto type,pid on``. Soft-RoCE has no counter sets all the same."""
    nldev = Nldev(recorded())
    auto = CounterMode(nldev_const.MODE_AUTO, nldev_const.MASK_QP_TYPE | nldev_const.MASK_PID)
    assert [nldev.counter_mode(device, 1) for device in range(3)] == [CounterMode(0, None), auto, CounterMode(0, None)]
    assert nldev.counter_sets(1, 1) == []


def test_counter_sets_of_queue_pairs() -> None:
    """As fill_res_counter_entry of drivers/infiniband/core/nldev.c writes them: one bound by type and process, one by hand."""
    values = (("rx_write_requests", 7), ("out_of_sequence", 2**63))
    counters = [{"STAT_HWCOUNTER_ENTRY_NAME": name, "STAT_HWCOUNTER_ENTRY_VALUE": value} for name, value in values]
    auto = {"STAT_MODE": 1, "RES_TYPE": 2, "RES_QP": [{"RES_LQPN": 17}, {"RES_LQPN": 19}], "STAT_HWCOUNTERS": counters}
    sets = [
        {"PORT_INDEX": 1, "STAT_COUNTER_ID": 4, "RES_PID": 192, **auto},
        {"PORT_INDEX": 1, "STAT_COUNTER_ID": 5, "RES_KERN_NAME": "ib_core", "STAT_MODE": 2},
    ]
    recording = Recording()
    where = {"DEV_INDEX": 1, "PORT_INDEX": 1, "STAT_RES": NUMBER["RES_QP"]}
    recording.answer(17, DUMP, where, encode({"DEV_INDEX": 1, "DEV_NAME": "mlx5_0", "PORT_INDEX": 1, "STAT_COUNTER": sets}))
    assert Nldev(recording).counter_sets(1, 1) == [
        CounterSet(4, 1, 1, 2, 192, None, (17, 19), {"rx_write_requests": 7, "out_of_sequence": 2**63}),
        CounterSet(5, 1, 2, None, None, "ib_core", None, None),
    ]


def test_settings_of_the_subsystem() -> None:
    assert Nldev(recorded()).system() == System(1, 1, 0, None)
    later = encode({"SYS_NETNS_MODE": 0, "SYS_COPY_ON_FORK": 1, "SYS_MONITOR_MODE": 1})
    assert Nldev(Always([later])).system() == System(0, 1, None, 1)


def test_addresses_of_connections() -> None:
    """AF_INET6, AF_IB, and a family nobody knows."""
    addresses = [
        "0a001f3f00000000" + "20010db8" + "00" * 11 + "01" + "00000000",
        "1b00ffff00000000" + "fe80" + "00" * 6 + "0002c90300fa4e01" + "00" * 24,
        "ff00",
    ]
    entries = [{"RES_CM_IDN": number, "RES_SRC_ADDR": bytes.fromhex(address).ljust(128, b"\0")} for number, address in enumerate(addresses)]
    connections = Nldev(Always([encode({"DEV_INDEX": 1, "RES_CM_ID": entries})])).connections(1)
    assert [each.source for each in connections] == ["[2001:db8::1]:7999", "fe80::2:c903:fa:4e01", None]


def test_datagrams_as_the_kernel_sent_them_to_iproute2() -> None:
    """Whole messages, with the acknowledgement it asks for; and the lines it printed of them."""
    nldev = Nldev(recorded_datagrams())
    for device in nldev.devices():
        (line,) = re.findall(f"^= link {device.name}/1 (.*)$", WIRE.read_text(), re.MULTILINE)
        counters = nldev.counters(device.number, 1)
        assert " ".join(f"{name} {value}" for name, value in zip(*counters, strict=True)) == line
        assert nldev.queue_pairs(device.number) == [QueuePair(1, 1, None, 1, 3, None, None, None, "ib_core", None)]


def test_an_optional_counter_that_takes_the_place_of_another_is_seen() -> None:
    """Their names are of equal length, so the message looks the same but for the name."""
    recording, where = Recording(), {"DEV_INDEX": 0, "PORT_INDEX": 1}
    nldev = Nldev(recording)
    for counters in (
        {"out_of_buffer": 1, "cc_rx_cnp_pkts": 2},
        {"out_of_buffer": 3, "cc_tx_cnp_pkts": 4},
        {"out_of_buffer": 5},
        {},
        {"out_of_buffer": 6},
    ):
        recording.answer(17, 0, where, hardware_counters(counters))
        assert nldev.counters(0, 1) == (tuple(counters), list(counters.values()))


def test_the_layout_of_a_device_that_is_gone_is_forgotten() -> None:
    """Each time a device comes back it has another number."""
    recording, where = Recording(), {"DEV_INDEX": 0, "PORT_INDEX": 1}
    nldev = Nldev(recording)
    recording.answer(17, 0, where, hardware_counters({"out_of_buffer": 1}))
    names = nldev.counters(0, 1).names
    recording.answer(17, 0, where, done=message(2, 0, 1, struct.pack("=i", -22)))
    with pytest.raises(Unavailable, match="RDMA counters"):
        nldev.counters(0, 1)
    recording.answer(17, 0, where, hardware_counters({"out_of_buffer": 2}))
    again = nldev.counters(0, 1)
    assert again == (names, [2])
    assert again.names is not names


def test_refusals_reach_the_caller() -> None:
    """More counters than fit into a page, as hfi1 has: EMSGSIZE."""
    recording = Recording()
    recording.answer(17, 0, {"DEV_INDEX": 0, "PORT_INDEX": 1}, done=message(2, 0, 1, struct.pack("=i", -90)))
    with pytest.raises(Unavailable, match="RDMA counters: unsupported: the answer does not fit") as caught:
        Nldev(recording).counters(0, 1)
    assert caught.value.reason is Reason.UNSUPPORTED


def methods(nldev: Nldev) -> list[Callable[[], object]]:
    """Every request."""
    per_device: list[Callable[[int], object]] = [
        nldev.ports, nldev.summary, nldev.queue_pairs, nldev.connections, nldev.completion_queues, nldev.memory_regions,
        nldev.protection_domains, nldev.shared_receive_queues, nldev.contexts,
    ]  # fmt: skip
    per_port: list[Callable[[int, int], object]] = [
        nldev.port,
        nldev.counters,
        nldev.counter_status,
        nldev.counter_mode,
        nldev.counter_sets,
    ]
    return [
        nldev.devices,
        nldev.system,
        *(functools.partial(method, 1) for method in per_device),
        *(functools.partial(method, 1, 1) for method in per_port),
    ]


# What is set, with the kernel's acknowledgement or refusal

ACKNOWLEDGE, STAT_SET = 4, 16
PORT = {"DEV_INDEX": 2, "PORT_INDEX": 1}


def answers(where: dict[str, object], error: int = 0) -> Recording:
    recording = Recording()
    recording.answers[5 << 10 | STAT_SET, ACKNOWLEDGE, encode(where)] = [message(2, 0, 1, struct.pack("=i", -error))]
    return recording


def test_setting_the_mode_of_counter_sets() -> None:
    """What is asked is as `rdma statistic qp set link X auto type,pid on` asks."""
    recording = answers({**PORT, "STAT_RES": NUMBER["RES_QP"], "STAT_MODE": 1, "STAT_AUTO_MODE_MASK": 3})
    Nldev(recording).set_counter_mode(2, 1, nldev_const.MASK_QP_TYPE | nldev_const.MASK_PID)
    assert len(recording.asked) == 1


@pytest.mark.parametrize("numbers", [(), (28,), (28, 30)])
def test_enabling_optional_counters(numbers: tuple[int, ...]) -> None:
    """A nested attribute, marked as such, with the numbers of all that are to be on."""
    entries = b"".join(attribute(NUMBER["STAT_HWCOUNTER_INDEX"], struct.pack("=I", number)) for number in numbers)
    request = encode(dict(PORT)) + attribute(NUMBER["STAT_HWCOUNTERS"] | 0x8000, entries)
    recording = Recording()
    recording.answers[5 << 10 | STAT_SET, ACKNOWLEDGE, request] = [message(2, 0, 1, bytes(4))]
    Nldev(recording).enable_counters(2, 1, numbers)
    assert len(recording.asked) == 1


@pytest.mark.parametrize(
    ("error", "reason", "needs"),
    [(1, Reason.DENIED, "CAP_NET_ADMIN"), (22, Reason.UNSUPPORTED, ""), (95, Reason.UNSUPPORTED, ""), (16, Reason.UNREADABLE, "")],
)
def test_setting_refused(error: int, reason: Reason, needs: str) -> None:
    recording = answers({**PORT, "STAT_RES": NUMBER["RES_QP"], "STAT_MODE": 1, "STAT_AUTO_MODE_MASK": 0}, error)
    with pytest.raises(Unavailable, match="RDMA counter mode") as caught:
        Nldev(recording).set_counter_mode(2, 1, 0)
    assert (caught.value.reason, caught.value.needs) == (reason, needs)


def survive(bodies: list[bytes]) -> None:
    for method in methods(Nldev(Always(bodies))):
        try:
            method()
        except Unavailable as caught:
            assert caught.reason is Reason.MALFORMED  # noqa: PT017 - either is right


TYPES = st.integers(0, 105)
WORDS = st.integers(0, 2**64 - 1).map(lambda value: struct.pack("=Q", value))
TREES = st.recursive(
    st.builds(attribute, TYPES, st.binary(max_size=9) | WORDS),
    lambda inner: st.builds(lambda kind, parts: attribute(kind, b"".join(parts)), TYPES, st.lists(inner, max_size=4)),
    max_leaves=12,
)
NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=30)
RECORDED = [datagrams[0][16:] for datagrams in recorded().answers.values() if len(datagrams) > 1]


@given(st.lists(st.binary(max_size=120) | st.lists(TREES, max_size=4).map(b"".join), max_size=3))
def test_any_bytes_are_records_or_malformed(bodies: list[bytes]) -> None:
    survive(bodies)


@given(st.sampled_from(RECORDED), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4))
def test_recorded_answers_with_changed_bytes(answer: bytes, changes: list[tuple[int, int]]) -> None:
    """What is nearly right is where decoders break."""
    body = bytearray(answer)
    for place, value in changes:
        body[place % len(body)] = value
    survive([bytes(body), answer])


@given(st.dictionaries(NAMES, st.integers(0, 2**64 - 1), max_size=90))
def test_counters_are_read_as_they_were_written(values: dict[str, int]) -> None:
    body = hardware_counters(values)
    layout = CounterLayout(b"", body)
    assert dict(zip(layout.names, layout.values(body) or [], strict=True)) == values
