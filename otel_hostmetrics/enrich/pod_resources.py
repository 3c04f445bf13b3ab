"""Which GPU or RDMA device was given to which container: the kubelet's PodResources API, k8s.io/kubelet pkg/apis/podresources/v1.

It knows devices by the ids of their device plugins: a GPU's UUID (with ``::N`` where it is shared), a function's PCI
address. A device that several containers have is nobody's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from otel_hostmetrics.catalogue.model import Attributes
from otel_hostmetrics.enrich.names import CONTAINER, NAMESPACE, POD, Names, told
from otel_hostmetrics.enrich.unary import call
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.protobuf import messages, text

_LIST: Final = "/v1.PodResourcesLister/List"
_REPLICA: Final = "::"  # between a GPU's UUID and the number of its share (NVIDIA's k8s-device-plugin, time slicing)


class PodResources:
    """*socket* as the agent sees it: ``/var/lib/kubelet/pod-resources/kubelet.sock`` on the host."""

    name = "pod_resources"

    def __init__(self, fs: HostFS, socket: str) -> None:
        self._fs = fs
        self._socket = socket

    def find(self, containers: frozenset[str], pods: frozenset[str]) -> Names:  # noqa: ARG002 - it lists all there are
        """All devices that containers have. Raises Unavailable."""
        found: dict[str, Attributes | None] = {}
        for device, container in _devices(call(self._socket, _LIST)):
            found[device] = container if found.get(device, container) == container else None
        devices = {device: container for device, container in found.items() if container is not None}
        return Names(devices=devices | self._by_name(devices))

    def _by_name(self, devices: dict[str, Attributes]) -> dict[str, Attributes]:
        """RDMA devices have their own name on points, and their PCI address in sysfs."""
        folder = self._fs.sys("class/infiniband")
        try:
            addresses = {name: os.path.basename(os.readlink(f"{folder}/{name}/device")) for name in os.listdir(folder)}
        except OSError:  # none here, or it is being removed
            return {}
        return {name: devices[address] for name, address in addresses.items() if address in devices}


def _devices(answer: bytes) -> Iterator[tuple[str, Attributes]]:
    """pod_resources 1: name 1, namespace 2, containers 3: name 1, devices 2: resource_name 1, device_ids 2."""
    for pod in messages(answer, 1):
        for container in messages(pod, 3):
            names = told({POD: text(pod, 1), NAMESPACE: text(pod, 2), CONTAINER: text(container, 1)})
            for device in messages(container, 2):
                for each in messages(device, 2):
                    yield each.decode("utf-8", "backslashreplace").partition(_REPLICA)[0], names
