"""Resource attributes of this host and of trees of files that stand for others."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import pytest

from otel_hostmetrics import __version__
from otel_hostmetrics.resource import attributes, host_name, identified, instance_id, machine_id
from otel_hostmetrics.settings import Paths, Resource, Settings

ID, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
BOOT = "6f0ad1a5-9d59-4e3a-8f0e-0a6a1a5a7c11"


def host(root: Path, **files: str) -> str:
    """A tree: etc__hostname="x" is etc/hostname."""
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(root)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"etc__machine-id": f"{ID}\n", "var__lib__dbus__machine-id": OTHER}, ID),
        ({"var__lib__dbus__machine-id": f"{OTHER}\n"}, OTHER),
        ({"etc__machine-id": "", "proc__sys__kernel__random__boot_id": f"{BOOT}\n"}, BOOT),
        ({"etc__machine-id": "uninitialized\n", "var__lib__dbus__machine-id": OTHER}, OTHER),
        ({"etc__machine-id": "\x00\xff garbage" * 100}, ""),
        ({}, ""),
    ],
)
def test_machine_id_of_a_host(tmp_path, files, expected):
    assert machine_id(host(tmp_path, **files)) == expected


def test_a_mounted_host_has_its_own_name(tmp_path):
    assert host_name() == socket.gethostname()
    assert host_name(str(tmp_path)) == socket.gethostname()
    assert host_name(host(tmp_path, etc__hostname="node-7\n")) == "node-7"


def test_the_instance_id_is_stable_and_another_on_every_host_and_for_every_service(tmp_path):
    here, there = host(tmp_path / "a", **{"etc__machine-id": ID}), host(tmp_path / "b", **{"etc__machine-id": OTHER})
    first = instance_id(Resource(), here)
    assert uuid.UUID(first).version == 5
    assert first == "0bc0d7b5-b118-533e-be3d-a2bd476f999b"
    assert instance_id(Resource(), here) == first
    assert len({first, instance_id(Resource(), there), instance_id(Resource(service_name="x"), here)}) == 3


def test_a_host_without_any_id_is_identified_by_its_name(tmp_path):
    named = [host(tmp_path / name, etc__hostname=name) for name in ("a", "b")]
    assert len({instance_id(Resource(), root) for root in named}) == 2


def test_attributes_of_a_mounted_host(tmp_path):
    root = host(tmp_path, **{"etc__machine-id": ID, "etc__hostname": "node-7"})
    found = attributes(Resource(service_name="mine"), Paths(root=root), {"NODE_NAME": "k8s-7"})
    assert found == {
        "service.name": "mine",
        "service.version": __version__,
        "service.instance.id": instance_id(Resource(service_name="mine"), root),
        "host.name": "node-7",
        "host.id": ID,
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os.type": "linux",
        "k8s.node.name": "k8s-7",
    }


def test_the_user_s_attributes_win_and_what_is_empty_is_left_out(tmp_path):
    settings = Resource(attributes={"host.name": "mine", "host.id": "", "team": "x", "service.instance.id": "one"})
    found = attributes(settings, Paths(root=str(tmp_path)), {})
    assert (found["host.name"], found["team"], found["service.instance.id"]) == ("mine", "x", "one")
    assert "host.id" not in found
    assert "k8s.node.name" not in found


def test_the_front_settles_the_instance_id_once(tmp_path):
    settings = Settings(path=Paths(root=host(tmp_path, **{"etc__machine-id": ID})))
    known = identified(settings)
    assert known.resource.attributes == {"service.instance.id": instance_id(settings.resource, str(tmp_path))}
    assert identified(known) is known
    assert attributes(known.resource, known.path, {})["service.instance.id"] == known.resource.attributes["service.instance.id"]
