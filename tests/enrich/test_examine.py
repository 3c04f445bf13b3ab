"""What doctor says of the ways to names: each asked on a host of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from otel_hostmetrics.enrich.examine import examine
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import State
from otel_hostmetrics.settings import Workloads
from tests.enrich.servers import local_server

A, B, POD = "a1" * 32, "b2" * 32, "9a1b2c3d-1111-4222-8333-444455556666"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two processes in one container, one in another of a pod, one in none."""
    for pid, path in ((7, f"/docker/{A}"), (8, f"/docker/{A}"), (9, f"/kubepods/pod{POD}/{B}"), (1, "/init.scope")):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cgroup").write_text(f"0::{path}\n")
    (tmp_path / "proc/10").mkdir()  # exits now
    (tmp_path / "run").mkdir()
    return tmp_path


def test_each_configured_way_says_how_many_it_knows(root: Path) -> None:
    listed = [{"Id": A, "Names": ["/web"]}, {"Id": "c3" * 32, "Names": ["/other"]}]
    with local_server(root / "run/docker.sock", {"/containers/json": (200, json.dumps(listed).encode())}):
        found = examine(HostFS(str(root)), Workloads(docker="/run/docker.sock", podman="/run/podman.sock"))
    assert list(found) == ["workloads.pod_logs", "workloads.bundles", "workloads.docker", "workloads.podman"]
    docker, problems = found["workloads.docker"]
    assert (docker.state, docker.detail, problems) == (State.OK, "1 of 2 containers, 0 of 1 pods", [])
    assert docker.took_ns > 0
    podman = found["workloads.podman"][0]
    assert (podman.state, podman.reason) == (State.FAILED, Reason.ABSENT)
    assert str(root / "run/podman.sock") in podman.detail
    assert found["workloads.bundles"][0].detail == "0 of 2 containers, 0 of 1 pods"


def test_one_that_misses_something_and_one_that_answers_otherwise(root: Path) -> None:
    bundle = root / "var/lib/docker/containers" / A
    bundle.mkdir(parents=True)
    (bundle / "config.v2.json").write_text("{")
    with local_server(root / "run/docker.sock", {"/containers/json": (403, b"")}):
        found = examine(HostFS(str(root)), Workloads(pod_logs="", docker="/run/docker.sock"))
    bundles, problems = found["workloads.bundles"]
    assert (bundles.state, bundles.reason, [each.reason for each in problems]) == (State.PARTIAL, Reason.MALFORMED, [Reason.MALFORMED])
    docker = found["workloads.docker"][0]
    assert (docker.state, docker.reason, docker.needs) == (State.FAILED, Reason.DENIED, f"unix:{root}/run/docker.sock")


def test_without_a_procfs_there_is_nobody_to_name(tmp_path: Path) -> None:
    found = examine(HostFS(str(tmp_path)), Workloads(pod_logs=""))
    assert [status.detail for status, _ in found.values()] == ["0 of 0 containers, 0 of 0 pods"]
