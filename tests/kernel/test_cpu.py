"""Processor, topology and lists of cpus."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cpu import Processor, cpu_list, location, processor
from otel_hostmetrics.kernel.hostfs import HostFS

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu hypervisor sse

vendor_id\t: other
"""


def cpuinfo(root: Path, content: bytes) -> Processor:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_bytes(content)
    return processor(HostFS(str(root)))


def test_processors(tmp_path: Path) -> None:
    assert cpuinfo(tmp_path, X86.encode()) == Processor("AuthenticAMD", 25, 17, True)
    assert cpuinfo(tmp_path, X86.replace(" hypervisor", "").encode()) == Processor("AuthenticAMD", 25, 17, False)
    assert cpuinfo(tmp_path, b"processor : 0\nCPU implementer\t: 0x41\nFeatures\t: fp\n") == Processor("0x41", 0, 0, False)
    assert processor(HostFS(str(tmp_path / "nothing"))) == Processor("", 0, 0, False)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_cpuinfo_is_a_processor(tmp_path: Path, content: bytes) -> None:
    assert isinstance(cpuinfo(tmp_path, content), Processor)


def test_lists_of_cpus(tmp_path: Path) -> None:
    fs, path = HostFS(), tmp_path / "cpumask"
    for text, cpus in (("0\n", [0]), ("0-3,8\n", [0, 1, 2, 3, 8]), ("", []), ("5,1-2,2\n", [1, 2, 5])):
        path.write_text(text)
        assert cpu_list(fs, str(path)) == cpus


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), st.from_regex(rb"[0-9,-]{0,40}", fullmatch=True)))
def test_any_list_is_cpus_or_malformed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "online"
    path.write_bytes(content)
    cpus, reason = [], None
    try:
        cpus = cpu_list(HostFS(), str(path))
    except Unavailable as error:
        reason = error.reason
    assert reason in (None, Reason.MALFORMED)
    assert cpus == sorted(set(cpus))
    assert all(0 <= cpu < 8192 for cpu in cpus)


def test_location(tmp_path: Path) -> None:
    topology = tmp_path / "sys/devices/system/cpu/cpu12/topology"
    topology.mkdir(parents=True)
    (topology / "physical_package_id").write_text("1\n")
    fs = HostFS(str(tmp_path))
    assert location(fs, 12) == (1, 0)
    (topology / "die_id").write_text("3\n")
    assert location(fs, 12) == (1, 3)
    with pytest.raises(Unavailable):
        location(fs, 13)
