"""A podman of the tests' own: its images, containers, networks and volumes are in one folder and end with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import types
from pathlib import Path
from typing import Self

_RUNTIME = Path(__file__).with_name("oci_runtime.py")
_CONFIG = """
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[engine.runtimes]
runc = ["{runtime}"]
"""
_SYS_RESOURCE = 24  # CAP_SYS_RESOURCE


def missing() -> str:
    """What a pod cannot run without here; empty if nothing is missing."""
    if os.geteuid() != 0:
        return "root"
    programs = ("podman", "runc", "conmon", "iptables")
    return ", ".join(name for name in programs if shutil.which(name) is None)


class Podman:
    """``podman`` on storage below *folder*. On leaving, everything it started is taken down."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        places = {"--root": "storage", "--runroot": "run", "--tmpdir": "tmp", "--network-config-dir": "networks"}
        for name in places.values():
            (folder / name).mkdir()
        self._command = ["podman", *(f"{option}={folder / name}" for option, name in places.items())]
        self._environment = dict(os.environ)
        if not _may_raise_limits():
            config = folder / "containers.conf"
            runtime = folder / "runc"
            runtime.write_text(_RUNTIME.read_text())
            runtime.chmod(0o755)
            config.write_text(_CONFIG.format(runtime=runtime))
            self._environment["CONTAINERS_CONF"] = str(config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        for command in (("pod", "rm", "--all", "--force"), ("rmi", "--all", "--force"), ("volume", "rm", "--all", "--force")):
            self.run(*command, check=False)
        subprocess.run(["umount", "-l", self._folder / "storage/overlay"], capture_output=True, timeout=30, check=False)

    def run(self, *arguments: str | Path, check: bool = True) -> str:
        """Standard output. Fails the test with podman's own words if *check*."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=self._environment)
        assert done.returncode == 0 or not check, f"podman {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout

    def make_image(self, name: str, tree: Path, user: str, entrypoint: str) -> None:
        """An image of the files below *tree*, under any name: a pod that asks for it pulls nothing."""
        archive = self._folder / "image.tar"
        subprocess.run(["tar", "--directory", tree, "--create", "--file", archive, "."], check=True, timeout=60)
        changes = (f"USER {user}", f'ENTRYPOINT ["{entrypoint}"]', "ENV PATH=/bin")
        self.run("import", "--quiet", *(f"--change={change}" for change in changes), archive, name)
        archive.unlink()


def _may_raise_limits() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _SYS_RESOURCE & 1)
