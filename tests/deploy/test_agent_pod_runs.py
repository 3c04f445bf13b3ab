"""``podman play kube deploy/podman/agent.yaml``, the file as it is: are its rights enough, its mounts right?"""

from __future__ import annotations

import json
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
    page = until(_PAGE).decode()
    assert 'otel_hostmetrics_source_status{otel_hostmetrics_source_name="bpf",otel_hostmetrics_source_state="ok"} 1' in page
    assert not re.findall(r'.*error_type="denied".*', page)


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
