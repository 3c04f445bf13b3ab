"""Names from the files that container runtimes keep for themselves: no socket, 23 us for each new container.

The directory ``<id>`` of a container holds, by runtime,
- containerd: ``config.json``, the OCI bundle, with annotations ``io.kubernetes.cri.*`` (pkg/cri/annotations);
- CRI-O and podman: ``userdata/config.json``, with ``io.kubernetes.*`` (CRI-O internal/annotations) and ``io.container.manager``;
- docker: ``config.v2.json``, with its name, image and labels.
The first is readable for root only (a directory of mode 0700): CAP_DAC_READ_SEARCH.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping

import msgspec

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.names import CONTAINER, CONTAINER_NAME, NAMESPACE, POD, RUNTIME, UID, Names, image, kubernetes, told
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_MOST_DIRECTORIES = 64
_MOST_STORED = 16 << 20  # bytes of podman's list: 650 for each container
_CRI = "io.kubernetes.cri."
_CRIO = "io.kubernetes.cri-o."
_MANAGERS = {"libpod": "podman", "cri-o": "cri-o"}


class _Oci(msgspec.Struct):
    """opencontainers/runtime-spec, config.md."""

    annotations: dict[str, str] | None = None


class _DockerConfig(msgspec.Struct, rename="pascal"):
    image: str = ""
    labels: dict[str, str] | None = None


class _Docker(msgspec.Struct, rename="pascal"):
    name: str = ""
    config: _DockerConfig = msgspec.field(default_factory=_DockerConfig)


class _Stored(msgspec.Struct):
    """An entry of containers/storage's list of containers."""

    id: str = ""
    names: list[str] | None = None
    metadata: str = ""


class _StoredMetadata(msgspec.Struct):
    image_name: str = msgspec.field(default="", name="image-name")


class Bundles:
    """*patterns* are directories on the host, in which each container has one of its own."""

    name = "bundles"

    def __init__(self, fs: HostFS, patterns: tuple[str, ...]) -> None:
        self._fs = fs
        self._patterns = patterns
        self._known: dict[str, Attributes] = {}

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:  # noqa: ARG002 - there is nothing of pods
        """Reads the files of containers that are new; they do not change. Those that may not be read are one problem."""
        self._known = {each: self._known[each] for each in containers if each in self._known}
        new = containers - self._known.keys()
        problem: Unavailable | None = None
        if new:
            for directory in self._directories():
                stored = _stored(self._fs, directory)
                for each in new - self._known.keys():
                    try:
                        found = {**self._read(f"{directory}/{each}"), **stored.get(each, {})}
                    except Unavailable as error:
                        problem = problem or (error if error.reason is not Reason.ABSENT else None)
                    else:
                        self._known[each] = found
        return Names(dict(self._known), _pods(self._known.values()), problem=problem)

    def _directories(self) -> list[str]:
        """Docker's containers are containerd's too, in the namespace moby, but without their names."""
        found = (path for pattern in self._patterns for path in self._matching(pattern) if os.path.basename(path) != "moby")
        return sorted(found)[:_MOST_DIRECTORIES]

    def _matching(self, pattern: str) -> list[str]:
        """What comes before the first wildcard may lead elsewhere on the host, as /var/lib/docker to another disk."""
        parts = pattern.split("/")
        plain = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
        return glob.glob("/".join((glob.escape(self._fs.resolved("/".join(parts[:plain]))), *parts[plain:])))

    def _read(self, directory: str) -> Attributes:
        """Raises Unavailable: ABSENT where no runtime has left a file that we know."""
        for name, decode in (("config.json", _containerd), ("userdata/config.json", _storage), ("config.v2.json", _docker)):
            path = f"{directory}/{name}"
            try:
                text = self._fs.text(path)
            except Unavailable as error:
                if error.reason is Reason.ABSENT:
                    continue
                raise
            try:
                return decode(text)
            except msgspec.MsgspecError as error:
                raise Unavailable(Reason.MALFORMED, path, str(error)) from None
        raise Unavailable(Reason.ABSENT, directory)


def _pods(containers: Iterable[Attributes]) -> dict[str, Attributes]:
    return {str(each[UID]): {key: each[key] for key in (UID, POD, NAMESPACE) if key in each} for each in containers if UID in each}


def _containerd(text: str) -> Attributes:
    found = _annotations(text)
    cri = {
        key: found.get(_CRI + annotation)
        for key, annotation in ((POD, "sandbox-name"), (NAMESPACE, "sandbox-namespace"), (UID, "sandbox-uid"))
    }
    name = found.get(_CRI + "container-name")
    return told({RUNTIME: "containerd", **cri, CONTAINER: name, **image(found.get(_CRI + "image-name", ""))})


def _storage(text: str) -> Attributes:
    found = _annotations(text)
    pod = kubernetes({**found, "io.kubernetes.container.name": _spoken(found)})
    manager = _MANAGERS.get(found.get("io.container.manager", ""), "cri-o" if f"{_CRIO}ImageName" in found else None)
    return told({RUNTIME: manager, **pod, **image(found.get(f"{_CRIO}ImageName", ""))})


def _spoken(annotations: Mapping[str, str]) -> str:
    """The container's name; of a pod's first container none, whatever its annotation says."""
    return "" if annotations.get(f"{_CRIO}ContainerType") == "sandbox" else annotations.get("io.kubernetes.container.name", "")


def _docker(text: str) -> Attributes:
    found = msgspec.json.decode(text, type=_Docker)
    return told(
        {RUNTIME: "docker", CONTAINER_NAME: found.name.lstrip("/"), **kubernetes(found.config.labels or {}), **image(found.config.image)}
    )


def _annotations(text: str) -> Mapping[str, str]:
    return msgspec.json.decode(text, type=_Oci).annotations or {}


def _stored(fs: HostFS, directory: str) -> Mapping[str, Attributes]:
    """Names and images from ``containers.json`` beside the containers' directories: podman has them nowhere else in a file."""
    try:
        found = msgspec.json.decode(fs.text(f"{directory}/containers.json", _MOST_STORED), type=list[_Stored])
        return {
            each.id: told({CONTAINER_NAME: next(iter(each.names or ()), ""), **image(_image_name(each.metadata))})
            for each in found
            if each.id
        }
    except (Unavailable, msgspec.MsgspecError):  # not podman's directory; and names are worth no more than the rest
        return {}


def _image_name(metadata: str) -> str:
    return msgspec.json.decode(metadata, type=_StoredMetadata).image_name if metadata else ""
