"""A containerd of the tests' own: root, state and socket are in one folder, and everything it started ends with it.

It is spoken to by CRI v1 (kubernetes/cri-api pkg/apis/runtime/v1/api.proto), as a kubelet would; its messages are put together
from field numbers.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from otel_hostmetrics.enrich.unary import call
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.protobuf import messages, text
from tests.deploy import podman
from tests.enrich.servers import message

PAUSE = "localhost/pause:3.9"
_RUNTIME = Path(podman.__file__).with_name("oci_runtime.py")
_CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{folder}/runc"
        SystemdCgroup = false
"""
_SERVICE = "/runtime.v1.RuntimeService/"
_NODE = b"\x08\x02"  # NamespaceOption: network 1 = NODE 2, which takes no CNI


def missing() -> str:
    """What a pod cannot run without here; empty if nothing is missing."""
    return ", ".join(filter(None, (podman.missing(), *(name for name in ("containerd", "ctr") if shutil.which(name) is None))))


class Containerd:
    """``containerd`` below *folder*, whose path must be short: it has a socket."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "containerd.sock"
        self.state = folder / "state"
        self.logs = folder / "log"
        self._folder = folder
        runtime = folder / "runc"
        shutil.copy(_RUNTIME, runtime)
        runtime.chmod(0o755)
        (folder / "config.toml").write_text(_CONFIG.format(folder=folder, pause=PAUSE))
        self._log = (folder / "containerd.log").open("wb")
        command = ["containerd", "--config", folder / "config.toml", "--log-level", "warn"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._sandboxes: list[str] = []
        self._cgroups: list[str] = []

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self._process.poll() is None, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        for sandbox in self._sandboxes:
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                with contextlib.suppress(Unavailable):
                    self._call(method, message((1, sandbox)))
        self._process.terminate()
        self._process.wait(15)
        self._log.close()
        for cgroup in self._cgroups:  # of pods; the runtime leaves them to the kubelet
            for place in Path("/sys/fs/cgroup").glob(f"*/{cgroup}"):
                for each in (place, *place.parents[:2]):
                    with contextlib.suppress(OSError):  # in use
                        each.rmdir()

    def _answers(self) -> bool:
        try:
            return bool(call(str(self.socket), _SERVICE + "Version"))
        except Unavailable:
            return False

    def _said(self) -> str:
        return (self._folder / "containerd.log").read_text(errors="replace")[-2000:]

    def _call(self, method: str, request: bytes) -> bytes:
        return call(str(self.socket), _SERVICE + method, request, timeout=60)

    def load(self, archive: Path) -> None:
        """Take over the images of a ``docker-archive``."""
        command = ["ctr", "--address", self.socket, "--namespace", "k8s.io", "images", "import", archive]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr

    def pod(
        self, namespace: str, name: str, uid: str, containers: Mapping[str, tuple[str, Sequence[str]]], **labels: str
    ) -> dict[str, str]:
        """Run a pod of *containers*: name -> (image, command). Gives their ids, the sandbox's under ""."""
        own = {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.uid": uid}
        security = message((1, _NODE)) + _true(6)
        self._cgroups.append(f"kubepods/besteffort/pod{uid}")
        sandbox = message(
            (1, message((1, name), (2, uid), (3, namespace))),
            (3, f"{self.logs}/pods/{namespace}_{name}_{uid}"),
            (6, {**own, **labels}),
            (8, message((1, f"/{self._cgroups[-1]}"), (2, security))),
        )
        identity = text(self._call("RunPodSandbox", message((1, sandbox))), 1)
        self._sandboxes.append(identity)
        ids = {"": identity}
        for each, (image, command) in containers.items():
            ids[each] = self._container(identity, sandbox, each, image, command, own)
        return ids

    def _container(self, sandbox: str, config: bytes, name: str, image: str, command: Sequence[str], labels: Mapping[str, str]) -> str:
        """Privileged, with the host's files below /host: it is to load BPF programs by the tests' own program."""
        own = message(
            (1, message((1, name))),
            (2, message((1, image))),
            *((3, word) for word in command),
            (7, message((1, "/host"), (2, "/")) + _true(3)),
            (9, {**labels, "io.kubernetes.container.name": name}),
            (11, f"{name}/0.log"),
            (15, message((2, _true(2) + message((3, _NODE))))),
        )
        identity = text(self._call("CreateContainer", message((1, sandbox), (2, own), (3, config))), 1)
        self._call("StartContainer", message((1, identity)))
        return identity

    def log(self, namespace: str, name: str, uid: str, container: str) -> str:
        """What a container has written."""
        path = self.logs / "pods" / f"{namespace}_{name}_{uid}" / container / "0.log"
        return path.read_text() if path.exists() else ""

    def containers(self) -> list[str]:
        """Ids of all there are."""
        return [text(each, 1) for each in messages(self._call("ListContainers", b""), 1)]


def _true(field: int) -> bytes:
    return bytes((field << 3, 1))
