"""A dockerd of the tests' own, with its containerd: below one folder, in namespaces of processes and mounts that end with it.

It is spoken to by the Engine API, v1.41. It touches no network: no bridge, no rules of iptables.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import types
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from tests.deploy import podman
from tests.process import eventually

_RUNTIME = Path(podman.__file__).with_name("oci_runtime.py")
_PROGRAMS = ("dockerd", "containerd", "containerd-shim-runc-v2", "runc", "unshare")
_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")  # its first process takes all others with it
_OPTIONS = (
    "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs",
    "--exec-opt=native.cgroupdriver=cgroupfs", "--group=root", "--log-level=warn", "--shutdown-timeout=3", "--default-runtime=own",
)  # fmt: skip
_LEFT = (Path("/run/docker/plugins"), Path("/run/docker"))  # made outside of the folder, whatever the options


def missing() -> str:
    """What it cannot run without here; empty if nothing is missing."""
    if os.geteuid() != 0:
        return "root"
    return ", ".join(name for name in _PROGRAMS if shutil.which(name) is None)


class Dockerd:
    """``dockerd`` below *folder*, whose path must be short: it has sockets."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "d.sock"
        self.bundles = folder / "root/containers"
        self._folder = folder
        self._left = [path for path in _LEFT if not path.exists()]
        self._containers: list[str] = []
        shutil.copy(_RUNTIME, folder / "runc")
        (folder / "runc").chmod(0o755)
        (folder / "daemon.json").write_text("{}")
        places = {"data-root": "root", "exec-root": "exec", "pidfile": "pid", "config-file": "daemon.json"}
        options = [*(f"--{option}={folder / name}" for option, name in places.items()), f"--add-runtime=own={folder / 'runc'}"]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [*_ALONE, "dockerd", f"--host=unix://{self.socket}", *options, *_OPTIONS], stdout=self._log, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> Self:
        try:
            eventually(self._answers, 30, "dockerd")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        for container in self._containers:
            with contextlib.suppress(OSError, AssertionError):
                self._ask("DELETE", f"/containers/{container}?force=true")
        first = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="ascii").split()
        self._process.kill()  # and with it, all in its namespaces
        self._process.wait(15)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in first), 15, "the end of dockerd")
        self._log.close()
        groups = [f"*/docker/{each}" for each in self._containers]
        found = [each for pattern in (*groups, "*/docker") for each in Path("/sys/fs/cgroup").glob(pattern)]
        for path in (*found, *self._left):
            with contextlib.suppress(OSError):  # somebody else's, too
                path.rmdir()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError):
            return self._ask("GET", "/_ping") == b"OK"
        return False

    def _ask(self, method: str, target: str, body: Any = None) -> bytes:
        """*body* is a tar file as bytes, or what becomes JSON. Fails the test with the daemon's own words."""
        raw = isinstance(body, bytes)
        connection = HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.closing(connection):
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.socket))
            headers = {"Content-Type": "application/x-tar" if raw else "application/json"}
            connection.request(method, f"/v1.41{target}", body if raw else json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            said = answer.read()
        assert answer.status < 300, f"{method} {target}: {answer.status} {said.decode(errors='replace')}"
        return said

    def load(self, name: str, tag: str, tree: Path) -> None:
        """An image of the files below *tree*."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(tree, arcname=".")
        self._ask("POST", f"/images/create?fromSrc=-&repo={name}&tag={tag}", archive.getvalue())

    def run(self, name: str, image: str, command: Sequence[str]) -> str:
        """Start a container that may load BPF programs, with the host's files below /host. Gives its id."""
        host = {
            "NetworkMode": "none", "Binds": ["/:/host:ro"], "CapAdd": ["SYS_ADMIN"], "SecurityOpt": ["seccomp=unconfined"],
        }  # fmt: skip
        created = self._ask("POST", f"/containers/create?name={name}", {"Image": image, "Entrypoint": [*command], "HostConfig": host})
        identity: str = json.loads(created)["Id"]
        self._containers.append(identity)
        self._ask("POST", f"/containers/{identity}/start")
        return identity

    def logs(self, container: str) -> str:
        """What it has written."""
        return self._ask("GET", f"/containers/{container}/logs?stdout=true&stderr=true").decode(errors="replace")
