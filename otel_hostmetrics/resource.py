"""Attributes of the OpenTelemetry Resource: which service, which host.

https://opentelemetry.io/docs/specs/semconv/resource/
"""

from __future__ import annotations

import os
import re
import socket

import msgspec

from otel_hostmetrics import __version__
from otel_hostmetrics.settings import Paths, Resource, Settings

_INSTANCE = "service.instance.id"
_NAME = "otel-hostmetrics"  # in the URL namespace: the namespace of service.instance.id, fixed for ever
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "armv7l": "arm32", "ppc64le": "ppc64"}
# Set by the downward API of Kubernetes in our manifests, or by hand.
_NODE_NAME = ("K8S_NODE_NAME", "NODE_NAME", "KUBE_NODE_NAME")


def machine_id(root: str = "/") -> str:
    """machine-id(5) of the host below *root*, else the boot id, else "" where neither can be read.

    Anything but hexadecimal digits is none: golden images have the word "uninitialized" there.
    """
    for path in ("etc/machine-id", "var/lib/dbus/machine-id", "proc/sys/kernel/random/boot_id"):
        try:
            with open(os.path.join(root, path), encoding="ascii", errors="replace") as file:
                text = file.read(64).strip()
        except OSError:
            continue
        if re.fullmatch(r"[0-9a-fA-F]{32}|[0-9a-fA-F-]{36}", text):
            return text
    return ""


def host_name(root: str = "/") -> str:
    """The host's name: of a mounted host its /etc/hostname, else this machine's."""
    if root != "/":
        try:
            with open(os.path.join(root, "etc/hostname"), encoding="utf-8", errors="replace") as file:
                if text := file.read(256).strip():
                    return text
        except OSError:
            pass
    return socket.gethostname()


def instance_id(settings: Resource, root: str) -> str:
    """uuid5 of the machine id and the service's name: the same after every restart, another on every host."""
    import uuid

    identity = machine_id(root) or host_name(root)
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, _NAME), f"{identity}/{settings.service_name}"))


def identified(settings: Settings) -> Settings:
    """Settings that carry their service.instance.id: worked out by the front, since SHA-1 brings libcrypto, 3.6 MB resident."""
    resource = settings.resource
    if _INSTANCE in resource.attributes:
        return settings
    known = {**resource.attributes, _INSTANCE: instance_id(resource, settings.path.root)}
    return msgspec.structs.replace(settings, resource=msgspec.structs.replace(resource, attributes=known))


def attributes(settings: Resource, paths: Paths, environment: dict[str, str]) -> dict[str, str]:
    """Resource attributes; those given by the user win."""
    found = {
        "service.name": settings.service_name,
        "service.version": __version__,
        _INSTANCE: settings.attributes.get(_INSTANCE) or instance_id(settings, paths.root),
        "host.name": host_name(paths.root),
        "host.id": machine_id(paths.root),
        "host.arch": _ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os.type": "linux",
        "k8s.node.name": next((environment[name] for name in _NODE_NAME if environment.get(name)), ""),
    }
    return {key: value for key, value in (found | settings.attributes).items() if value}
