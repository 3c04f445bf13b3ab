"""The binary table ``gpu_metrics`` of amdgpu: energy, and how long or whether clocks were held down.

drivers/gpu/drm/amd/include/kgd_pp_interface.h (gpu_metrics_v1_3 to v1_9), pm/swsmu/inc/amdgpu_smu.h (SMU_THROTTLER_*_BIT). Fields that
firmware does not fill have all bits set. 1.9 (Linux 6.19; AMD's own driver for Instinct) is a list instead of a structure.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

ENERGY: Final = "energy_2^-16_j"
CYCLES, CLOCK = "residency.cycles", "residency.clock_10ns"
_HEADER: Final = struct.Struct("<HBB")  # bytes of the whole, format, content
_MOST: Final = 8192  # bytes
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
# PCI devices. The first drivers of MI300 had table 1.3, with a bit set for whatever ever happened.
_MI300: Final = range(0x74A0, 0x74C0)
# Firmware of RDNA 3 and 4 never lets go of one bit, that of the hot spot, not at 37 degrees and 1 W either: it says nothing.
_HOT: Final = (range(0x7440, 0x74A0), range(0x7550, 0x75A0))
_HOT_SPOT: Final = 1 << 36

# indep_throttle_status: by bit, why. 32 to 43 are temperatures, of which 34 is memory's, and 38 to 41 those of voltage regulators.
_REASONS: Final[Mapping[str, frozenset[int]]] = {
    "power": frozenset({*range(8), 56}),
    "current": frozenset(range(16, 24)),
    "thermal": frozenset({32, 33, 35, 36, 37, 42, 43}),
    "memory_thermal": frozenset({34}),
    "vr_thermal": frozenset({38, 39, 40, 41, 44, 45}),
    "prochot": frozenset({46, 47}),
    "reliability": frozenset({57}),
}
_MASKS: Final = {reason: sum(1 << bit for bit in bits) for reason, bits in _REASONS.items()}
_RESIDENCIES: Final = tuple(f"residency.{reason}" for reason in ("prochot", "power", "thermal", "vr_thermal", "memory_thermal"))


class _Layout(NamedTuple):
    """Offsets in format 1; of what a revision does not have, -1."""

    energy: int = -1  # u64, 2^-16 J; before 1.4, of no known unit
    status: int = -1  # u64: indep_throttle_status; throttle_status of 1.4 and 1.5 is always 0
    cycles: int = -1  # u32: accumulation_counter, and behind it _RESIDENCIES, the cycles of them with clocks held down
    clock: int = -1  # u64, 10 ns: firmware_timestamp


_LAYOUTS: Final = {
    3: _Layout(status=112),
    4: _Layout(energy=24),
    5: _Layout(energy=88),
    6: _Layout(energy=16, cycles=32, clock=256),
    7: _Layout(energy=24, cycles=40, clock=288),
    8: _Layout(energy=24, cycles=40, clock=288),
}

_LIST: Final = 9
_STATUS: Final = "status"
# enum amdgpu_metrics_attr_id and _type, whose odd numbers are signed: none of the attributes here is.
_IDS: Final = {7: ENERGY, 9: CYCLES, **dict(enumerate(_RESIDENCIES, 10)), 32: CLOCK}
_TYPES: Final = {number: struct.Struct(f"<{letter}") for number, letter in enumerate("BBHHIIQQ")}


class GpuMetrics:
    """The table of one GPU, through one descriptor. ``names`` are those it has at first."""

    def __init__(self, path: str, device: int) -> None:
        """*device* is the PCI device. A GPU without the table has no names."""
        self._device = device
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self.format = self._table()[2:3]  # b"\\1": of a GPU; 2 and 3: of an APU
        self.names = tuple(self.values())

    def values(self) -> dict[str, int]:
        """By name, of those that can be read now."""
        return parse(self._table(), self._device) if self._fd >= 0 else {}

    def keep(self, names: Iterable[str]) -> None:
        """Give only these from now on; for none of them nothing is held open."""
        self.names = tuple(names)
        if not self.names:
            self.close()

    def read(self) -> list[int | None]:
        """In the order of ``names``."""
        found = self.values() if self.names else {}
        return [found.get(name) for name in self.names]

    def _table(self) -> bytes:
        """Empty where it cannot be read."""
        try:
            return os.pread(self._fd, _MOST, 0) if self._fd >= 0 else b""
        except OSError:
            return b""

    def close(self) -> None:
        """May be called again."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)


def parse(table: bytes, device: int = 0) -> dict[str, int]:
    """ENERGY; ``throttle.REASON``, 1 while clocks are held down; ``residency.REASON`` cycles of CYCLES, by the firmware's CLOCK.

    Those that the table has; empty for a revision that is not known, and for any other bytes.
    """
    if len(table) < _HEADER.size:
        return {}
    size, form, content = _HEADER.unpack_from(table)
    if form != 1:
        return {}
    layout = _LAYOUTS.get(content)
    raw = _listed(table[:size]) if content == _LIST else _laid_out(table[:size], layout) if layout else ()
    return dict(_told({name: value for name, value in raw if value is not None}, device))


def _laid_out(table: bytes, layout: _Layout) -> Iterator[tuple[str, int | None]]:
    yield ENERGY, _number(_U64, table, layout.energy)
    yield _STATUS, _number(_U64, table, layout.status)
    yield CLOCK, _number(_U64, table, layout.clock)
    if layout.cycles >= 0:
        for place, name in enumerate((CYCLES, *_RESIDENCIES)):
            yield name, _number(_U32, table, layout.cycles + 4 * place)


def _listed(table: bytes) -> Iterator[tuple[str, int | None]]:
    """Packed: a count, then for each attribute u64 of its encoding (instances 0-9, id 10-19, type 20-23, unit 24-31) and the values.

    Ends at what is cut off and at a type that is not known, whose size is not either.
    """
    count = _number(_U32, table, _HEADER.size) or 0
    at = _HEADER.size + _U32.size
    for _ in range(min(count, len(table) // _U64.size)):
        encoding = _number(_U64, table, at)
        kind = _TYPES.get(encoding >> 20 & 15) if encoding is not None else None
        if encoding is None or kind is None:
            return
        name, instances = _IDS.get(encoding >> 10 & 1023), encoding & 1023
        if name and instances == 1:
            yield name, _number(kind, table, at + _U64.size)
        at += _U64.size + kind.size * instances


def _told(raw: Mapping[str, int], device: int) -> Iterator[tuple[str, int]]:
    if ENERGY in raw:
        yield ENERGY, raw[ENERGY]
    if _STATUS in raw and device not in _MI300:
        status = raw[_STATUS] & ~_HOT_SPOT if any(device in devices for devices in _HOT) else raw[_STATUS]
        yield from ((f"throttle.{reason}", int(bool(status & mask))) for reason, mask in _MASKS.items())
    if CYCLES not in raw or CLOCK not in raw:
        return
    yield from ((name, raw[name]) for name in (CYCLES, CLOCK))
    # All cycles since the driver was loaded is what some firmware of MI300 says at idle, of reasons that it does not count.
    yield from ((name, raw[name]) for name in _RESIDENCIES if name in raw and (raw[name] != raw[CYCLES] or not raw[CYCLES]))


def _number(form: struct.Struct, table: bytes, offset: int) -> int | None:
    if offset < 0 or len(table) < offset + form.size:
        return None
    (value,) = form.unpack_from(table, offset)
    return int(value) if value != (1 << 8 * form.size) - 1 else None
