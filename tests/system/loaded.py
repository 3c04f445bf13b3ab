"""Processes in containers that load BPF programs, and whose the agent says those programs are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.process import CLEAN, COMMAND, ROOT
from tests.system import processes

LOAD = ("chroot", "/host", "/bin/sh", "-c", f"cd {ROOT} && exec {sys.executable} tests/live/bpfload.py --progs 2 --maps 1 --seconds 600")


class Loaded(NamedTuple):
    """A container and the program that a process in it has loaded."""

    id: str
    program: int


def need(lacking: str) -> None:
    """*lacking*, and what every container of these tests has in it."""
    processes.need(lacking or ("" if shutil.which("busybox") else "busybox"))


def make_tree(tree: Path) -> None:
    """The files of an image in which LOAD can run, with the host's below /host."""
    (tree / "bin").mkdir(parents=True)
    (tree / "host").mkdir()
    shutil.copy(shutil.which("busybox") or "", tree / "bin/busybox")
    for tool in ("sh", "sleep", "chroot"):
        (tree / "bin" / tool).symlink_to("busybox")


def program_in(said: str) -> int | None:
    """The first of those that LOAD says it has loaded."""
    found = re.search(r'"program": \[(\d+)', said)
    return int(found[1]) if found else None


def _once(form: str, arguments: Sequence[str], settings: Mapping[str, str]) -> str:
    variables = {f"OTEL_HOSTMETRICS_WORKLOADS__{name.upper()}": value for name, value in settings.items()}
    command = [*COMMAND, "--once", "--sources", "bpf", "--format", form, *arguments]
    done = subprocess.run(command, env=CLEAN | variables, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def resource_of(program: int, **settings: str) -> dict[str, object]:
    """Attributes of the one OTLP Resource under which all points of a program are, without those of the host."""
    found: list[dict[str, object]] = []
    host: set[str] = set()
    for line in _once("otlp-json", (), settings).splitlines():
        for each in json.loads(line)["resourceMetrics"]:
            attributes = {pair["key"]: _value(pair["value"]) for pair in each["resource"]["attributes"]}
            assert attributes["host.name"]
            points = [
                point
                for metric in each["scopeMetrics"][0]["metrics"]
                for point in (metric.get("gauge") or metric.get("sum") or {}).get("dataPoints", ())
            ]
            if any({"key": "bpf.program.id", "value": {"intValue": str(program)}} in point.get("attributes", ()) for point in points):
                found.append(attributes)
            if not any(key.startswith(("container.", "k8s.")) for key in attributes):
                host = set(attributes)
    (only,) = found
    return {key: value for key, value in only.items() if key not in host}


def _value(value: dict[str, object]) -> object:
    if "arrayValue" in value:
        return [each["stringValue"] for each in value["arrayValue"]["values"]]  # type: ignore[index]
    return value.get("stringValue")


def page(arguments: Sequence[str] = (), **settings: str) -> str:
    """What Prometheus would be given, with these settings of ``workloads``."""
    return _once("text", arguments, settings)


def labels_of(program: int, arguments: Sequence[str] = (), **settings: str) -> dict[str, str]:
    """Of the program's bpf_program_info."""
    line = next(
        line for line in page(arguments, **settings).splitlines() if line.startswith("bpf_program_info{") and f',id="{program}"' in line
    )
    return dict(re.findall(r'(\w+)="([^"]*)"', line))
