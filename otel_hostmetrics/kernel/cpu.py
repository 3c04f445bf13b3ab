"""Which processor this is, and where a cpu sits: /proc/cpuinfo and /sys/devices/system/cpu."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

AMD: Final = frozenset({"AuthenticAMD", "HygonGenuine"})
INTEL: Final = "GenuineIntel"

_FIRST: Final = 8192  # bytes: more than the lines of one cpu
_MOST_CPUS: Final = 8192  # NR_CPUS of x86 with MAXSMP
_RANGE: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class Processor(NamedTuple):
    """The first cpu of /proc/cpuinfo; 0 and empty where the architecture does not say."""

    vendor: str  # "GenuineIntel", "AuthenticAMD", "HygonGenuine"; "0x41" (CPU implementer) on ARM
    family: int
    model: int
    hypervisor: bool  # the cpu says that it is a virtual one (CPUID 1, ECX bit 31; x86 only)


def processor(fs: HostFS) -> Processor:
    """Never raises: on a host that hides /proc/cpuinfo nothing is known of it."""
    try:
        with open(fs.proc("cpuinfo"), "rb") as file:  # the kernel prints it cpu by cpu: the rest is never made
            first = file.read(_FIRST).decode("utf-8", "replace").split("\n\n", 1)[0]
    except OSError:
        return Processor("", 0, 0, False)
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    vendor = fields.get("vendor_id") or fields.get("CPU implementer", "")
    virtual = "hypervisor" in fields.get("flags", "").split()
    return Processor(vendor, _number(fields.get("cpu family")), _number(fields.get("model")), virtual)


def location(fs: HostFS, cpu: int) -> tuple[int, int]:
    """(physical package, die) of a cpu that is online; die 0 before Linux 5.2. Raises Unavailable."""
    topology = fs.sys(f"devices/system/cpu/cpu{cpu}/topology")
    package = fs.integer(f"{topology}/physical_package_id")
    try:
        return package, fs.integer(f"{topology}/die_id")
    except Unavailable:
        return package, 0


def cpu_list(fs: HostFS, path: str) -> list[int]:
    """A list such as ``0-3,8``: the form of cpumask, online and possible. Raises Unavailable."""
    cpus: list[int] = []
    for part in filter(None, fs.text(path).split(",")):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not 0 <= first <= last < _MOST_CPUS:
            raise Unavailable(Reason.MALFORMED, path, f"{part[:40]!r} is no range of cpus")
        cpus += range(first, last + 1)
    return sorted(set(cpus))


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else 0
