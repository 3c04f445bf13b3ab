"""The name tables, compared with the enumerations in the running kernel's BTF."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from otel_hostmetrics.kernel import bpf_names

_TABLES = {
    "bpf_prog_type": ("BPF_PROG_TYPE_", bpf_names.PROGRAM_TYPES),
    "bpf_map_type": ("BPF_MAP_TYPE_", bpf_names.MAP_TYPES),
    "bpf_link_type": ("BPF_LINK_TYPE_", bpf_names.LINK_TYPES),
    "bpf_attach_type": ("BPF_", bpf_names.ATTACH_TYPES),
    "bpf_perf_event_type": ("BPF_PERF_EVENT_", bpf_names.PERF_EVENT_TYPES),
}


@pytest.mark.system
def test_tables_are_the_kernels_enumerations() -> None:
    """An older kernel knows a prefix of each table; a newer one may know more."""
    tool = shutil.which("bpftool", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert tool, "bpftool is not installed: apt-get install bpftool"
    command = [tool, "btf", "dump", "file", "/sys/kernel/btf/vmlinux", "format", "c"]
    header = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    for enum, (prefix, table) in _TABLES.items():
        body = re.search(rf"^enum {enum} {{(.*?)^}};", header, re.DOTALL | re.MULTILINE)
        assert body or enum == "bpf_perf_event_type", enum  # since 6.6
        members = {int(number): name for name, number in re.findall(rf"\t{prefix}(\w+) = (\d+),", body[1] if body else "")}
        for number, name in members.items():
            assert bpf_names.name_of(table, number) in (name.lower(), str(number))
