"""Names from the files of runtimes and of the kubelet, in trees of the test's making."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.enrich import bundles, names
from otel_hostmetrics.enrich.bundles import Bundles
from otel_hostmetrics.enrich.pod_logs import PodLogs
from otel_hostmetrics.errors import Reason
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Workloads
from tests.kernel.as_nobody import as_nobody

A, B, C, D = ("a1" * 32, "b2" * 32, "c3" * 32, "d4" * 32)
POD, HASH = "9a1b2c3d-1111-4222-8333-444455556666", "7260904bbd08e72e4dff95d9fccd2ee8"
CONTAINERD = "run/containerd/io.containerd.runtime.v2.task"
STORAGE = "var/lib/containers/storage/overlay-containers"
NONE: frozenset[str] = frozenset()


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def found(root: Path, *ids: str) -> dict[str, dict[str, object]]:
    answer = Bundles(HostFS(str(root)), Workloads().bundles).find(frozenset(ids), NONE)
    return {each: dict(attributes) for each, attributes in answer.containers.items()}


def cri(name: str = "app", kind: str = "container") -> dict[str, object]:
    told = {"container-type": kind, "sandbox-name": "web-1", "sandbox-namespace": "default", "sandbox-uid": POD, "sandbox-id": B}
    if kind == "container":
        told |= {"container-name": name, "image-name": "registry.example:5000/web/app:1.2@sha256:" + A}
    return {
        "ociVersion": "1.0.2",
        "annotations": {f"io.kubernetes.cri.{key}": value for key, value in told.items()},
        "process": {"args": ["x"]},
    }


def test_containerd_tells_container_pod_and_image(tmp_path: Path) -> None:
    write(tmp_path / CONTAINERD / "k8s.io" / A / "config.json", cri())
    write(tmp_path / CONTAINERD / "k8s.io" / B / "config.json", cri(kind="sandbox"))
    pod = {"container.runtime.name": "containerd", "k8s.pod.name": "web-1", "k8s.namespace.name": "default", "k8s.pod.uid": POD}
    image = {"container.image.name": "registry.example:5000/web/app", "container.image.tags": ("1.2",)}
    assert found(tmp_path, A, B, C) == {A: {**pod, "k8s.container.name": "app", **image}, B: pod}
    answer = Bundles(HostFS(str(tmp_path)), Workloads().bundles).find(frozenset({A}), NONE)
    assert answer.pods == {POD: {"k8s.pod.uid": POD, "k8s.pod.name": "web-1", "k8s.namespace.name": "default"}}


def test_cri_o(tmp_path: Path) -> None:
    own = {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "default", "io.kubernetes.pod.uid": POD}
    crio = {"io.container.manager": "cri-o", "io.kubernetes.cri-o.ImageName": "quay.io/web/app:v2"}
    container = {**own, **crio, "io.kubernetes.container.name": "app", "io.kubernetes.cri-o.ContainerType": "container"}
    sandbox = {
        **own,
        "io.container.manager": "cri-o",
        "io.kubernetes.container.name": "POD",
        "io.kubernetes.cri-o.ContainerType": "sandbox",
    }
    write(tmp_path / STORAGE / A / "userdata/config.json", {"annotations": container})
    write(tmp_path / STORAGE / B / "userdata/config.json", {"annotations": sandbox})
    pod = {"container.runtime.name": "cri-o", "k8s.pod.name": "web-1", "k8s.namespace.name": "default", "k8s.pod.uid": POD}
    image = {"container.image.name": "quay.io/web/app", "container.image.tags": ("v2",)}
    assert found(tmp_path, A, B) == {A: {**pod, "k8s.container.name": "app", **image}, B: pod}


def test_podman_has_its_names_in_a_list_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / STORAGE / A / "userdata/config.json", {"annotations": {"io.container.manager": "libpod"}})
    metadata = json.dumps({"image-name": "localhost/bb:latest", "image-id": B})
    write(tmp_path / STORAGE / "containers.json", [{"id": A, "names": ["demo", "x"], "metadata": metadata}, {"id": B}])
    image = {"container.image.name": "localhost/bb", "container.image.tags": ("latest",)}
    assert found(tmp_path, A) == {A: {"container.runtime.name": "podman", "container.name": "demo", **image}}


def test_docker_and_not_what_containerd_knows_of_it(tmp_path: Path) -> None:
    write(tmp_path / CONTAINERD / "moby" / A / "config.json", {"annotations": None})
    labels = {"io.kubernetes.container.name": "POD", "io.kubernetes.pod.name": "web-1", "other": "x"}
    write(tmp_path / "var/lib/docker/containers" / A / "config.v2.json", {"Name": "/demo", "Config": {"Image": "nginx", "Labels": labels}})
    told = {"container.name": "demo", "k8s.pod.name": "web-1", "container.image.name": "nginx"}
    assert found(tmp_path, A) == {A: {"container.runtime.name": "docker", **told}}


def test_what_is_known_is_not_read_again_and_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    file = tmp_path / CONTAINERD / "k8s.io" / A / "config.json"
    write(file, cri())
    lookup = Bundles(HostFS(str(tmp_path)), Workloads().bundles)
    first = lookup.find(frozenset({A}), NONE).containers
    write(file, cri("another"))
    assert lookup.find(frozenset({A, B}), NONE).containers == first
    file.unlink()
    assert lookup.find(frozenset({A}), NONE).containers == first
    assert lookup.find(NONE, NONE).containers == {}
    assert lookup.find(frozenset({A}), NONE).containers == {}


def test_a_broken_bundle_costs_no_other_container_its_names(tmp_path: Path) -> None:
    write(tmp_path / CONTAINERD / "k8s.io" / A / "config.json", cri())
    write(tmp_path / CONTAINERD / "k8s.io" / B / "config.json", '{"annotations": 5}')
    answer = Bundles(HostFS(str(tmp_path)), Workloads().bundles).find(frozenset({A, B}), NONE)
    assert answer.containers.keys() == {A}
    assert answer.problem
    assert answer.problem.reason is Reason.MALFORMED
    assert answer.problem.what.endswith(f"{B}/config.json")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_a_bundle_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    write(tmp_path / CONTAINERD / "k8s.io" / A / "config.json", cri())
    (tmp_path / CONTAINERD / "k8s.io" / A).chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(0o755)

    def ask() -> str:
        problem = Bundles(HostFS(str(tmp_path)), Workloads().bundles).find(frozenset({A}), NONE).problem
        return f"{problem.reason.name} {problem.needs}" if problem else "none"

    assert as_nobody(ask).startswith("DENIED /")


@pytest.mark.parametrize("decode", [bundles._containerd, bundles._storage, bundles._docker])
@given(content=st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.sampled_from(
    ["annotations", "Name", "Config", "Labels", "Image", "io.kubernetes.cri.sandbox-name"]), x)).map(json.dumps)
)  # fmt: skip
def test_any_file_is_decoded_or_refused(decode, content: str) -> None:
    try:
        attributes = decode(content)
    except bundles.msgspec.MsgspecError:
        return
    assert all(isinstance(value, (str, tuple)) for value in attributes.values())


def test_pod_logs_name_pods_of_every_kind(tmp_path: Path) -> None:
    logs = tmp_path / "var/log"
    (logs / "pods" / f"default_web-1_{POD}" / "app").mkdir(parents=True)
    (logs / "pods" / f"kube-system_etcd-node-1_{HASH}").mkdir()
    (logs / "pods" / "something-else").mkdir()
    (logs / "containers").mkdir()
    (logs / "containers" / f"web-1_default_app-{A}.log").symlink_to("/nowhere")
    (logs / "containers" / f"other_default_app-{B}.log").symlink_to("/nowhere")
    lookup = PodLogs(HostFS(str(tmp_path)), "/var/log")
    answer = lookup.find(frozenset({A}), frozenset({POD, HASH}))
    assert answer.containers == {A: {"k8s.namespace.name": "default", "k8s.pod.name": "web-1", "k8s.container.name": "app"}}
    assert answer.pods == {
        POD: {"k8s.namespace.name": "default", "k8s.pod.name": "web-1", "k8s.pod.uid": POD},
        HASH: {"k8s.namespace.name": "kube-system", "k8s.pod.name": "etcd-node-1", "k8s.pod.uid": HASH},
    }
    assert lookup.find(frozenset({A}), frozenset({POD})) is answer
    assert lookup.find(frozenset({A}), frozenset({D})).pods == {}


def test_without_a_kubelet_there_are_no_pod_logs(tmp_path: Path) -> None:
    assert PodLogs(HostFS(str(tmp_path)), "/var/log").find(frozenset({A}), frozenset({POD})) == names.Names()


@pytest.mark.parametrize(
    ("reference", "wanted"),
    [
        ("nginx", {"container.image.name": "nginx"}),
        ("nginx:1.27", {"container.image.name": "nginx", "container.image.tags": ("1.27",)}),
        ("host:5000/a/b", {"container.image.name": "host:5000/a/b"}),
        ("host:5000/a/b:t@sha256:" + A, {"container.image.name": "host:5000/a/b", "container.image.tags": ("t",)}),
        ("sha256:" + A, {}),
        (A, {}),
        ("", {}),
    ],
)
def test_images(reference: str, wanted: dict[str, object]) -> None:
    assert names.image(reference) == wanted


def test_labels_of_pods_are_taken_by_pattern_and_bounded() -> None:
    labels = {"app": "web", "app.kubernetes.io/name": "x", "secret": "y", **{f"many-{index}": "z" for index in range(100)}}
    assert names.pod_labels(labels, ()) == {}
    assert names.pod_labels(labels, ("app", "app.*")) == {"k8s.pod.label.app": "web", "k8s.pod.label.app.kubernetes.io/name": "x"}
    assert len(names.pod_labels(labels, ("*",))) == 32


def test_podman_s_list_of_many_containers(tmp_path: Path) -> None:
    write(tmp_path / STORAGE / A / "userdata/config.json", {"annotations": {"io.container.manager": "libpod"}})
    others = [{"id": f"{number:064x}", "names": ["x" * 600]} for number in range(2000)]
    write(tmp_path / STORAGE / "containers.json", [*others, {"id": A, "names": ["demo"]}])
    assert found(tmp_path, A)[A]["container.name"] == "demo"


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / CONTAINERD / "k8s.io" / A
    directory.mkdir(parents=True)
    os.mkfifo(directory / "config.json")
    assert found(tmp_path, A) == {}


def test_a_directory_that_is_on_another_disk_of_the_host(tmp_path: Path) -> None:
    """A symbolic link of the host is followed below our root, not below ours."""
    write(tmp_path / "data/docker/containers" / A / "config.v2.json", {"Name": "/demo"})
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/docker").symlink_to("/mnt/../data/docker")
    assert found(tmp_path, A)[A]["container.name"] == "demo"
