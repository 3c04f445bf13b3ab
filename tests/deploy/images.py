"""Images for metrics-stack.yaml on machines without a registry, with real programs in them where Debian or PyPI has one.

Prometheus is Debian's 2.42: a wrapper takes out what only version 3 knows. The collector is rotel, an OTLP receiver. Grafana's
place is taken by a web server that shows, as Grafana's user, the files that Grafana would read. The agent's image has this
interpreter and this environment, at the paths they have here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import otel_hostmetrics

_PROMETHEUS = """#!/bin/sh
config=$(echo "$@" | sed 's/.*--config.file=\\([^ ]*\\).*/\\1/')
awk '/^otlp:/ {skip=1; next} /^[^ #]/ {skip=0} !skip' "$config" > /prometheus/version-2.yml || exit 1
for argument; do
  shift
  case "$argument" in
    --config.file=*) set -- "$@" --config.file=/prometheus/version-2.yml ;;
    --web.enable-otlp-receiver) ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec /bin/prometheus-2 "$@"
"""
_COLLECTOR = """#!/bin/sh
test -s "${1#--config=}" || exit 1
exec /bin/rotel-agent start --otlp-grpc-endpoint 0.0.0.0:4317 --otlp-http-endpoint 127.0.0.1:4318 --exporter blackhole --debug-log metrics
"""
_GRAFANA = """#!/bin/sh
exec httpd -f -p 3000 -h /
"""
_AGENT = """#!/bin/sh
export PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1
exec {python} -P -m otel_hostmetrics "$@"
"""
_NO_PART_OF_IT = ("test", "tests", "idlelib", "ensurepip", "config-*", "site-packages", "dist-packages", "__pycache__", "*.a")
_TOOLS = ("sh", "awk", "sed", "test", "httpd", "cat")


def missing() -> str:
    """Programs the images need and this machine lacks; empty if none."""
    names = {"prometheus": shutil.which("prometheus"), "busybox": shutil.which("busybox"), "rotel": _rotel()}
    return ", ".join(name for name, path in names.items() if path is None)


def prometheus(tree: Path) -> None:
    """The tree of an image with Prometheus."""
    _base(tree, "prometheus", _PROMETHEUS)
    (tree / "prometheus").mkdir()
    (tree / "prometheus").chmod(0o777)
    _program(tree, Path(shutil.which("prometheus") or ""), "prometheus-2")


def collector(tree: Path) -> None:
    """The tree of an image with an OTLP receiver."""
    _base(tree, "collector", _COLLECTOR)
    _program(tree, Path(_rotel() or ""), "rotel-agent")


def grafana(tree: Path) -> None:
    """The tree of an image that shows its files on port 3000."""
    _base(tree, "grafana", _GRAFANA)


def agent(tree: Path) -> None:
    """The tree of an image with the agent, its interpreter and the distributions it requires."""
    python = Path(sys.executable).resolve()
    packages = Path(sysconfig.get_path("purelib"))
    _base(tree, "agent", _AGENT.format(path=packages, python=python))
    _folder(tree, Path(os.__file__).parent)
    (tree / str(python).lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(python, tree / str(python).lstrip("/"))
    for name in _required("otel-hostmetrics"):
        for file in metadata.distribution(name).files or ():
            if file.parts[0] not in ("..", "__pycache__") and file.suffix != ".pyc":
                target = tree / str(packages).lstrip("/") / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    shutil.copytree(Path(otel_hostmetrics.__file__).parent, tree / str(packages).lstrip("/") / "otel_hostmetrics", dirs_exist_ok=True)
    _libraries(tree, [python, *tree.rglob("*.so")])


def _required(name: str, found: frozenset[str] = frozenset()) -> frozenset[str]:
    """The distributions that *name* requires here, without its extras, and those they require."""
    for requirement in metadata.requires(name) or ():
        other = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()
        if "extra ==" not in requirement and other not in found:
            try:
                found = _required(other, found | {other})
            except metadata.PackageNotFoundError:  # for another platform or Python
                found -= {other}
    return found


def _base(tree: Path, name: str, script: str) -> None:
    for folder in ("bin", "etc", "tmp", "dev", "proc", "sys", "run"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "tmp").chmod(0o1777)
    shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
    for tool in _TOOLS:
        (tree / "bin" / tool).symlink_to("busybox")
    (tree / "bin" / name).write_text(script)
    (tree / "bin" / name).chmod(0o755)
    (tree / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")


def _program(tree: Path, program: Path, name: str) -> None:
    shutil.copy(program, tree / "bin" / name)
    _libraries(tree, [program])


def _folder(tree: Path, folder: Path) -> None:
    shutil.copytree(folder, tree / str(folder).lstrip("/"), ignore=shutil.ignore_patterns(*_NO_PART_OF_IT), symlinks=True)


def _libraries(tree: Path, programs: Iterable[Path]) -> None:
    """Copy the libraries of programs, which ldd(1) lists with their paths."""
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, timeout=60, check=False).stdout
    for library in set(re.findall(r"(/\S+) \(0x", listed)):
        target = tree / library.lstrip("/")
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def _rotel() -> str | None:
    path = Path(sysconfig.get_path("purelib"), "rotel", "rotel-agent")
    return str(path) if path.exists() else None
