"""The stage as configured: which ways to names there are, in which order, below which root, and what is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue.model import Kind, Metric, Series
from otel_hostmetrics.enrich import build, lookups
from otel_hostmetrics.enrich.examine import examine
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.model import Column, Reading
from otel_hostmetrics.settings import Workloads
from otel_hostmetrics.telemetry import Telemetry
from tests.enrich.servers import grpc_server, local_server, message, tls_server
from tests.export.otlp.certificates import Authority

A, POD = "a1" * 32, "9a1b2c3d-1111-4222-8333-444455556666"
ENERGY = Metric("hw.gpu.energy", Kind.COUNTER, "J", "Energy.", "nothing", (), ("hw.id", "process.pid"))
RUNTIME = "/runtime.v1.RuntimeService/"


def test_nothing_that_is_not_configured_is_imported() -> None:
    code = """
import sys
from otel_hostmetrics.enrich import build
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Workloads
from otel_hostmetrics.telemetry import Telemetry
build(HostFS(), Workloads(), Telemetry())
print({"grpc", "ssl", "http.client", "otel_hostmetrics.enrich.cri", "otel_hostmetrics.enrich.kubelet"} & sys.modules.keys())
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30).stdout == "set()\n"


def test_every_way_can_be_turned_off() -> None:
    assert [each.name for each in lookups(HostFS(), Workloads())] == ["pod_logs", "bundles"]
    assert lookups(HostFS(), Workloads(bundles=(), pod_logs="")) == []


def test_a_socket_may_be_written_as_runtimes_write_it(tmp_path: Path) -> None:
    """DOCKER_HOST, CONTAINER_HOST and crictl take unix:///run/docker.sock."""
    for text in ("/run/docker.sock", "unix:///run/docker.sock", "unix:/run/docker.sock"):
        settings = Workloads(bundles=(), pod_logs="", docker=text, podman=text, cri=text, pod_resources=text)
        for status, _ in examine(HostFS(str(tmp_path)), settings).values():
            assert status.detail.startswith(f"{tmp_path}/run/docker.sock: absent"), text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node: a process in a pod's container, and its runtime's files."""
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cgroup").write_text(f"0::/kubepods/burstable/pod{POD}/{A}\n")
    bundle = tmp_path / "run/containerd/io.containerd.runtime.v2.task/k8s.io" / A
    bundle.mkdir(parents=True)
    annotations = {"io.kubernetes.cri.sandbox-name": "from-bundle", "io.kubernetes.cri.container-name": "main"}
    (bundle / "config.json").write_text(json.dumps({"annotations": annotations}))
    return tmp_path


def points(root: Path, settings: Workloads) -> dict[object, dict[str, object]]:
    """The workloads of a process's point and of two GPUs', by pid or id."""
    series = (Series(ENERGY, {"process.pid": 7}), Series(ENERGY, {"hw.id": "GPU-1"}), Series(ENERGY, {"hw.id": "GPU-2"}))
    reading = Reading({ENERGY: Column(series, [1.0, 2.0, 3.0])})
    stage = build(HostFS(str(root)), settings, Telemetry())
    try:
        stage("gpu", reading)
    finally:
        stage.close()
    found = reading.columns[ENERGY].series
    assert found[0].resource is found[1].resource or found[1].resource is None
    return {next(iter(each.attributes.values())): dict(each.resource or {}) for each in found}


def test_all_ways_at_once_on_a_node_below_a_root(root: Path) -> None:
    """CRI, docker, podman, the kubelet and PodResources: each adds what it knows, the kubelet has the last word."""
    authority = Authority(root)
    (root / "token").write_text("t")
    sandbox = message((1, "5" * 64), (2, message((1, "from-cri"), (2, POD), (3, "ml"))), (5, {"team": "x"}))
    cri = {
        RUNTIME + "Version": message((2, "containerd")),
        RUNTIME + "ListPodSandbox": message((1, sandbox)),
        RUNTIME + "ListContainers": message((1, message((1, A), (2, "5" * 64), (3, message((1, "main")))))),
    }
    pod = {
        "metadata": {"name": "train-0", "namespace": "ml", "uid": POD, "labels": {"app": "train"}},
        "spec": {"nodeName": "n1"},
        "status": {"containerStatuses": [{"name": "main", "image": "ml/train:7", "containerID": f"containerd://{A}"}]},
    }
    given = message((1, message((1, "train-0"), (2, "ml"), (3, message((1, "main"), (2, message((1, "nvidia.com/gpu"), (2, "GPU-1"))))))))
    with (
        grpc_server(root / "run/c.sock", cri),
        grpc_server(root / "run/r.sock", {"/v1.PodResourcesLister/List": given}),
        local_server(root / "run/d.sock", {"/containers/json": (200, b"[]")}) as asked_docker,
        local_server(root / "run/p.sock", {"/v4.0.0/libpod/containers/json": (200, b"[]")}) as asked_podman,
        tls_server(*authority.issue("localhost"), {"/pods": (200, json.dumps({"items": [pod]}).encode())}) as (port, _),
    ):
        daemons = {"cri": "/run/c.sock", "pod_resources": "/run/r.sock", "docker": "/run/d.sock", "podman": "/run/p.sock"}
        kubelet = {"kubelet": f"https://localhost:{port}", "kubelet_ca": str(authority.ca), "kubelet_token": str(root / "token")}
        found = points(root, Workloads(**daemons, **kubelet, pod_labels=("app", "team")))
    assert asked_docker
    assert asked_podman
    whole = {
        "container.id": A, "container.runtime.name": "containerd", "container.image.name": "ml/train", "container.image.tags": ("7",),
        "k8s.pod.uid": POD, "k8s.pod.name": "train-0", "k8s.namespace.name": "ml", "k8s.container.name": "main", "k8s.node.name": "n1",
        "k8s.pod.label.app": "train", "k8s.pod.label.team": "x",
    }  # fmt: skip
    assert found == {7: whole, "GPU-1": whole, "GPU-2": {}}


def test_only_files_on_a_node_below_a_root(root: Path) -> None:
    told = {"k8s.pod.name": "from-bundle", "k8s.container.name": "main", "k8s.pod.uid": POD, "container.runtime.name": "containerd"}
    assert points(root, Workloads())[7] == {"container.id": A, **told}
