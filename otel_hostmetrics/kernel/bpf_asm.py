"""An assembler for the few BPF instructions our iterator programs consist of (Documentation/bpf/standardization/instruction-set.rst).

    code = Code()
    code.load(R7, R1, 8, 8)  # r7 = *(u64 *)(r1 + 8)
    code.jump_if("==", R7, 0, "end")
    ...
    code.label("end")
    code.set(R0, 0)
    code.exit()
    code.assemble()

An instruction is 8 bytes: opcode, two register numbers in one byte, a 16-bit offset and a 32-bit immediate, all in the
machine's byte order.
"""

from __future__ import annotations

import enum
import struct
import sys
from typing import Final


class Register(enum.IntEnum):
    """R0: result. R1-R5: arguments, lost in a call. R6-R9: kept over calls. R10: end of the 512 byte stack, read-only."""

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)


R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = Register

# Helpers, enum bpf_func_id, with the first kernel that lets a tracing program call them
GET_CURRENT_PID_TGID: Final = 14  # u64 (void): tgid << 32 | pid in the initial namespace [4.2]
PROBE_READ_KERNEL: Final = 113  # (to, size, from): fills *to* with zeros if it faults [5.5]
PROBE_READ_KERNEL_STR: Final = 115  # the same up to and with the next 0 byte; zeroes nothing behind it [5.5]
SEQ_WRITE: Final = 127  # (seq_file, from, size) [5.8]
MAP_LOOKUP_PERCPU_ELEM: Final = 195  # void * (map, key, cpu) [5.19]

_LDX, _ST, _STX = 0x61, 0x62, 0x63  # with the 32-bit size; the size bits are added
_SIZES: Final = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE, _PSEUDO_KFUNC = 1, 2, 2  # in the source register: what the immediate means [5.2, 5.13]
_ALU64_IMM, _ALU64_REG = 0x07, 0x0F  # ADD; other operations are added
_ADD, _SHIFT_LEFT, _SHIFT_RIGHT, _MOVE = 0x00, 0x60, 0x70, 0xB0
_JUMP, _CALL, _EXIT = 0x05, 0x85, 0x95
_JUMPS: Final = {"==": 0x15, ">=": 0x35, "!=": 0x55, "<": 0xA5}  # against an immediate, 64 bits, unsigned
_AGAINST_REGISTER: Final = 0x08


def instruction(opcode: int, to: int = 0, source: int = 0, offset: int = 0, immediate: int = 0, order: str = sys.byteorder) -> bytes:
    """One ``struct bpf_insn``. The registers are bit-fields, so a big-endian machine has them the other way round."""
    little = order == "little"
    registers = source << 4 | to if little else to << 4 | source
    return struct.pack("<BBhi" if little else ">BBhi", opcode, registers, offset, _signed(immediate))


def _signed(value: int) -> int:
    """A 32-bit immediate given as an unsigned or a signed number."""
    return value - (1 << 32) if 1 << 31 <= value < 1 << 32 else value


class Code:
    """A program in the making. *order* is the byte order of the machine it is for."""

    def __init__(self, order: str = sys.byteorder) -> None:
        self._order = order
        self._instructions: list[bytes] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str, int, int, int, int]] = []

    def _add(self, opcode: int, to: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> None:
        self._instructions.append(instruction(opcode, to, source, offset, immediate, self._order))

    def load(self, to: Register, base: Register, offset: int, size: int) -> None:
        """``to = *(base + offset)``, *size* bytes, zero-extended."""
        self._add(_LDX | _SIZES[size], to, base, offset)

    def store(self, base: Register, offset: int, source: Register | int, size: int) -> None:
        """``*(base + offset) = source``, *size* bytes of a register or a 32-bit number."""
        if isinstance(source, Register):
            self._add(_STX | _SIZES[size], base, source, offset)
        else:
            self._add(_ST | _SIZES[size], base, 0, offset, source)

    def _alu(self, operation: int, to: Register, operand: Register | int) -> None:
        if isinstance(operand, Register):
            self._add(operation | _ALU64_REG, to, operand)
        else:
            self._add(operation | _ALU64_IMM, to, immediate=operand)

    def set(self, to: Register, operand: Register | int) -> None:
        """``to = operand``; a number is 32-bit and sign-extended."""
        self._alu(_MOVE, to, operand)

    def add(self, to: Register, operand: Register | int) -> None:
        self._alu(_ADD, to, operand)

    def shift_left(self, to: Register, bits: int) -> None:
        self._alu(_SHIFT_LEFT, to, bits)

    def shift_right(self, to: Register, bits: int) -> None:
        self._alu(_SHIFT_RIGHT, to, bits)

    def _wide(self, to: Register, kind: int, low: int, high: int) -> None:
        """The one instruction of 16 bytes."""
        self._add(_LD_IMM64, to, kind, immediate=low)
        self._add(0, immediate=high)

    def set_wide(self, to: Register, value: int) -> None:
        """``to = value``, 64 bits."""
        self._wide(to, 0, value & 0xFFFFFFFF, value >> 32)

    def set_map(self, to: Register, descriptor: int) -> None:
        """``to`` = the map, as helpers take it. The loaded program holds the map from then on."""
        self._wide(to, _PSEUDO_MAP_FD, descriptor, 0)

    def set_map_value(self, to: Register, descriptor: int) -> None:
        """``to`` = address of the first element of an array map [5.2]."""
        self._wide(to, _PSEUDO_MAP_VALUE, descriptor, 0)

    def call(self, helper: int) -> None:
        self._add(_CALL, immediate=helper)

    def call_kernel(self, function: int) -> None:
        """Call a kernel function by the type id of its FUNC in vmlinux' BTF [5.13]."""
        self._add(_CALL, source=_PSEUDO_KFUNC, immediate=function)

    def jump(self, label: str) -> None:
        self._jump(_JUMP, label)

    def jump_if(self, condition: str, register: Register, operand: Register | int, label: str) -> None:
        """Jump if ``register condition operand``: ``==``, ``!=``, ``>=`` or ``<``, 64 bits, unsigned."""
        if isinstance(operand, Register):
            self._jump(_JUMPS[condition] | _AGAINST_REGISTER, label, register, operand)
        else:
            self._jump(_JUMPS[condition], label, register, 0, operand)

    def _jump(self, opcode: int, label: str, to: int = 0, source: int = 0, immediate: int = 0) -> None:
        self._jumps.append((len(self._instructions), label, opcode, to, source, immediate))
        self._instructions.append(b"")

    def label(self, name: str) -> None:
        """The next instruction is *name*. Backward jumps (loops) need 5.3."""
        if name in self._labels:
            raise ValueError(f"label {name!r} is set twice")
        self._labels[name] = len(self._instructions)

    def exit(self) -> None:
        self._add(_EXIT)

    def assemble(self) -> bytes:
        """The program. Raises KeyError for a label that was never set, struct.error for a jump beyond 32767 instructions."""
        instructions = list(self._instructions)
        for at, label, opcode, to, source, immediate in self._jumps:
            instructions[at] = instruction(opcode, to, source, self._labels[label] - at - 1, immediate, self._order)
        return b"".join(instructions)
