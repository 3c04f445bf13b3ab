"""What doctor says, and that the cures it prints are the ones the tools take."""

from __future__ import annotations

import grp
import json
import os
import shutil
import socket
import subprocess

import pytest

from otel_hostmetrics.doctor import report, surroundings
from otel_hostmetrics.doctor.cures import cures
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import State, Status

HOST = surroundings.Host("node1", "6.18.0", "x86_64", 64, 512 << 30, 3700)
ROOTLESS = surroundings.Process(65534, (), initial_user_namespace=True, initial_pid_namespace=True)
BPF = "CAP_BPF+CAP_PERFMON|CAP_SYS_ADMIN"
ENERGY = "/sys/class/powercap/intel-rapl:0/energy_uj"

denied_bpf = Unavailable(Reason.DENIED, "bpf(BPF_PROG_GET_NEXT_ID)", "Operation not permitted", BPF)
FOUND = {
    "bpf": (Status(State.FAILED, Reason.DENIED, str(denied_bpf), BPF, 1_234_567), []),
    "rdma": (Status(State.OFF, Reason.ABSENT, "/sys/class/infiniband: absent: No such file or directory"), []),
    "rapl": (
        Status(State.PARTIAL, Reason.DENIED),
        [Unavailable(Reason.DENIED, ENERGY, "Permission denied", f"CAP_DAC_READ_SEARCH|{ENERGY}")],
    ),
    "process": (Status(State.OK), []),
}


def test_text_has_host_process_every_source_and_each_cure_once():
    found = dict(FOUND, agent=FOUND["bpf"])
    text = report.text(report.report(found, HOST, ROOTLESS))
    assert text.startswith(
        "host     node1: Linux 6.18.0 x86_64, 64 cpus, 512.0 GiB memory, up 1 h 1 min\nprocess  uid 65534, no capabilities\n"
    )
    assert "bpf      failed   bpf(BPF_PROG_GET_NEXT_ID): denied: Operation not permitted\n" in text
    assert "rdma     off      /sys/class/infiniband: absent: No such file or directory\n" in text
    assert f"rapl     partial  {ENERGY}: denied: Permission denied\n" in text
    assert "process  ok\n" in text
    assert text.count("AmbientCapabilities=CAP_BPF CAP_PERFMON\n") == 1
    assert "bpf, agent needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN\n" in text
    assert f"rapl needs CAP_DAC_READ_SEARCH, or {ENERGY} readable, for {ENERGY}\n" in text


def test_many_problems_of_one_source_are_cut_in_text_only():
    problems = [Unavailable(Reason.UNSUPPORTED, f"file{number}") for number in range(30)]
    found = report.report({"rdma": (Status(State.PARTIAL, Reason.UNSUPPORTED), problems)}, HOST, ROOTLESS)
    assert report.text(found).count("file") == 10
    assert "and 20 more" in report.text(found)
    assert len(json.loads(report.as_json(found))["findings"][0]["problems"]) == 30


def test_a_problem_that_two_readers_have_is_told_once():
    problems = [Unavailable(Reason.ABSENT, "/proc/self/mountinfo")] * 2
    text = report.text(report.report({"bpf": (Status(State.PARTIAL, Reason.ABSENT), problems)}, HOST, ROOTLESS))
    assert text.count("mountinfo") == 1


def test_json_has_the_same():
    found = json.loads(report.as_json(report.report(FOUND, HOST, ROOTLESS)))
    assert found["host"]["cpus"] == 64
    assert found["process"]["uid"] == 65534
    assert [(finding["source"], finding["state"], finding["reason"]) for finding in found["findings"]] == [
        ("bpf", "failed", "denied"),
        ("rdma", "off", "absent"),
        ("rapl", "partial", "denied"),
        ("process", "ok", None),
    ]
    assert found["findings"][0]["took_ms"] == 1.235
    assert found["denials"][0]["sources"] == ["bpf"]
    assert [denial["missed"] for denial in found["denials"]] == [[], [ENERGY]]
    assert [cure["capabilities"] for cure in found["denials"][0]["cures"]] == [["CAP_BPF", "CAP_PERFMON"], ["CAP_SYS_ADMIN"]]


@pytest.mark.parametrize(
    ("names", "strict", "status"),
    [
        (["process", "rdma"], True, 0),
        (["process", "bpf"], False, 0),
        (["process", "bpf"], True, 77),
        (["rapl"], True, 77),
        (["late"], True, 1),
        (["late", "bpf"], True, 77),
    ],
)
def test_exit_status(names, strict, status):
    found = dict(FOUND, late=(Status(State.LATE, Reason.LATE), []))
    assert report.exit_status(report.report({name: found[name] for name in names}, HOST, ROOTLESS), strict) == status


def test_cures_of_capabilities_for_each_way_to_start():
    cure, other = cures(BPF)
    assert cure.systemd == ("AmbientCapabilities=CAP_BPF CAP_PERFMON", "CapabilityBoundingSet=CAP_BPF CAP_PERFMON")
    assert cure.kubernetes == ("securityContext: {runAsUser: 0, capabilities: {drop: [ALL], add: [BPF, PERFMON]}}",)
    assert cure.podman == ("sudo podman run --user=0 --cap-drop=all --cap-add=bpf,perfmon ...",)
    assert "--inh-caps=-all,+bpf,+perfmon --ambient-caps=-all,+bpf,+perfmon otel-hostmetrics" in cure.by_hand[0]
    assert str(other) == "CAP_SYS_ADMIN"
    assert cures("") == ()


def test_what_is_to_be_typed_is_this_program_as_this_user():
    """Neither sudo's PATH has a virtual environment, nor may nobody read somebody's home."""
    someone = surroundings.Process(1000, (), True, True, gid=100, command="'/home/a b/bin/otel-hostmetrics'")
    text = report.text(report.report(FOUND, HOST, someone))
    assert (
        "sudo setpriv --reuid=1000 --regid=100 --clear-groups --inh-caps=-all,+bpf,+perfmon --ambient-caps=-all,+bpf,+perfmon '/h" in text
    )
    assert "or as root: sudo '/home/a b/bin/otel-hostmetrics'\n" in text
    root = surroundings.Process(0, (), True, True)
    assert "sudo setpriv --reuid=65534 --regid=65534 " in report.text(report.report(FOUND, HOST, root))


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        ("/usr/bin/otel-hostmetrics", "otel-hostmetrics"),
        ("/opt/a b/bin/otel-hostmetrics", "'/opt/a b/bin/otel-hostmetrics'"),
        ("/src/otel_hostmetrics/__main__.py", "otel-hostmetrics"),
    ],
)
def test_the_program_is_named_such_that_sudo_finds_it(program, typed):
    assert surroundings.command(program) == typed


def test_a_cure_keeps_the_capabilities_that_were_chosen():
    """What is printed is a whole setting: with CAP_NET_ADMIN alone, what CAP_BPF and CAP_PERFMON gave would be lost."""
    (cure,) = cures("CAP_NET_ADMIN", ("CAP_PERFMON", "CAP_BPF"))
    assert cure.capabilities == ("CAP_NET_ADMIN",)
    assert cure.systemd[0] == "AmbientCapabilities=CAP_PERFMON CAP_BPF CAP_NET_ADMIN"
    assert "--ambient-caps=-all,+perfmon,+bpf,+net_admin " in cure.by_hand[0]
    (roots,) = cures("CAP_NET_ADMIN", surroundings.capabilities((1 << 12) - 1))
    assert roots.systemd[0] == "AmbientCapabilities=CAP_NET_ADMIN"


def test_cure_of_an_unreadable_path():
    (cure,) = cures("/run/a b")
    assert str(cure) == "/run/a b readable"
    assert cure.systemd[0] == "AmbientCapabilities=CAP_DAC_READ_SEARCH"
    assert cure.kubernetes == ("securityContext: {runAsUser: 0}", "volumes: a hostPath of /run/a b, mounted with readOnly: true")
    assert "--volume='/run/a b:/run/a b:ro'" in cure.podman[0]
    assert cure.by_hand[0] == "sudo chmod a+r '/run/a b'"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a socket away")
def test_cure_of_a_socket(tmp_path):
    """By its group if that may write; else nothing less than the capability, beside those that were chosen."""
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    path.chmod(0o660)
    os.chown(path, 0, grp.getgrnam("daemon").gr_gid)
    (cure,) = cures(f"unix:{path}")
    assert str(cure) == f"{path} writable"
    assert cure.systemd == ("SupplementaryGroups=daemon",)
    assert cure.by_hand == (
        "sudo setpriv --reuid=65534 --regid=65534 --groups=daemon otel-hostmetrics", "or as root: sudo otel-hostmetrics",
    )  # fmt: skip
    assert cure.kubernetes == ("securityContext: {runAsUser: 0}", f"volumes: a hostPath of {path}, mounted with readOnly: true")
    for change in (lambda: path.chmod(0o600), lambda: os.chown(path, 0, 0), path.unlink):
        change()
        (other,) = cures(f"unix:{path}", ("CAP_BPF",))
        assert other.systemd[0] == "AmbientCapabilities=CAP_BPF CAP_DAC_OVERRIDE"
        assert other.by_hand == ("or as root: sudo otel-hostmetrics",)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and util-linux's setpriv")
def test_the_command_given_for_a_socket_connects(tmp_path):
    """Run as printed, with a program that connects in place of the agent."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(0o660)
        os.chown(path, 0, grp.getgrnam("daemon").gr_gid)
        line = cures(f"unix:{path}")[0].by_hand[0].removeprefix("sudo ")
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        for words, status in ((line, 0), (line.replace("--groups=daemon", "--clear-groups"), 1)):
            command = [*words.removesuffix(" otel-hostmetrics").split(), "/usr/bin/env", "python3", "-c", connect]
            assert subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == status


def test_cure_of_a_right_in_kubernetes():
    (cure,) = cures("rbac:nodes/pods")
    assert str(cure) == "the right to get nodes/pods"
    assert "resources: [nodes/pods], verbs: [get]" in cure.kubernetes[0]
    assert "workloads.kubelet_token" in cure.systemd[0]


def test_what_is_held_already_is_not_offered_as_a_cure():
    process = surroundings.Process(0, ("CAP_SYS_ADMIN",), initial_user_namespace=False, initial_pid_namespace=False)
    text = report.text(report.report(FOUND, HOST, process))
    assert "uid 0, CAP_SYS_ADMIN, in a user namespace and a pid namespace of its own" in text
    assert "  CAP_SYS_ADMIN:\n    held already" in text
    assert "in a user namespace, whose capabilities do not count" in text


def test_capability_names_are_the_kernels():
    """CAP_LAST_CAP of the running kernel, and the numbers uapi/linux/capability.h gives."""
    assert surroundings.capabilities(1 << 2 | 1 << 21) == ("CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN")
    assert surroundings.capabilities(1 << 38 | 1 << 39 | 1 << 40) == ("CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE")
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    assert len(surroundings.capabilities((1 << last + 1) - 1)) == min(last, 40) + 1


def test_the_running_process_and_host():
    process, host = surroundings.process(), surroundings.host()
    assert process.uid == os.geteuid()
    assert host.kernel == os.uname().release
    assert host.memory_bytes > 1 << 20


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and util-linux's setpriv")
def test_the_command_given_by_hand_gives_the_capability(tmp_path):
    """Run as printed, with grep in place of the agent."""
    line = cures("CAP_DAC_READ_SEARCH")[0].by_hand[0].removeprefix("sudo ").replace("otel-hostmetrics", "grep CapEff /proc/self/status")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, cwd="/")
    assert surroundings.capabilities(int(done.stdout.split()[1], 16)) == ("CAP_DAC_READ_SEARCH",)
