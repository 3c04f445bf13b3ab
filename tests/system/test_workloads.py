"""Processes in real containers - podman's, and a pod of containerd's - load BPF programs: whose are the exported points?"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import podman
from tests.export.otlp.collector import running
from tests.process import CLEAN, COMMAND, ROOT, eventually
from tests.system import containerd
from tests.system.loaded import LOAD, Loaded, labels_of, make_tree, need, program_in, resource_of

pytestmark = [pytest.mark.system, pytest.mark.live]

_IMAGE = "localhost/bb:1.2"
_UID = "9a1b2c3d-1111-4222-8333-444455556666"
_OTHER = "0b0b0b0b-1111-4222-8333-444455556666"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path: sockets are below it."""
    with tempfile.TemporaryDirectory(prefix="w", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[podman.Podman]:
    need(podman.missing())
    (folder / "podman").mkdir()
    with podman.Podman(folder / "podman") as found:
        tree = folder / "tree"
        make_tree(tree)
        (tree / "bin/pause").write_text("#!/bin/sh\nexec sleep 100000\n")
        (tree / "bin/pause").chmod(0o755)
        for name in (_IMAGE, containerd.PAUSE):
            found.make_image(name, tree, "0", "/bin/pause")
        yield found


@pytest.fixture(scope="module")
def container(engine: podman.Podman) -> Iterator[Loaded]:
    """podman's, with a name."""
    rights = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--network", "none", "--volume", "/:/host:ro")
    identity = engine.run("run", "--detach", "--name", "demo", *rights, "--entrypoint", "/bin/chroot", _IMAGE, *LOAD[1:]).strip()
    yield Loaded(identity, eventually(lambda: program_in(engine.run("logs", "demo")), 30, "a program"))
    engine.run("rm", "--force", "--time", "0", "demo")


@pytest.fixture(scope="module")
def runtime(engine: podman.Podman, folder: Path) -> Iterator[containerd.Containerd]:
    need(containerd.missing())
    (folder / "ctd").mkdir()
    with containerd.Containerd(folder / "ctd") as found:
        for index, name in enumerate((_IMAGE, containerd.PAUSE)):
            engine.run("save", "--quiet", "--output", folder / f"{index}.tar", name)
            found.load(folder / f"{index}.tar")
        yield found


@pytest.fixture(scope="module")
def pod(runtime: containerd.Containerd) -> dict[str, Loaded]:
    """Of two containers, in each of which a process loads programs."""
    ids = runtime.pod("default", "web-1", _UID, {"app": (_IMAGE, LOAD), "side": (_IMAGE, LOAD)}, app="web", secret="x")
    runtime.pod("default", "other", _OTHER, {"app": (_IMAGE, ("/bin/sleep", "600"))})
    said = {
        name: eventually(
            lambda name=name: program_in(runtime.log("default", "web-1", _UID, name)), 30, runtime.log("default", "web-1", _UID, name)
        )  # type: ignore[misc]
        for name in ("app", "side")
    }
    return {name: Loaded(ids[name], program) for name, program in said.items()}


def test_podman_by_its_files(engine: podman.Podman, container: Loaded, folder: Path) -> None:
    files = {"bundles": f"{folder}/podman/storage/overlay-containers", "pod_logs": ""}
    named = {"container.id": container.id, "container.runtime.name": "podman", "container.name": "demo"}
    image = {"container.image.name": "localhost/bb", "container.image.tags": ["1.2"]}
    assert resource_of(container.program, **files) == {**named, **image}
    labels = labels_of(container.program, **files)
    assert (labels["container_id"], labels["container_name"]) == (container.id, "demo")
    assert "container_runtime_name" not in labels


def test_podman_by_its_service(engine: podman.Podman, container: Loaded, folder: Path) -> None:
    socket = folder / "podman.sock"
    command = [*engine._command, "system", "service", "--time", "0", f"unix://{socket}"]
    with subprocess.Popen(command, env=engine._environment) as service:
        eventually(socket.exists, 20)
        found = resource_of(container.program, bundles="", pod_logs="", podman=str(socket))
        service.terminate()
    assert found["container.name"] == "demo"
    assert found["container.image.name"] == "localhost/bb"


def test_without_any_source_of_names_there_are_ids(container: Loaded, pod: dict[str, Loaded]) -> None:
    none = {"bundles": "", "pod_logs": ""}
    assert resource_of(container.program, **none) == {"container.id": container.id, "container.runtime.name": "podman"}
    for each in pod.values():
        assert resource_of(each.program, **none) == {"container.id": each.id, "k8s.pod.uid": _UID}


@pytest.mark.parametrize("way", ["bundles", "cri"])
def test_a_pod_of_two_containers(runtime: containerd.Containerd, pod: dict[str, Loaded], way: str) -> None:
    """By the runtime's files, and by its socket."""
    settings = {"bundles": "", "pod_logs": "", "pod_labels": "app"}
    settings[way] = f"{runtime.state}/io.containerd.runtime.v2.task/*" if way == "bundles" else str(runtime.socket)
    of_pod = {"k8s.pod.uid": _UID, "k8s.pod.name": "web-1", "k8s.namespace.name": "default", "container.runtime.name": "containerd"}
    if way == "cri":
        of_pod["k8s.pod.label.app"] = "web"
    image = {"container.image.name": "localhost/bb", "container.image.tags": ["1.2"]}
    for name, each in pod.items():
        assert resource_of(each.program, **settings) == {**of_pod, "k8s.container.name": name, "container.id": each.id, **image}
        labels = labels_of(each.program, **settings)
        told = {"k8s_pod_name": "web-1", "k8s_namespace_name": "default", "k8s_container_name": name, "container_id": each.id}
        assert told.items() <= labels.items()
        assert ("k8s_pod_label_app" in labels) == (way == "cri")


def test_a_pod_by_the_names_of_its_logs(runtime: containerd.Containerd, pod: dict[str, Loaded]) -> None:
    """As the kubelet has them, without any right to the runtime."""
    found = resource_of(pod["app"].program, bundles="", pod_logs=str(runtime.logs))
    assert found == {"container.id": pod["app"].id, "k8s.pod.uid": _UID, "k8s.pod.name": "web-1", "k8s.namespace.name": "default"}


def test_a_collector_receives_one_resource_for_each_container(container: Loaded, pod: dict[str, Loaded]) -> None:
    """Over gRPC, from the agent as a process of its own."""
    with running() as collector:
        command = [*COMMAND, "--once", "--sources", "bpf", "--otlp-grpc", f"127.0.0.1:{collector.port}"]
        environment = CLEAN | {"OTEL_HOSTMETRICS_WORKLOADS__BUNDLES": ""}
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=60)
        received = [each for request in collector.accepted for each in request.resource_metrics]
    ids = [pair.value.string_value for each in received for pair in each.resource.attributes if pair.key == "container.id"]
    assert {container.id, *(each.id for each in pod.values())} <= set(ids)
    assert len(ids) == len(set(ids))
    for each in received:
        assert {"host.name", "service.name"} <= {pair.key for pair in each.resource.attributes}
