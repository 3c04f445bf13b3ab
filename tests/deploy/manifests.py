"""What the tests read out of Kubernetes manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from otel_hostmetrics.config.resolve import resolve
from otel_hostmetrics.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
STACK = ROOT / "metrics-stack.yaml"
POD = ROOT / "deploy/podman/agent.yaml"
DAEMONSET = ROOT / "deploy/kubernetes/daemonset.yaml"
KUBELET = ROOT / "deploy/kubernetes/kubelet.yaml"
SIDECAR = ROOT / "deploy/sidecar/collector.yaml"

# What the BPF source names as needs of one or the other of its parts (kernel/bpf_*.py), and nothing else.
CAPABILITIES = {"BPF", "PERFMON", "SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"}


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def pod_spec(path: Path) -> dict[str, Any]:
    """Of the one Pod, or of the one template of pods."""
    (document,) = (each for each in documents(path) if each["kind"] in ("Pod", "DaemonSet"))
    spec: dict[str, Any] = document["spec"]
    return spec["template"]["spec"] if document["kind"] == "DaemonSet" else spec


def containers(path: Path) -> dict[str, dict[str, Any]]:
    """By name."""
    return {container["name"]: container for container in pod_spec(path)["containers"]}


def config_maps(path: Path) -> dict[str, dict[str, str]]:
    """Files by ConfigMap. Each name is there once."""
    found = [(each["metadata"]["name"], each["data"]) for each in documents(path) if each["kind"] == "ConfigMap"]
    maps = dict(found)
    assert len(maps) == len(found)
    return maps


def mounted_files(path: Path) -> dict[str, str]:
    """Content of each ConfigMap's file by the path under which a container sees it."""
    maps = config_maps(path)
    volumes = {volume["name"]: volume for volume in pod_spec(path)["volumes"]}
    return {
        f"{mount['mountPath']}/{key}": text
        for container in containers(path).values()
        for mount in container.get("volumeMounts", [])
        if "configMap" in volumes[mount["name"]]
        for key, text in maps[volumes[mount["name"]]["configMap"]["name"]].items()
    }


def collector_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every configuration of an OpenTelemetry Collector that we ship."""
    for path in (STACK, POD):
        yield path.name, yaml.safe_load(mounted_files(path)["/etc/otelcol/collector.yaml"])
    yield SIDECAR.name, yaml.safe_load(SIDECAR.read_text())


def settings(environment: Mapping[str, str]) -> Settings:
    """What the agent makes of its environment. Raises ConfigError for a variable that is none of its own."""
    return resolve({}, environment, None, lambda: ()).settings
