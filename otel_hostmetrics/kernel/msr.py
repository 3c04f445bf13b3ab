"""RAPL registers through /dev/cpu/N/msr (Intel SDM volume 4, AMD PPR; include/asm/msr-index.h).

The last resort: it needs the msr module, root's file mode and CAP_SYS_RAWIO, counts 32 bits only, and kernel lockdown
refuses it. Reading a register the processor lacks fails with EIO.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel.cpu import AMD, INTEL, Processor
from otel_hostmetrics.kernel.hostfs import HostFS

NEEDS: Final = "CAP_SYS_RAWIO+CAP_DAC_READ_SEARCH"
MODULUS: Final = 1 << 32

_INTEL: Final = {"package": 0x611, "dram": 0x619, "core": 0x639, "uncore": 0x641}  # MSR_{PKG,DRAM,PP0,PP1}_ENERGY_STATUS
_INTEL_UNIT: Final = 0x606  # MSR_RAPL_POWER_UNIT
_AMD: Final = {"package": 0xC001029B}  # MSR_AMD_PKG_ENERGY_STATUS; 0xC001029A is of one core, not of all
_AMD_UNIT: Final = 0xC0010299  # MSR_AMD_RAPL_POWER_UNIT

# Family 6 models whose DRAM unit is 2**-16 J whatever the unit register says (rapl.c: model_hsx, model_knl):
# Haswell-X, Broadwell-X and -D, Skylake-X, Ice Lake-X and -D, Xeon Phi
_DRAM_16: Final = frozenset({0x3F, 0x4F, 0x56, 0x55, 0x6A, 0x6C, 0x57, 0x85})


class Register(NamedTuple):
    """One energy counter."""

    domain: str  # "package", "dram", "core", "uncore"
    address: int
    joules: float  # of one count


class MsrCounter:
    """The low 32 bits of a register of one cpu, read again and again. Raises Unavailable: ABSENT, DENIED, UNREADABLE."""

    __slots__ = ("_address", "_fd", "path")

    def __init__(self, fs: HostFS, cpu: int, address: int) -> None:
        self.path = fs.path("dev/cpu", str(cpu), "msr")
        self._address = address
        self._fd = -1
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(error, self.path, NEEDS) from None

    def read(self) -> int:
        """The count now."""
        try:
            content = os.pread(self._fd, 8, self._address)
        except OSError as error:
            raise unavailable(error, f"{self.path} {self._address:#x}", NEEDS) from None
        if len(content) != 8:
            raise Unavailable(Reason.MALFORMED, f"{self.path} {self._address:#x}", f"{len(content)} bytes")
        return int.from_bytes(content, "little") % MODULUS

    def close(self) -> None:
        """May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def registers(fs: HostFS, cpu: int, processor: Processor) -> list[Register]:
    """The energy counters that this cpu has and that count. Raises Unavailable if it has none."""
    if processor.vendor not in AMD and processor.vendor != INTEL:
        raise Unavailable(Reason.UNSUPPORTED, "MSR", f"no RAPL registers known for processors of {processor.vendor or 'an unknown vendor'}")
    addresses, unit_address = (_AMD, _AMD_UNIT) if processor.vendor in AMD else (_INTEL, _INTEL_UNIT)
    joules = 2.0 ** -(_value(fs, cpu, unit_address) >> 8 & 0x1F)  # bits 12:8: energy status unit
    there = {domain: address for domain, address in addresses.items() if _counts(fs, cpu, address)}
    found = [Register(domain, address, _unit(domain, joules, processor)) for domain, address in there.items()]
    if not found:
        raise Unavailable(Reason.ABSENT, fs.path("dev/cpu", str(cpu), "msr"), "no energy register counts")
    return found


def _unit(domain: str, joules: float, processor: Processor) -> float:
    fixed = domain == "dram" and processor.vendor == INTEL and processor.family == 6 and processor.model in _DRAM_16
    return 2.0**-16 if fixed else joules


def _value(fs: HostFS, cpu: int, address: int) -> int:
    counter = MsrCounter(fs, cpu, address)
    try:
        return counter.read()
    finally:
        counter.close()


def _counts(fs: HostFS, cpu: int, address: int) -> bool:
    """Whether the register is there; one that reads 0 belongs to a domain this model does not measure."""
    try:
        return _value(fs, cpu, address) != 0
    except Unavailable as error:
        if error.reason is Reason.DENIED:
            raise
        return False
