"""RAPL registers through /dev/cpu/N/msr, as a file with holes in which each register lies at its number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import msr
from otel_hostmetrics.kernel.cpu import Processor
from otel_hostmetrics.kernel.hostfs import HostFS

SKYLAKE_X = Processor("GenuineIntel", 6, 0x55, False)
KABY_LAKE = Processor("GenuineIntel", 6, 0x9E, False)
MILAN = Processor("AuthenticAMD", 25, 1, False)


def device(root: Path, registers: dict[int, int]) -> HostFS:
    (root / "dev/cpu/0").mkdir(parents=True)
    with open(root / "dev/cpu/0/msr", "wb") as file:
        for address, value in registers.items():
            file.seek(address)
            file.write(value.to_bytes(4, "little"))
        file.write(bytes(8))
    return HostFS(str(root))


def test_a_server_of_intel_has_a_fixed_unit_for_memory(tmp_path: Path) -> None:
    fs = device(tmp_path, {0x606: 0x000A0E03, 0x611: 9, 0x619: 8})
    assert msr.registers(fs, 0, SKYLAKE_X) == [msr.Register("package", 0x611, 2.0**-14), msr.Register("dram", 0x619, 2.0**-16)]
    assert msr.registers(fs, 0, KABY_LAKE)[1].joules == 2.0**-14


def test_amd(tmp_path: Path) -> None:
    fs = device(tmp_path, {0xC0010299: 0x000A1003, 0xC001029B: 7})
    assert msr.registers(fs, 0, MILAN) == [msr.Register("package", 0xC001029B, 2.0**-16)]


def test_a_counter_has_32_bits(tmp_path: Path) -> None:
    counter = msr.MsrCounter(device(tmp_path, {0x611: 0xFFFF_FFFF, 0x615: 0xDEAD}), 0, 0x611)
    try:
        assert counter.read() == 0xFFFF_FFFF
    finally:
        counter.close()
        counter.close()


def test_no_register_counts(tmp_path: Path) -> None:
    fs = device(tmp_path, {0x606: 0x000A0E03, 0x700: 1})
    with pytest.raises(Unavailable) as caught:
        msr.registers(fs, 0, SKYLAKE_X)
    assert caught.value.reason is Reason.ABSENT


def test_other_vendors_and_no_module(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as unknown:
        msr.registers(HostFS(str(tmp_path)), 0, Processor("0x41", 0, 0, False))
    assert unknown.value.reason is Reason.UNSUPPORTED
    with pytest.raises(Unavailable) as missing:
        msr.registers(HostFS(str(tmp_path)), 0, MILAN)
    assert missing.value.reason is Reason.ABSENT


@pytest.mark.skipif(not os.path.exists("/dev/cpu/0/msr") or os.geteuid() != 0, reason="needs root and the msr module")
def test_a_register_this_processor_lacks_is_refused_by_the_running_kernel() -> None:
    counter = msr.MsrCounter(HostFS(), 0, 0x7777)
    try:
        with pytest.raises(Unavailable) as caught:
            counter.read()
        assert caught.value.reason in (Reason.UNREADABLE, Reason.DENIED)
        assert "0x7777" in str(caught.value)
    finally:
        counter.close()
