"""Names from daemons: the container runtime (CRI), the kubelet, podman, docker - servers of the test's own, on real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.enrich.cri import Cri
from otel_hostmetrics.enrich.docker import Docker
from otel_hostmetrics.enrich.kubelet import Kubelet, _Pods
from otel_hostmetrics.enrich.names import Names
from otel_hostmetrics.enrich.pod_resources import PodResources, _devices
from otel_hostmetrics.enrich.podman import Podman
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Workloads
from tests.enrich.servers import grpc_server, local_server, message, tls_server
from tests.export.otlp.certificates import Authority

A, B, C = "a1" * 32, "b2" * 32, "c3" * 32
POD, HASH, MIRROR = "9a1b2c3d-1111-4222-8333-444455556666", "7260904bbd08e72e4dff95d9fccd2ee8", "11111111-2222-4333-8444-555555555555"
NONE: frozenset[str] = frozenset()
RUNTIME = "/runtime.v1.RuntimeService/"
WEB = {"k8s.pod.name": "web-1", "k8s.namespace.name": "default", "k8s.pod.uid": POD}

VERSION = message((1, "0.1.0"), (2, "containerd"), (3, "1.6.20"), (4, "v1"))
SANDBOXES = message(
    (1, message((1, B), (2, message((1, "web-1"), (2, POD), (3, "default"))), (5, {"app": "web", "io.kubernetes.pod.uid": POD}))),
    (1, message((1, C), (2, message((1, "etcd-n1"), (2, HASH), (3, "kube-system"))), (6, {"kubernetes.io/config.hash": HASH}))),
)
CONTAINERS = message(
    (1, message((1, A), (2, B), (3, message((1, "app"))), (4, message((1, "sha256:" + C), (18, "registry/web:1"))))),
)
CRI = {RUNTIME + "Version": VERSION, RUNTIME + "ListPodSandbox": SANDBOXES, RUNTIME + "ListContainers": CONTAINERS}


def refused(find: Callable[[], Names]) -> Unavailable:
    with pytest.raises(Unavailable) as raised:
        find()
    return raised.value


def test_the_runtime_tells_of_containers_sandboxes_and_static_pods(tmp_path: Path) -> None:
    with grpc_server(tmp_path / "cri.sock", CRI) as called:
        lookup = Cri(str(tmp_path / "cri.sock"), ("app",))
        answer = lookup.find(NONE, NONE)
        assert lookup.find(NONE, NONE) == answer
        assert called.count(RUNTIME + "Version") == 1
    pod = {**WEB, "container.runtime.name": "containerd", "k8s.pod.label.app": "web"}
    image = {"container.image.name": "registry/web", "container.image.tags": ("1",)}
    assert answer.containers[A] == {**pod, "k8s.container.name": "app", **image}
    assert answer.containers[B] == answer.pods[POD] == pod
    assert answer.pods[HASH]["k8s.pod.name"] == "etcd-n1"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, Reason.UNSUPPORTED),
        (grpc.StatusCode.PERMISSION_DENIED, Reason.DENIED),
        (grpc.StatusCode.INTERNAL, Reason.UNREADABLE),
    ],
)
def test_a_runtime_that_refuses(tmp_path: Path, status: grpc.StatusCode, reason: Reason) -> None:
    with grpc_server(tmp_path / "cri.sock", {RUNTIME + "Version": (status, "so\nthere")}):
        assert refused(lambda: Cri(str(tmp_path / "cri.sock"), ()).find(NONE, NONE)).reason is reason


def test_a_runtime_that_answers_garbage(tmp_path: Path) -> None:
    with grpc_server(tmp_path / "cri.sock", {**CRI, RUNTIME + "ListContainers": b"\xff\xff"}):
        assert refused(lambda: Cri(str(tmp_path / "cri.sock"), ()).find(NONE, NONE)).reason is Reason.MALFORMED


@pytest.mark.parametrize("make", [lambda path: Cri(path, ()), Podman, Docker, lambda path: PodResources(HostFS(), path)])
def test_no_socket_no_daemon(tmp_path: Path, make) -> None:
    path = str(tmp_path / "not.sock")
    assert refused(lambda: make(path).find(NONE, NONE)).reason is Reason.ABSENT
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    error = refused(lambda: make(path).find(NONE, NONE))
    assert error.reason is Reason.UNREADABLE
    assert path in error.what


PODS = {
    "kind": "PodList",
    "items": [
        {
            "metadata": {"name": "web-1", "namespace": "default", "uid": POD, "labels": {"app": "web", "x": "y"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "app"}]},
            "status": {
                "containerStatuses": [{"name": "app", "image": "web:1", "containerID": f"containerd://{A}"}, {"name": "waiting"}],
                "initContainerStatuses": [{"name": "init", "image": "web:1", "containerID": f"cri-o://{B}"}],
            },
        },
        {"metadata": {"name": "etcd", "namespace": "kube-system", "uid": MIRROR, "annotations": {"kubernetes.io/config.hash": HASH}}},
    ],
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def kubelet(port: int, token: Path, authority: Authority, **more: object) -> Kubelet:
    options: dict[str, object] = {"kubelet_ca": str(authority.ca), "kubelet_token": str(token), "pod_labels": ("app",), **more}
    return Kubelet(Workloads(kubelet=f"https://localhost:{port}", **options))  # type: ignore[arg-type]


def test_the_kubelet_tells_of_pods_and_of_static_ones_by_their_hash(tmp_path: Path, authority: Authority) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    with tls_server(*authority.issue("localhost"), {"/pods": (200, json.dumps(PODS).encode())}) as (port, seen):
        lookup = kubelet(port, token, authority)
        answer = lookup.find(NONE, NONE)
        token.write_text("second")
        lookup.find(NONE, NONE)
    pod = {**WEB, "k8s.node.name": "n1", "k8s.pod.label.app": "web"}
    image = {"container.image.name": "web", "container.image.tags": ("1",)}
    assert answer.containers == {A: {**pod, "k8s.container.name": "app", **image}, B: {**pod, "k8s.container.name": "init", **image}}
    assert answer.pods[POD] == pod
    assert answer.pods[HASH] == answer.pods[MIRROR] == {"k8s.pod.name": "etcd", "k8s.namespace.name": "kube-system", "k8s.pod.uid": MIRROR}
    assert [(path, headers["Authorization"]) for path, headers in seen] == [("/pods", "Bearer first"), ("/pods", "Bearer second")]


@pytest.mark.parametrize(
    ("status", "reason"), [(401, Reason.DENIED), (403, Reason.DENIED), (500, Reason.UNREADABLE), (302, Reason.UNREADABLE)]
)
def test_a_kubelet_that_refuses(tmp_path: Path, authority: Authority, status: int, reason: Reason) -> None:
    (tmp_path / "token").write_text("x")
    with tls_server(*authority.issue("localhost"), {"/pods": (status, b"no")}) as (port, _):
        error = refused(lambda: kubelet(port, tmp_path / "token", authority).find(NONE, NONE))
    assert (error.reason, error.needs) == (reason, "rbac:nodes/pods" if reason is Reason.DENIED else "")


def test_a_kubelets_certificate_is_verified_unless_told_otherwise(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "token").write_text("x")
    with tls_server(*authority.issue("localhost"), {"/pods": (200, b"{}")}) as (port, seen):
        error = refused(lambda: kubelet(port, tmp_path / "token", authority, kubelet_ca="").find(NONE, NONE))
        assert error.reason is Reason.UNREADABLE
        assert "certificate verify failed" in error.detail
        assert seen == []
        assert kubelet(port, tmp_path / "token", authority, kubelet_ca="", kubelet_verify=False).find(NONE, NONE) == Names()


def test_what_is_wrong_on_our_side_is_told(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "token").write_text("two\nlines")
    with tls_server(*authority.issue("localhost"), {"/pods": (200, b'{"items": 3}')}) as (port, _):
        for options, reason in (
            ({"kubelet_token": str(tmp_path / "none")}, Reason.ABSENT),
            ({"kubelet_token": str(tmp_path / "token")}, Reason.MALFORMED),  # would be a header of its own
            ({"kubelet_ca": str(tmp_path / "token")}, Reason.UNREADABLE),
            ({"kubelet_token": ""}, Reason.MALFORMED),  # the answer
        ):
            assert refused(lambda options=options: kubelet(port, tmp_path, authority, **options).find(NONE, NONE)).reason is reason
    assert refused(lambda: Kubelet(Workloads(kubelet="http://localhost:10255")).find(NONE, NONE)).reason is Reason.MALFORMED


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(
    ["items", "metadata", "uid", "name", "labels", "annotations", "status", "containerStatuses", "containerID", "image", "spec"]), x))
)  # fmt: skip
def test_any_json_is_pods_or_refused(document: object) -> None:
    try:
        found = msgspec.json.decode(json.dumps(document), type=_Pods)
    except msgspec.MsgspecError:
        return
    Kubelet(Workloads(pod_labels=("*",)))._names(found.items or [])


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda data: message((1, message((3, message((2, data))))))))
def test_any_bytes_are_devices_or_refused(answer: bytes) -> None:
    with contextlib.suppress(Unavailable):
        assert all(isinstance(device, str) for device, _ in _devices(answer))


def test_podman(tmp_path: Path) -> None:
    listed = [
        {"Id": A, "Names": ["demo", "alias"], "Image": "localhost/bb:latest", "PodName": "pod-a", "Labels": None, "Pid": 5},
        {"Id": B, "Names": None, "Image": "", "PodName": "", "IsInfra": True},
    ]
    with local_server(tmp_path / "p.sock", {"/v4.0.0/libpod/containers/json": (200, json.dumps(listed).encode())}):
        answer = Podman(str(tmp_path / "p.sock")).find(NONE, NONE)
    own = {"container.runtime.name": "podman"}
    image = {"container.image.name": "localhost/bb", "container.image.tags": ("latest",)}
    assert answer.containers == {A: {**own, "container.name": "demo", "k8s.pod.name": "pod-a", **image}, B: own}


def test_docker(tmp_path: Path) -> None:
    labels = {"io.kubernetes.container.name": "app", "io.kubernetes.pod.uid": POD}
    listed = [{"Id": A, "Names": ["/other/link", "/demo"], "Image": "nginx:1", "Labels": labels}]
    with local_server(tmp_path / "d.sock", {"/containers/json": (200, json.dumps(listed).encode())}) as seen:
        answer = Docker(str(tmp_path / "d.sock")).find(NONE, NONE)
        assert seen[0][1]["Host"] == "localhost"
    image = {"container.image.name": "nginx", "container.image.tags": ("1",)}
    told = {"container.name": "demo", "k8s.container.name": "app", "k8s.pod.uid": POD}
    assert answer.containers == {A: {"container.runtime.name": "docker", **told, **image}}


@pytest.mark.parametrize(
    ("body", "status", "reason"), [(b"[", 200, Reason.MALFORMED), (b"{}", 200, Reason.MALFORMED), (b"", 403, Reason.DENIED)]
)
@pytest.mark.parametrize("make", [Podman, Docker])
def test_engines_that_refuse_or_rave(tmp_path: Path, make, body: bytes, status: int, reason: Reason) -> None:
    answers = {"/v4.0.0/libpod/containers/json": (status, body), "/containers/json": (status, body)}
    with local_server(tmp_path / "e.sock", answers):
        assert refused(lambda: make(str(tmp_path / "e.sock")).find(NONE, NONE)).reason is reason


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"nonsense\r\n\r\n"])
def test_an_engine_that_hangs_up(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "e.sock"))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        error = refused(lambda: Docker(str(tmp_path / "e.sock")).find(NONE, NONE))
        thread.join()
    assert error.reason in (Reason.MALFORMED, Reason.UNREADABLE)


def test_devices_that_pods_were_given(tmp_path: Path) -> None:
    """One GPU of its own, one shared by two pods, one by itself twice, and a virtual function of an HCA."""

    def container(name: str, *devices: str) -> bytes:
        return message((1, name), *((2, message((1, "vendor/thing"), (2, device))) for device in devices))

    answer = message(
        (
            1,
            message(
                (1, "train"), (2, "ml"), (3, container("main", "GPU-1", "0000:3b:00.2", "GPU-3::0", "GPU-3::1")), (3, container("side"))
            ),
        ),
        (1, message((1, "a"), (2, "ml"), (3, container("main", "GPU-2::0")))),
        (1, message((1, "b"), (2, "ml"), (3, container("main", "GPU-2::1")))),
    )
    folder = tmp_path / "sys/class/infiniband/mlx5_3"
    folder.mkdir(parents=True)
    (folder / "device").symlink_to("../../../0000:3b:00.2")
    with grpc_server(tmp_path / "pr.sock", {"/v1.PodResourcesLister/List": answer}):
        found = PodResources(HostFS(str(tmp_path)), str(tmp_path / "pr.sock")).find(NONE, NONE).devices
    whose = {"k8s.pod.name": "train", "k8s.namespace.name": "ml", "k8s.container.name": "main"}
    assert found == dict.fromkeys(("GPU-1", "GPU-3", "0000:3b:00.2", "mlx5_3"), whose)


def test_no_descriptor_is_left(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "token").write_text("x")
    with (
        grpc_server(tmp_path / "cri.sock", CRI),
        local_server(tmp_path / "d.sock", {"/containers/json": (200, b"[]")}),
        tls_server(*authority.issue("localhost"), {"/pods": (200, b"{}")}) as (port, _),
    ):
        lookups = [Cri(str(tmp_path / "cri.sock"), ()), Docker(str(tmp_path / "d.sock")), kubelet(port, tmp_path / "token", authority)]
        for lookup in lookups:
            lookup.find(NONE, NONE)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            for lookup in lookups:
                lookup.find(NONE, NONE)
        deadline = time.monotonic() + 5  # gRPC and the servers close in threads of their own
        while len(os.listdir("/proc/self/fd")) > before + 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before + 3
