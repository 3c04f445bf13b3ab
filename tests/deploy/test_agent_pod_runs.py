"""``podman play kube deploy/podman/agent.yaml``, the file as it is: are its rights enough, its mounts right?"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import images, podman
from tests.deploy.manifests import POD, ROOT, containers
from tests.deploy.needs import need_podman
from tests.system.processes import until

pytestmark = [pytest.mark.system, pytest.mark.live]

_PAGE = "http://127.0.0.1:9464/metrics"


@pytest.fixture(scope="module")
def loaded() -> Iterator[dict[str, list[int]]]:
    """Ids of BPF objects that a process of the host holds."""
    command = (sys.executable, "tests/live/bpfload.py", "--progs", "7", "--maps", "6", "--links", "2")
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        ids: dict[str, list[int]] = json.loads(process.stdout.readline())["ids"]
        yield ids
        process.terminate()


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory, loaded: dict[str, list[int]]) -> Iterator[podman.Podman]:
    need_podman()
    with podman.Podman(tmp_path_factory.mktemp("podman")) as engine:
        for name, container in containers(POD).items():
            tree = tmp_path_factory.mktemp(name)
            getattr(images, name)(tree)
            engine.make_image(container["image"], tree, "0" if name == "agent" else "10001", f"/bin/{name}")
        engine.run("play", "kube", POD)
        try:
            until("http://127.0.0.1:9464/-/ready")
            yield engine
        finally:
            engine.run("kube", "down", POD)


def test_nothing_is_denied_to_it(pod: podman.Podman) -> None:
    """Except processes that this machine hides from its own root, as some virtual machines do with their first one."""
    sources = json.loads(until("http://127.0.0.1:9464/-/ready"))["sources"]
    if _hidden_from_root():
        assert "process" in sources["bpf"]["detail"]
        assert sources["bpf"]["needs"] == "CAP_SYS_PTRACE+CAP_DAC_READ_SEARCH"
        sources["bpf"] = {"state": "ok"}
    assert sources["bpf"] == {"state": "ok"}
    assert not [name for name, status in sources.items() if status.get("reason") == "denied"]


def _hidden_from_root() -> bool:
    """Whether there is a process whose descriptors we, root, may not read either."""
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            for name in os.listdir(folder):
                os.readlink(folder / name)
        except PermissionError:
            return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False


@pytest.mark.parametrize("kind", ["program", "map", "link"])
def test_it_sees_the_objects_of_the_host(pod: podman.Podman, loaded: dict[str, list[int]], kind: str) -> None:
    ids = set(map(int, re.findall(rf'^bpf_{kind}_info{{(?:.*,)?id="(\d+)"', until(_PAGE).decode(), re.MULTILINE)))
    assert loaded[kind]
    assert set(loaded[kind]) <= ids


def test_it_names_the_host_and_not_the_container(pod: podman.Podman) -> None:
    (target,) = re.findall(r"^target_info{(.*)}", until(_PAGE).decode(), re.MULTILINE)
    machine = Path("/etc/machine-id").read_text().strip()
    assert f'host_name="{socket.gethostname()}"' in target
    assert f'host_id="{machine}"' in target


def test_its_metrics_reach_the_collector_beside_it(pod: podman.Podman) -> None:
    deadline = time.monotonic() + 20
    while "Received metrics" not in pod.run("logs", "otel-hostmetrics-collector"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_it_stops_when_told_to(pod: podman.Podman) -> None:
    """As process 1 it gets no default action for SIGTERM; the last test, for it does not come back."""
    began = time.monotonic()
    pod.run("stop", "--time", "10", "otel-hostmetrics-agent")
    (inspected,) = json.loads(pod.run("inspect", "otel-hostmetrics-agent"))
    assert inspected["State"]["ExitCode"] == 0
    assert time.monotonic() - began < 8
