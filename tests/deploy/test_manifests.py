"""Manifests for podman and Kubernetes: rights, images, ports, volumes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from otel_hostmetrics import __version__
from otel_hostmetrics.config.environment import PREFIX
from otel_hostmetrics.export.otlp import channel
from otel_hostmetrics.export.prometheus.address import parse_listen
from otel_hostmetrics.kernel import bpf_cgroups, bpf_holders, bpf_ids, bpf_iter
from tests.deploy.manifests import (
    CAPABILITIES,
    DAEMONSET,
    KUBELET,
    POD,
    ROOT,
    STACK,
    containers,
    documents,
    mounted_files,
    pod_spec,
    settings,
)

_ALL = pytest.mark.parametrize("path", [STACK, POD, DAEMONSET], ids=lambda path: path.name)
_AGENTS = pytest.mark.parametrize("path", [POD, DAEMONSET], ids=lambda path: path.name)


def _everything(value: Any) -> list[tuple[str, Any]]:
    """Each key with its value, at any depth."""
    if isinstance(value, list):
        return [pair for each in value for pair in _everything(each)]
    if isinstance(value, dict):
        return [pair for key, each in value.items() for pair in ((key, each), *_everything(each))]
    return []


@_ALL
def test_images_are_pinned_to_a_version(path: Path) -> None:
    for container in containers(path).values():
        assert re.search(r":v?\d+\.\d+\.\d+$", container["image"]), container["image"]


@_AGENTS
def test_the_agents_image_is_this_version(path: Path) -> None:
    assert containers(path)["agent"]["image"].endswith(f"otel-hostmetrics:{__version__}")


@_ALL
def test_nothing_is_privileged_or_can_become_so(path: Path) -> None:
    keys = _everything(documents(path))
    assert not [value for key, value in keys if key in ("privileged", "hostNetwork", "hostIPC") and value]
    for name, container in containers(path).items():
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"]["drop"] == ["ALL"], name
        assert name == "agent" or "add" not in context["capabilities"], name


def test_the_capabilities_are_those_the_source_asks_for() -> None:
    """Each part of the BPF source names what would cure a DENIED; the manifests give all of it."""
    needs = "|".join((bpf_iter.NEEDS, bpf_ids._NEEDS, bpf_holders._NEEDS, bpf_cgroups._NEEDS.partition("|")[0]))
    assert {name.removeprefix("CAP_") for name in re.split(r"[|+]", needs)} == CAPABILITIES


@_AGENTS
def test_the_agent_has_exactly_the_capabilities_it_needs(path: Path) -> None:
    context = containers(path)["agent"]["securityContext"]
    assert set(context["capabilities"]["add"]) == CAPABILITIES
    assert context["runAsUser"] == 0, "for any other user they would not be effective"
    assert context["readOnlyRootFilesystem"] is True
    assert pod_spec(path)["hostPID"] is True, "holders are processes of the host"


@_AGENTS
def test_the_host_is_mounted_read_only_where_the_agent_looks_for_it(path: Path) -> None:
    volumes = {volume["name"]: volume for volume in pod_spec(path)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in containers(path)["agent"]["volumeMounts"]}
    assert all(mount["readOnly"] for mount in mounts.values())
    for place, mount in mounts.items():
        assert place == f"/host{volumes[mount['name']]['hostPath']['path']}"
    assert {"/host/proc", "/host/sys", "/host/etc/machine-id"} <= mounts.keys()


@_AGENTS
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_the_agents_environment_is_a_configuration_it_accepts(path: Path, address: str, tmp_path: Path) -> None:
    """Every variable is a key; what the cluster fills in is filled in here, and /host is a folder of the test."""
    environment = {each["name"]: each.get("value", address) for each in containers(path)["agent"]["env"]}
    filled = {name: re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], value) for name, value in environment.items()}
    assert [name for name in filled if name.startswith(PREFIX)]
    assert filled[f"{PREFIX}PATH__ROOT"] == "/host"
    accepted = settings(filled | {f"{PREFIX}PATH__ROOT": str(tmp_path)})
    assert channel.target(accepted.otlp).name.endswith(":4317")
    assert parse_listen(accepted.prometheus.listen)[1] == 9464


@_ALL
def test_every_volume_mounted_is_one_of_the_pod_and_the_other_way_round(path: Path) -> None:
    volumes = {volume["name"] for volume in pod_spec(path)["volumes"]}
    assert {mount["name"] for container in containers(path).values() for mount in container.get("volumeMounts", [])} == volumes
    assert "subPath" not in dict(_everything(documents(path))), "needs podman 4.4"


@_ALL
def test_configuration_files_named_in_arguments_are_mounted(path: Path) -> None:
    files = mounted_files(path)
    for container in containers(path).values():
        for argument in container.get("args", []):
            name, _, value = argument.partition("=")
            assert not name.startswith("--config") or value in files, argument


@pytest.mark.parametrize("path", [STACK, POD], ids=lambda path: path.name)
def test_podman_can_play_it_and_publishes_on_the_loopback_address_only(path: Path) -> None:
    ports = [port for container in containers(path).values() for port in container.get("ports", [])]
    assert {port["hostIP"] for port in ports} == {"127.0.0.1"}
    assert all(port["hostPort"] == port["containerPort"] for port in ports)
    keys = _everything(documents(path))
    assert not [value for key, value in keys if key == "fieldPath" and value == "spec.nodeName"], "unknown to podman"
    assert not [key for key, _ in keys if key == "livenessProbe"], "podman runs them by systemd timers, which not every host has"


@_ALL
def test_every_container_has_a_memory_limit(path: Path) -> None:
    for name, container in containers(path).items():
        assert container["resources"]["limits"]["memory"], name


def test_the_daemonset_runs_on_every_node_and_needs_no_api_server() -> None:
    spec = pod_spec(DAEMONSET)
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["automountServiceAccountToken"] is False
    assert {each["kind"] for each in documents(DAEMONSET)} == {"Namespace", "ServiceAccount", "DaemonSet"}, "no role, no binding"
    account = next(each for each in documents(DAEMONSET) if each["kind"] == "ServiceAccount")
    assert (account["metadata"]["name"], account["automountServiceAccountToken"]) == (spec["serviceAccountName"], False)
    environment = containers(DAEMONSET)["agent"]["env"]
    fields = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in environment if "valueFrom" in each}
    assert fields == {"NODE_NAME": "spec.nodeName", "HOST_IP": "status.hostIP"}


def test_the_daemonset_may_look_at_processes_of_others() -> None:
    """The default AppArmor profile of runtimes forbids it, whatever the capabilities."""
    assert containers(DAEMONSET)["agent"]["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}


def test_the_kubelet_may_be_asked_for_pods_and_nothing_else() -> None:
    role, binding = documents(KUBELET)
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}]
    account = next(each for each in documents(DAEMONSET) if each["kind"] == "ServiceAccount")["metadata"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", **account}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_the_daemonset_is_probed_where_the_agent_answers() -> None:
    agent = containers(DAEMONSET)["agent"]
    (port,) = agent["ports"]
    probes = {probe: agent[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")}
    assert probes["livenessProbe"] == {"path": "/-/healthy", "port": port["name"]}
    assert probes["readinessProbe"] == {"path": "/-/ready", "port": port["name"]}
    assert port["containerPort"] == 9464


def test_the_image_is_built_from_the_lock_and_is_this_version() -> None:
    text = (ROOT / "deploy/container/Containerfile").read_text()
    assert re.search(r"^ARG PYTHON=\S+:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON}"}
    assert all("--frozen" in command for command in re.findall(r"uv sync.*", text))
    assert f'image.version="{__version__}"' in text
    assert 'ENTRYPOINT ["otel-hostmetrics"]' in text
    copied = {name for names in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for name in names.split()}
    kept = set(re.findall(r"^!(\S+)$", (ROOT / "deploy/container/.containerignore").read_text(), re.MULTILINE))
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
