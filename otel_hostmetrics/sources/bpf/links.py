"""A link's record as points."""

from __future__ import annotations

from collections.abc import Mapping

from otel_hostmetrics.catalogue import bpf as rows
from otel_hostmetrics.catalogue.model import AttributeValue
from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, LINK_TYPES, name_of
from otel_hostmetrics.kernel.bpf_objects import Link, LinkDetail, Program
from otel_hostmetrics.sources.bpf.objects import Bound


class Binder:
    """Binds links with the names of what they point to, as far as they are known at that moment."""

    def __init__(self) -> None:
        self.programs: Mapping[int, Program] = {}
        self.interfaces: Mapping[int, str] = {}
        self.netns = 0  # inode of the network namespace of these interfaces; 0: not known
        self.cgroups: Mapping[int, str] = {}

    def bind(self, link: Link) -> Bound:
        """Every series of one link."""
        type_name = name_of(LINK_TYPES, link.type)
        information = {"id": str(link.id), "prog_id": str(link.program_id), "type": str(link.type), "type_name": type_name}
        attachment: dict[str, AttributeValue] = {"bpf.link.id": link.id, "bpf.link.type": type_name, **self._program(link.program_id)}
        attachment |= self._detail(link.detail or LinkDetail())
        return Bound([(rows.LINK_INFO.series(information), 1), (rows.LINK_ATTACHMENT.series(attachment), 1)])

    def _program(self, number: int) -> dict[str, AttributeValue]:
        if not number:  # struct_ops: its programs are behind the map
            return {}
        program = self.programs.get(number)
        return {"bpf.program.id": number, "bpf.program.name": program.full_name or program.name} if program else {"bpf.program.id": number}

    def _detail(self, detail: LinkDetail) -> dict[str, AttributeValue]:
        ours = 0 != detail.netns_inode == self.netns  # other namespaces have other interfaces of the same index
        known: dict[str, AttributeValue | None] = {
            "bpf.attach.type": name_of(ATTACH_TYPES, detail.attach_type) if detail.attach_type is not None else None,
            "bpf.interface.index": detail.ifindex or None,  # 0: the device is gone
            "bpf.interface.name": self.interfaces.get(detail.ifindex or 0) if ours else None,
            "bpf.cgroup.id": detail.cgroup_id or None,
            "bpf.cgroup.path": self.cgroups.get(detail.cgroup_id or 0),
            "bpf.netns.inode": detail.netns_inode or None,
            "bpf.target.name": detail.target_name or None,
            "bpf.target.id": detail.target_object_id,
            "bpf.map.id": detail.map_id,
            "process.pid": detail.pid,
        }
        return {key: value for key, value in known.items() if value is not None}
