"""The iterator engine: BTF looked up once, then whichever walks are asked for, all reading to one buffer.

Needs CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN), and BTF of the kernel. See kernel/bpf_iter.py for the how and why, and
kernel/bpf_ids.py for the other way, which works on older kernels.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Final, Self, TypeVar

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import bpf_iter_code, bpf_iter_holders, bpf_iter_links, bpf_iter_maps, bpf_iter_percpu, bpf_iter_programs, btf
from otel_hostmetrics.kernel.bpf_iter import OwnIds, ReadBuffer, join
from otel_hostmetrics.kernel.bpf_iter_holders import HolderIterator
from otel_hostmetrics.kernel.bpf_iter_links import LinkIterators
from otel_hostmetrics.kernel.bpf_iter_maps import MapIterators
from otel_hostmetrics.kernel.bpf_iter_programs import ProgramIterators

_TARGETS: Final = ("bpf_prog", "bpf_map", "bpf_link", "task_file")
FIELDS: Final = {
    name
    for module in (bpf_iter_code, bpf_iter_percpu, bpf_iter_programs, bpf_iter_maps, bpf_iter_links, bpf_iter_holders)
    for name in module.FIELDS
}
FUNCTIONS: Final = (*bpf_iter_maps.FUNCTIONS, *(f"bpf_iter_{target}" for target in _TARGETS))
_Walk = TypeVar("_Walk", LinkIterators, HolderIterator)


class BpfIterators:
    """Programs and maps are required; links [5.19] and holders are None where they cannot be had: ``problems`` says why.

    Not thread-safe. What it loads, it unloads in :meth:`close`; so does the kernel when the process ends, however it ends.
    """

    def __init__(self, path: str = btf.VMLINUX) -> None:
        """Look up the kernel's types and load everything: 40 ms of CPU. Raises Unavailable."""
        types, buffer = btf.scan(FIELDS, FUNCTIONS, path), ReadBuffer()
        self.problems: list[Unavailable] = []
        with contextlib.ExitStack() as opened:
            self.programs = ProgramIterators(types, buffer)
            opened.callback(self.programs.close)
            if self.programs.stats_problem is not None:
                self.problems.append(self.programs.stats_problem)
            self.maps = MapIterators(types, buffer)
            opened.callback(self.maps.close)
            if self.maps.count_problem is not None:
                self.problems.append(self.maps.count_problem)
            self.links = self._optional(LinkIterators, types, buffer, opened)
            self.holders = self._optional(HolderIterator, types, buffer, opened)
            self._opened = opened.pop_all()
        walks = (self.programs, self.maps, self.links, self.holders)
        self.own: OwnIds = join(walk.own for walk in walks if walk is not None)

    def _optional(self, kind: type[_Walk], types: btf.Types, buffer: ReadBuffer, opened: contextlib.ExitStack) -> _Walk | None:
        try:
            walk = kind(types, buffer)
        except Unavailable as error:
            self.problems.append(error)
            return None
        opened.callback(walk.close)
        return walk

    def close(self) -> None:
        """Unload. Safe to call twice."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
