"""Everything one device answers, read with reused buffers.

A driver is asked in two ways: by calls that each write into their place of one buffer, and by nvmlDeviceGetFieldValues,
which fills an array of ``nvmlFieldValue_t`` at once. Buffer and array are unpacked by one ``struct.Struct`` each: 30 fields
cost 2 us this way and 38 us through the binding's function, a call 0.16 us instead of 0.37 (measured).
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from otel_hostmetrics.kernel.nvml import DEAD, LOST, NO_PERMISSION, SUCCESS, UNSUPPORTED, Device, Failure, Nvml

Value: TypeAlias = int | float | None

ALL_LINKS: Final = 0xFFFFFFFF  # scopeId: the sum over all NVLinks
_FIELD: Final = struct.Struct("=IIqqiiQ")  # nvmlFieldValue_t: id, scope, timestamp, latency, type, return code, value
_TYPES: Final = (
    "d",
    "I4x",
    "Q",
    "Q",
    "q",
    "i4x",
    "H6x",
)  # nvmlValueType_t: double, unsigned of 4, 8, 8 bytes, signed of 8, 4, unsigned of 2
_STRIKES: Final = 3  # answers "unsupported" in a row, of what was supported, before the device is probed again


class Call(NamedTuple):
    """One NVML function of a device. *outputs* are struct formats, one per pointer argument."""

    symbol: str
    names: tuple[str, ...]  # of the values it yields; known names are not asked for again: later calls are for older drivers
    outputs: tuple[str, ...] = ("I4x",)
    arguments: tuple[int, ...] = ()  # unsigned ints between the device and the outputs
    preset: tuple[int, ...] = ()  # first words of the first output: a structure's version and selector


class Field(NamedTuple):
    """One field of nvmlDeviceGetFieldValues."""

    name: str
    id: int  # NVML_FI_DEV_*
    scope: int = 0


class _Prepared(NamedTuple):
    symbol: str
    first: int  # place of its first value
    width: int


class Batch:
    """The calls and fields that *device* supports, found out once. ``names`` are those of the values read() gives.

    Raises Failure from the constructor and from read() where the device or the library is gone.
    """

    def __init__(self, nvml: Nvml, device: Device, calls: Sequence[Call], fields: Sequence[Field]) -> None:
        self.device = device
        self._strikes = 0
        self._prepared: list[_Prepared] = []
        self._issues: list[Callable[[], int]] = []
        self.denied: list[str] = []  # what this process may not ask
        self._probe_calls(nvml, calls)
        self._probe_fields(nvml, [field for field in fields if field.name not in self.names])

    @property
    def stale(self) -> bool:
        """Whether what was supported is not any more: a mode was switched, probe again."""
        return self._strikes >= _STRIKES

    def read(self) -> list[Value]:
        """Every value, in the order of ``names``; None for what could not be read this time."""
        codes = [issue() for issue in self._issues]
        values: list[Value] = list(self._layout.unpack_from(self._buffer))
        refused = self._blank_calls(codes, values) if any(codes) else False
        if self._fields:
            refused |= self._read_fields(values)
        self._strikes = self._strikes + 1 if refused else 0
        return values

    def _blank_calls(self, codes: list[int], values: list[Value]) -> bool:
        """Whether an error says that the call is no longer supported."""
        refused = False
        for each, code in zip(self._prepared, codes, strict=True):
            if code != SUCCESS:
                check(each.symbol, code)
                refused |= code in UNSUPPORTED
                values[each.first : each.first + each.width] = [None] * each.width
        return refused

    def _read_fields(self, values: list[Value]) -> bool:
        code = self._get_fields()
        if code != SUCCESS:
            check("nvmlDeviceGetFieldValues", code)
            values += [None] * self._fields
            return code in UNSUPPORTED
        # type, code, value; type, code, value...
        flat = self._field_layout.unpack(self._array)
        types, codes, found = flat[0::3], flat[1::3], list(flat[2::3])
        if types != self._types or any(codes):
            return self._append_some(values, types, codes, found)
        values += found
        return False

    def _append_some(self, values: list[Value], types: tuple[int, ...], codes: tuple[int, ...], found: list[Value]) -> bool:
        refused = False
        for kind, expected, code, value in zip(types, self._types, codes, found, strict=True):
            if code != SUCCESS:
                check("nvmlDeviceGetFieldValues", code)
                refused |= code in UNSUPPORTED
            refused |= code == SUCCESS and kind != expected
            values.append(value if code == SUCCESS and kind == expected else None)
        return refused

    def _probe_calls(self, nvml: Nvml, calls: Sequence[Call]) -> None:
        known: list[str] = []
        self._buffer = ctypes.create_string_buffer(sum(_size(output) for call in calls for output in call.outputs))
        formats, offset = ["="], 0
        for call in calls:
            function = nvml.function(call.symbol)
            if function is None or any(name in known for name in call.names):
                continue
            issue = self._prepare(function, call, offset)
            if self._supported(call.symbol, issue()):
                self._prepared.append(_Prepared(call.symbol, len(known), len(call.names)))
                self._issues.append(issue)
                known += call.names
                formats += call.outputs
                offset += sum(map(_size, call.outputs))
        self._layout = struct.Struct("".join(formats))
        self.names: tuple[str, ...] = tuple(known)

    def _prepare(self, function: Callable[..., int], call: Call, offset: int) -> Callable[[], int]:
        """The call with its arguments bound; what it writes begins at *offset*."""
        struct.pack_into(f"={len(call.preset)}I", self._buffer, offset, *call.preset)
        pointers = []
        for output in call.outputs:
            pointers.append(ctypes.byref(self._buffer, offset))
            offset += _size(output)
        return functools.partial(function, self.device.handle, *map(ctypes.c_uint, call.arguments), *pointers)

    def _probe_fields(self, nvml: Nvml, fields: Sequence[Field]) -> None:
        self._fields = 0
        function = nvml.function("nvmlDeviceGetFieldValues")
        if function is None or not fields:
            return
        get = self._prepare_fields(function, fields)
        if not self._supported("nvmlDeviceGetFieldValues", get()):
            return
        answered = []
        for field, (_, _, _, _, kind, code, _) in zip(fields, _FIELD.iter_unpack(self._array), strict=True):
            if self._supported(f"nvmlDeviceGetFieldValues {field.id}", code) and 0 <= kind < len(_TYPES):
                answered.append((field, kind))
        self._get_fields = self._prepare_fields(function, [field for field, _ in answered])
        self._fields = len(answered)
        self._types = tuple(kind for _, kind in answered)
        self._field_layout = struct.Struct("=" + "".join(f"24xii{_TYPES[kind]}" for kind in self._types))
        self.names += tuple(field.name for field, _ in answered)

    def _prepare_fields(self, function: Callable[..., int], fields: Sequence[Field]) -> Callable[[], int]:
        self._array = ctypes.create_string_buffer(_FIELD.size * len(fields))
        for place, field in enumerate(fields):
            _FIELD.pack_into(self._array, place * _FIELD.size, field.id, field.scope, 0, 0, 0, 0, 0)
        return functools.partial(function, self.device.handle, ctypes.c_int(len(fields)), ctypes.byref(self._array))

    def _supported(self, call: str, code: int) -> bool:
        """Whether it is worth asking again. What failed for another reason may work the next time."""
        check(call, code)
        if code == NO_PERMISSION:
            self.denied.append(call)
        return code not in UNSUPPORTED


def check(call: str, code: int) -> None:
    """Raises Failure for an error that concerns the whole device or library, not this value alone."""
    if code in LOST or code in DEAD:
        raise Failure(call, code)


def _size(output: str) -> int:
    return struct.calcsize(f"={output}")
