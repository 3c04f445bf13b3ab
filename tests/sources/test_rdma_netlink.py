"""What netlink and ioctl tell: on recorded answers, and on a pair of virtual interfaces of the running kernel."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import struct
from collections import Counter as Count
from pathlib import Path
from typing import Any

import pytest

from otel_hostmetrics.catalogue import rdma_ethtool
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel.counterfiles import Budget
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.netlink import attribute, message
from otel_hostmetrics.kernel.nldev import Nldev
from otel_hostmetrics.model import Reading
from otel_hostmetrics.settings import Rdma as Chosen
from otel_hostmetrics.sources.rdma.congestion import Congestion
from otel_hostmetrics.sources.rdma.counters import Counters
from otel_hostmetrics.sources.rdma.devices import Device, Owner, Port, discover
from otel_hostmetrics.sources.rdma.facts import Facts, optional_counters
from otel_hostmetrics.sources.rdma.groups import groups
from otel_hostmetrics.sources.rdma.interfaces import Netdev
from otel_hostmetrics.sources.rdma.link import Links
from otel_hostmetrics.sources.rdma.resources import Resources
from tests.hosts.gentree import generate
from tests.hosts.recorded import unpack
from tests.kernel.links import Links as Interfaces
from tests.kernel.nldev_recording import MACHINE, NUMBER, Recording, encode, hardware_counters, recorded
from tests.sources.rdma_host import metric, stats, values
from tests.threads import threads

SHOWN = json.loads((MACHINE / "iproute2.json").read_text())
RXE1 = 1  # its number in the recording
DUMP = 0x300


class Witness:
    """Passes requests on, and keeps which commands they were."""

    def __init__(self) -> None:
        self.recording = recorded()
        self.commands: list[int] = []

    def ask(self, kind: int, flags: int, body: bytes, what: str) -> list[bytes]:
        self.commands.append(kind & 1023)
        return self.recording.ask(kind, flags, body, what)

    def close(self) -> None:
        self.recording.close()


def rxe1(tmp_path: Path) -> tuple[HostFS, Device]:
    """The recorded machine's rxe1, over the files of another recording of such a machine."""
    fs = unpack("rdma-rxe", tmp_path)
    known = {device.name: device for device in Nldev(recorded()).devices() if device.name}
    (tmp_path / "sys/class/infiniband/rxe1/node_guid").write_text(f"{known['rxe1'].node_guid}\n")
    return fs, next(device for device in discover(fs, Chosen(devices=("rxe1",)), known).devices)


def request(**where: int) -> bytes:
    return b"".join(attribute(NUMBER[name], struct.pack("=I", value)) for name, value in where.items())


def says(recording: Recording, command: int, flags: int, where: bytes, *bodies: bytes) -> None:
    """From now on the answer to a request."""
    datagrams = [message(5 << 10 | command, 2 if flags else 0, 1, body) for body in bodies]
    recording.answers[5 << 10 | command, flags, where] = [*datagrams, message(3, 2, 1, bytes(4))]


def refuses(recording: Recording, command: int, flags: int, where: bytes, error: int) -> None:
    recording.answers[5 << 10 | command, flags, where] = [message(2, 0, 1, struct.pack("=i", -error))]


def shown(kind: str) -> list[dict[str, Any]]:
    """What `rdma resource show` printed of rxe1."""
    return [each for each in SHOWN[kind] if each["ifname"] == "rxe1"]


def test_a_device_is_live_only_if_its_node_guid_is_that_of_netlink(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    assert device.number == RXE1
    (tmp_path / "sys/class/infiniband/rxe1/node_guid").write_text("dead:beef:0000:0000\n")
    known = {each.name: each for each in Nldev(recorded()).devices() if each.name}
    assert known.keys() >= {"rxe0", "rxe1"}
    assert all(each.number is None for each in discover(fs, Chosen(), known).devices)


@pytest.mark.parametrize("kind", ["cq", "pd", "mr", "ctx", "cm_id", "srq"])
def test_objects_of_each_owner_are_those_rdma_resource_showed(kind: str, tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    resources = Resources(fs, Chosen(), [device], Nldev(recorded()))
    reading = Reading(dict(resources.columns()))
    expected = Count(each.get("pid", each["comm"]) for each in shown(kind))
    points = values(reading, "rdma.process.resources").items()
    found = {owner(labels): value for labels, value in points if labels[-1] == kind}
    assert found == expected
    assert resources.problems == []


def owner(labels: tuple[object, ...]) -> object:
    """pid or kernel module, of (process.pid, device, type) or (device, kernel module, type)."""
    return labels[0] if isinstance(labels[0], int) else labels[1]


def test_objects_of_a_process_have_the_name_of_its_executable(tmp_path: Path) -> None:
    """Read once, and again when the pid is another's; of objects of the kernel there is none."""
    fs, device = rxe1(tmp_path)
    pid = next(each["pid"] for each in shown("mr") if "pid" in each)
    directory = tmp_path / f"proc/{pid}"
    directory.mkdir(parents=True)
    (directory / "exe").symlink_to("/usr/bin/ib_write_bw")
    resources = Resources(fs, Chosen(qps=True), [device], Nldev(recorded()))

    def names(metric: str) -> set[tuple[object, object]]:
        reading = Reading(dict(resources.columns()))
        series = next(column.series for row, column in reading.columns.items() if row.name == metric)
        return {(each.attributes.get("process.pid"), each.attributes.get("process.executable.name")) for each in series}

    assert names("rdma.process.memory.registered") >= {(pid, "ib_write_bw")}
    for row in ("rdma.process.resources", "rdma.process.queue_pairs"):
        assert {name for each, name in names(row) if each == pid} == {"ib_write_bw"}
        assert {name for each, name in names(row) if each != pid} == {None}
    (directory / "exe").unlink()  # nobody looks at it again
    assert names("rdma.process.memory.registered") >= {(pid, "ib_write_bw")}
    directory.rename(tmp_path / "gone")
    directory.mkdir()
    (directory / "exe").symlink_to("/usr/bin/next")
    assert names("rdma.process.memory.registered") >= {(pid, "next")}
    assert resources.problems == []


def test_memory_registered_is_the_sum_of_a_processs_regions(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    reading = Reading(dict(Resources(fs, Chosen(), [device], Nldev(recorded())).columns()))
    expected: Count[tuple[object, ...]] = Count()
    for each in shown("mr"):
        expected[each["pid"], "rxe1"] += each["mrlen"]
    assert values(reading, "rdma.process.memory.registered") == expected


def test_a_region_of_unknown_length_is_counted_and_its_process_has_no_sum(tmp_path: Path) -> None:
    def region(pid: int, *length: bytes) -> bytes:
        own = request(RES_MRN=pid, RES_PID=pid) + b"".join(attribute(NUMBER["RES_MRLEN"], each) for each in length)
        return attribute(NUMBER["RES_MR_ENTRY"], own)

    fs, device = rxe1(tmp_path)
    recording = recorded()
    regions = region(7, struct.pack("=Q", 4096)) + region(7) + region(8, struct.pack("=Q", 64))
    says(recording, 13, DUMP, request(DEV_INDEX=RXE1), request(DEV_INDEX=RXE1) + attribute(NUMBER["RES_MR"], regions))
    reading = Reading(dict(Resources(fs, Chosen(), [device], Nldev(recording)).columns()))
    assert values(reading, "rdma.process.memory.registered") == {(8, "rxe1"): 64}
    counted = {owner(labels): value for labels, value in values(reading, "rdma.process.resources").items() if labels[-1] == "mr"}
    assert counted == {7: 2, 8: 1}


def regions(*pids: int) -> bytes:
    """A region of 4096 bytes for each."""
    length = attribute(NUMBER["RES_MRLEN"], struct.pack("=Q", 4096))
    entries = [attribute(NUMBER["RES_MR_ENTRY"], request(RES_MRN=number, RES_PID=pid) + length) for number, pid in enumerate(pids)]
    return request(DEV_INDEX=RXE1) + attribute(NUMBER["RES_MR"], b"".join(entries))


def test_objects_of_threads_are_those_of_their_process(tmp_path: Path) -> None:
    """The kernel tells which thread made an object."""
    _, device = rxe1(tmp_path)
    recording, where = recorded(), (13, DUMP, request(DEV_INDEX=RXE1))
    resources = Resources(HostFS(), Chosen(), [device], Nldev(recording))
    name = Path("/proc/self/exe").resolve().name
    with threads(3) as running:
        says(recording, *where, regions(os.getpid(), *running))
        reading = Reading(dict(resources.columns()))
        assert values(reading, "rdma.process.memory.registered") == {(name, os.getpid(), "rxe1"): 4 * 4096}
        assert values(reading, "rdma.process.resources")[name, os.getpid(), "rxe1", "mr"] == 4


def test_the_process_of_a_thread_is_read_once_and_again_when_its_number_is_anothers(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    recording = recorded()
    says(recording, 13, DUMP, request(DEV_INDEX=RXE1), regions(8, 9))
    thread = tmp_path / "proc/8"
    thread.mkdir(parents=True)
    (thread / "status").write_text("Name:\tworker\nTgid:\t7\n")
    resources = Resources(fs, Chosen(), [device], Nldev(recording))

    def owners() -> set[object]:
        return {pid for pid, _ in values(Reading(dict(resources.columns())), "rdma.process.memory.registered")}

    assert owners() == {7, 9}  # of thread 9 nothing is known: it has just ended
    (thread / "status").unlink()  # nobody looks at it again
    assert owners() == {7, 9}
    thread.rename(tmp_path / "gone")
    thread.mkdir()
    (thread / "status").write_text("Name:\tnext\nTgid:\t8\n")
    assert owners() == {8, 9}


def test_summary_and_queue_pairs(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    silent = Witness()
    reading = Reading(dict(Resources(fs, Chosen(), [device], Nldev(silent)).columns()))
    (summary,) = shown("resource")
    assert values(reading, "rdma.resources") == {("rxe1", kind): summary[kind] for kind in ("pd", "cq", "qp", "cm_id", "mr", "ctx", "srq")}
    assert values(reading, "rdma.process.queue_pairs") == {}
    assert 10 not in silent.commands  # RES_QP_GET is a query of the driver for each: only if wanted
    reading = Reading(dict(Resources(fs, Chosen(qps=True), [device], Nldev(recorded())).columns()))
    expected = Count((each["pid"], each["type"], each["state"]) for each in shown("qp") if "pid" in each)
    pairs = values(reading, "rdma.process.queue_pairs")
    found = {(pid, type_, state): value for (pid, _, _, state, type_), value in pairs.items() if isinstance(pid, int)}
    assert found == expected


def test_series_of_processes_stay_and_go_with_them(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    recording = recorded()
    resources = Resources(fs, Chosen(), [device], Nldev(recording))
    first, second = dict(resources.columns()), dict(resources.columns())
    assert all(first[row].series is second[row].series for row in first)
    says(recording, 13, DUMP, request(DEV_INDEX=RXE1))  # no memory region any more
    third = Reading(dict(resources.columns()))
    left = {labels[-1] for labels in values(third, "rdma.process.resources")}
    assert "mr" not in left
    assert "cq" in left
    assert values(third, "rdma.process.memory.registered") == {}


def test_what_one_request_refuses_costs_itself_only(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    recording = recorded()
    refuses(recording, 12, DUMP, request(DEV_INDEX=RXE1), errno.EIO)
    resources = Resources(fs, Chosen(), [device], Nldev(recording))
    left = {labels[-1] for labels in values(Reading(dict(resources.columns())), "rdma.process.resources")}
    assert left == {"pd", "mr", "ctx", "cm_id", "srq"}
    assert [problem.reason for problem in resources.problems] == [Reason.UNREADABLE]


def test_counter_sets_of_queue_pairs_carry_the_pid(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    recording = recorded()
    entry = {
        "STAT_COUNTER_ID": 7, "PORT_INDEX": 1, "STAT_MODE": 1, "RES_TYPE": 2, "RES_PID": 4711,
        "STAT_HWCOUNTERS": [{"STAT_HWCOUNTER_ENTRY_NAME": "out_of_sequence", "STAT_HWCOUNTER_ENTRY_VALUE": 5}],
    }  # fmt: skip
    where = request(DEV_INDEX=RXE1, PORT_INDEX=1, STAT_RES=19)
    says(recording, 17, DUMP, where, encode({"DEV_INDEX": RXE1, "PORT_INDEX": 1, "STAT_COUNTER": [entry]}))
    resources = Resources(fs, Chosen(), [device], Nldev(recording))
    reading = Reading(dict(resources.columns()))
    assert values(reading, "rdma.qp.stat") == {(4711, "rxe1", 1, 7, "RC", "out_of_sequence"): 5}
    others = Resources(fs, Chosen(), [device], Nldev(recording))  # another device has come
    others.keep(resources, {device.ports[0].owner})
    row = metric(reading, "rdma.qp.stat")
    assert row
    assert dict(others.columns())[row].series is reading.columns[row].series


def test_the_state_of_all_ports_is_one_question_per_device(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    (tmp_path / "sys/class/infiniband/rxe1/ports/1/state").write_text("1: DOWN\n")  # not what the kernel says
    witness = Witness()
    links = Links(fs, [device], Nldev(witness), 3600, Budget(10))
    reading = Reading(dict(links.columns()))
    assert values(reading, "rdma.port.state") == {("rxe1", 1): 4}
    list(links.columns())
    assert witness.commands == [5, 5]  # PORT_GET
    links.close()


@pytest.mark.parametrize("listed", [[1], []])
def test_ports_after_one_that_cannot_be_queried_are_asked_singly(listed: list[int], tmp_path: Path) -> None:
    """The kernel's list ends at the first port of which the driver tells nothing."""
    recording = recorded()

    def told(number: int) -> bytes:
        return encode({"DEV_INDEX": 7, "PORT_INDEX": number, "PORT_STATE": 4, "PORT_PHYS_STATE": 5})

    says(recording, 5, DUMP, request(DEV_INDEX=7), *map(told, listed))
    for number in (1, 3):
        says(recording, 5, 0, request(DEV_INDEX=7, PORT_INDEX=number), told(number))
    refuses(recording, 5, 0, request(DEV_INDEX=7, PORT_INDEX=2), errno.ETIMEDOUT)
    generate(tmp_path, 1, 3)
    (device,) = discover(HostFS(str(tmp_path)), Chosen(), {}).devices
    links = Links(HostFS(str(tmp_path)), [device._replace(number=7)], Nldev(recording), 3600, Budget(10))
    reading = Reading(dict(links.columns()))
    states = {labels[0]: labels[1] for labels, value in values(reading, "hw.status").items() if value}
    assert states == {"mlx5_0/1": "ok", "mlx5_0/2": "failed", "mlx5_0/3": "ok"}
    assert [problem.what for problem in links.problems] == ["RDMA port 2"]
    links.close()


def without_counters(root: Path) -> None:
    """As in the network namespace of a pod: the port has no counters/ and no hw_counters/."""
    for name in ("counters", "hw_counters"):
        shutil.rmtree(root / "sys/class/infiniband/rxe1/ports/1" / name, ignore_errors=True)


def test_counters_come_by_netlink_where_sysfs_has_none(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    without_counters(tmp_path)
    counters, problems = Counters(), []
    counters.bind(groups(fs, Chosen(), device, Nldev(recorded()), Budget(10), problems.append))
    found = stats(Reading(dict(counters.columns())))
    (shown_,) = shown("statistic")
    assert found == {("rxe1", "1", name): value for name, value in shown_.items() if name not in ("ifname", "port")}
    assert problems == []


def test_counter_number_0_is_read_first(tmp_path: Path) -> None:
    """So that the driver is asked once for all of them, whatever it is called."""
    fs, device = rxe1(tmp_path)
    recording, where = recorded(), request(DEV_INDEX=RXE1, PORT_INDEX=1)
    names = ["send_err", "ack_deferred", "sent_pkts"]
    status = [{"STAT_HWCOUNTER_ENTRY_NAME": name, "STAT_HWCOUNTER_INDEX": index} for index, name in enumerate(names)]
    says(recording, 24, 0, where, encode({"STAT_HWCOUNTERS": status}))
    found = groups(fs, Chosen(), device, Nldev(recording), Budget(0), pytest.fail)
    hardware = next(group for group in found if group.where.directory == "hw_counters")
    assert hardware.names[0] == "send_err"
    assert list(hardware.names[1:]) == sorted(hardware.names[1:])
    for group in found:
        group.close()


def test_a_device_that_answered_and_is_refused_is_gone(tmp_path: Path) -> None:
    """In a pod there is no file that says ENODEV: the kernel knows the old number no more."""
    fs, device = rxe1(tmp_path)
    without_counters(tmp_path)
    recording = recorded()
    counters = Counters()
    counters.bind(groups(fs, Chosen(), device, Nldev(recording), Budget(10), pytest.fail))
    assert counters.columns()
    assert counters.gone() == set()
    refuses(recording, 17, 0, request(DEV_INDEX=RXE1, PORT_INDEX=1), errno.EIO)
    assert counters.columns() == {}
    assert counters.gone() == set()
    assert [problem.reason for problem in counters.problems()] == [Reason.UNREADABLE]
    refuses(recording, 17, 0, request(DEV_INDEX=RXE1, PORT_INDEX=1), errno.EINVAL)
    counters.columns()
    assert counters.gone() == {"rxe1"}


def test_counters_that_do_not_fit_into_a_message_come_from_files(tmp_path: Path) -> None:
    """hfi1 has more than fit into the kernel's page: EMSGSIZE."""
    fs, device = rxe1(tmp_path)
    recording = recorded()
    where = request(DEV_INDEX=RXE1, PORT_INDEX=1)
    enabled = [{"STAT_HWCOUNTER_ENTRY_NAME": "cc_rx_ce_pkts", "STAT_HWCOUNTER_INDEX": 0, "STAT_HWCOUNTER_DYNAMIC": b"\1"}]
    says(recording, 24, 0, where, encode({"STAT_HWCOUNTERS": enabled}))
    refuses(recording, 17, 0, where, errno.EMSGSIZE)
    counters, problems = Counters(), []
    counters.bind(groups(fs, Chosen(), device, Nldev(recording), Budget(0), problems.append))
    assert ("rxe1", "1", "sent_pkts") in stats(Reading(dict(counters.columns())))
    assert problems == []
    counters.close()


def test_files_are_preferred_unless_an_optional_counter_is_enabled(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    where = request(DEV_INDEX=RXE1, PORT_INDEX=1)
    for enabled, expected in ((0, False), (1, True)):
        recording = recorded()
        entry = {"STAT_HWCOUNTER_ENTRY_NAME": "cc_rx_ce_pkts", "STAT_HWCOUNTER_INDEX": 0, "STAT_HWCOUNTER_DYNAMIC": bytes([enabled])}
        says(recording, 24, 0, where, encode({"STAT_HWCOUNTERS": [entry]}))
        says(recording, 17, 0, where, hardware_counters({"sent_pkts": 1, "cc_rx_ce_pkts": 9}))
        nldev = Nldev(recording)
        counters = Counters()
        counters.bind(groups(fs, Chosen(), device, nldev, Budget(0), pytest.fail))
        found = stats(Reading(dict(counters.columns())))
        assert (found.get(("rxe1", "1", "cc_rx_ce_pkts")) == 9) is expected
        assert [point.value for point in optional_counters([device], nldev)] == [enabled]
        counters.close()


@pytest.mark.parametrize(
    ("name", "metric", "labels", "value"),
    [
        ("rx_prio3_pause", "rdma.pause.frames", {"network.io.direction": "receive", "rdma.priority": "3"}, 10),
        ("tx_global_pause", "rdma.pause.frames", {"network.io.direction": "transmit"}, 10),
        ("tx_prio0_pause_duration", "rdma.pause.duration", {"network.io.direction": "transmit", "rdma.priority": "0"}, 1e-5),
        ("rx_prio7_pause_transition", "rdma.pause.transitions", {"network.io.direction": "receive", "rdma.priority": "7"}, 10),
        ("rx_prio1_cong_discard", "rdma.priority.packets", {"rdma.priority": "1", "rdma.stat.name": "cong_discard"}, 10),
        ("outbound_pci_stalled_wr", "rdma.pcie.stalled", {"rdma.pcie.operation": "write"}, 0.1),
        ("outbound_pci_stalled_rd_events", "rdma.pcie.stalled.time", {"rdma.pcie.operation": "read"}, 10),
        ("outbound_pci_buffer_overflow", "hw.errors", {"error.type": "outbound_pci_buffer_overflow"}, 10),
        ("rx_crc_errors_phy", "hw.errors", {"error.type": "rx_crc_errors_phy", "network.io.direction": "receive"}, 10),
        ("rx_err_lane_0_phy", "hw.errors", {"error.type": "rx_err_lane_0_phy", "network.io.direction": "receive"}, 10),
        ("rx_discards_phy", "rdma.port.discards", {"rdma.stat.name": "rx_discards_phy", "network.io.direction": "receive"}, 10),
        ("link_down_events_phy", "rdma.link.events", {"rdma.link.event": "phy_down"}, 10),
        ("tx_vport_rdma_unicast_bytes", "rdma.vport.io", {"network.io.direction": "transmit", "rdma.packet.cast": "unicast"}, 10),
        ("rx_vport_rdma_multicast_packets", "rdma.vport.packets", {"network.io.direction": "receive", "rdma.packet.cast": "multicast"}, 10),
        ("rx_corrected_bits_phy", "rdma.netdev.stat", {"rdma.stat.name": "rx_corrected_bits_phy"}, 10),
    ],
)
def test_ethtool_statistics_are_typed(name: str, metric: str, labels: dict[str, str], value: float) -> None:
    known = rdma_ethtool.lookup(name)
    assert (known.metric.name, dict(known.attributes)) == (metric, labels)
    assert 10 * known.scale == pytest.approx(value)
    known.metric.series({**labels, **dict.fromkeys(set(known.metric.attributes) - labels.keys(), "x")})


def test_statistics_of_a_running_interface() -> None:
    """A pair of veth stands for the interface of a RoCE port; its statistics are not typed, so they keep their names."""
    with Interfaces() as interfaces:
        interfaces.veth("rdmatest0", "rdmatest1")
        netdevs = [Netdev(Owner("rxe1", 1), name) for name in ("rdmatest0", "rdmatest9")]
        congestion = Congestion(Chosen(ethtool_stats=("peer_*", "rx_queue_0_*")), netdevs)
        try:
            first, second = Reading(dict(congestion.columns())), Reading(dict(congestion.columns()))
            found = values(first, "rdma.netdev.stat")
            assert found["rdmatest0", "rxe1", 1, "peer_ifindex"] == socket.if_nametoindex("rdmatest1")
            assert all(first.columns[row].series is second.columns[row].series for row in first.columns)
            assert {problem.what for problem in congestion.problems} <= {"ethtool rdmatest9", "DCB of rdmatest9"}
        finally:
            congestion.close()


def test_facts_of_a_running_interface(tmp_path: Path) -> None:
    fs, device = rxe1(tmp_path)
    with Interfaces() as interfaces:
        interfaces.veth("rdmatest0", "rdmatest1")
        here = device._replace(ports=(Port(Owner("rxe1", 1), "Ethernet", "roce", ("rdmatest0",)),))
        facts = Facts(fs, [here], Nldev(recorded()), {"rdmatest0"}).look()
    port_ = facts["devices"]["rxe1"]["ports"]["1"]  # type: ignore[index]
    assert port_["interfaces"]["rdmatest0"]["driver"]["name"] == "veth"
    assert "tx-checksum-ip-generic" in port_["interfaces"]["rdmatest0"]["offloads"]
    assert port_["queue_pair_counters"] == "auto type,pid"
    assert facts["system"]["shared"] == 1  # type: ignore[index]
    json.dumps(facts)
