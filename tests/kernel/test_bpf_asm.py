"""The assembler against instructions encoded by hand from the instruction set's tables."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from otel_hostmetrics.kernel.bpf_asm import R0, R1, R2, R3, R7, R10, SEQ_WRITE, Code


@pytest.mark.parametrize(
    ("add", "little", "big"),
    [
        (lambda code: code.load(R7, R1, 8, 8), "79 17 0800 00000000", "79 71 0008 00000000"),  # r7 = *(u64 *)(r1 + 8)
        (lambda code: code.load(R2, R1, 6, 2), "69 12 0600 00000000", "69 21 0006 00000000"),
        (lambda code: code.load(R2, R1, 4, 4), "61 12 0400 00000000", "61 21 0004 00000000"),
        (lambda code: code.load(R2, R1, 3, 1), "71 12 0300 00000000", "71 21 0003 00000000"),
        (lambda code: code.store(R10, -8, R1, 8), "7b 1a f8ff 00000000", "7b a1 fff8 00000000"),
        (lambda code: code.store(R10, -4, R1, 4), "63 1a fcff 00000000", "63 a1 fffc 00000000"),
        (lambda code: code.store(R10, -8, 7, 8), "7a 0a f8ff 07000000", "7a a0 fff8 00000007"),
        (lambda code: code.set(R1, R10), "bf a1 0000 00000000", "bf 1a 0000 00000000"),
        (lambda code: code.set(R1, -1), "b7 01 0000 ffffffff", "b7 10 0000 ffffffff"),
        (lambda code: code.add(R1, -8), "07 01 0000 f8ffffff", "07 10 0000 fffffff8"),
        (lambda code: code.add(R3, R2), "0f 23 0000 00000000", "0f 32 0000 00000000"),
        (lambda code: code.shift_left(R2, 3), "67 02 0000 03000000", "67 20 0000 00000003"),
        (lambda code: code.shift_right(R0, 32), "77 00 0000 20000000", "77 00 0000 00000020"),
        (lambda code: code.call(SEQ_WRITE), "85 00 0000 7f000000", "85 00 0000 0000007f"),
        (lambda code: code.call_kernel(65082), "85 20 0000 3afe0000", "85 02 0000 0000fe3a"),
        (lambda code: code.set_map(R1, 5), "18 11 0000 05000000 00 00 0000 00000000", "18 11 0000 00000005 00 00 0000 00000000"),
        (lambda code: code.set_map_value(R2, 5), "18 22 0000 05000000 00 00 0000 00000000", "18 22 0000 00000005 00 00 0000 00000000"),
        (
            lambda code: code.set_wide(R3, 0xFFFFFFFF_81234567),
            "18 03 0000 67452381 00 00 0000 ffffffff",
            "18 30 0000 81234567 00 00 0000 ffffffff",
        ),
        (lambda code: code.exit(), "95 00 0000 00000000", "95 00 0000 00000000"),
    ],
)
def test_instructions_in_both_byte_orders(add: Callable[[Code], None], little: str, big: str) -> None:
    for order, expected in (("little", little), ("big", big)):
        code = Code(order)
        add(code)
        assert code.assemble() == bytes.fromhex(expected)


def _offsets(code: Code) -> list[int]:
    return [struct.unpack_from("<2xh", code.assemble(), at)[0] for at in range(0, len(code.assemble()), 8)]


def test_jumps_count_from_the_next_instruction() -> None:
    """Forwards, backwards, over an instruction of 16 bytes, and to the label right behind."""
    code = Code("little")
    code.label("start")
    code.jump_if("==", R1, 0, "end")
    code.set_wide(R2, 1)
    code.jump_if("<", R1, R2, "start")
    code.jump("end")
    code.label("end")
    code.exit()
    assert _offsets(code) == [4, 0, 0, -4, 0, 0]


@pytest.mark.parametrize(("condition", "opcode"), [("==", 0x15), ("!=", 0x55), (">=", 0x35), ("<", 0xA5)])
def test_conditions(condition: str, opcode: int) -> None:
    code = Code("little")
    code.jump_if(condition, R1, 9, "end")
    code.jump_if(condition, R1, R2, "end")
    code.label("end")
    assert code.assemble() == bytes([opcode, 1, 1, 0, 9, 0, 0, 0, opcode | 8, 0x21, 0, 0, 0, 0, 0, 0])


def test_labels_are_checked() -> None:
    code = Code()
    code.label("once")
    with pytest.raises(ValueError, match="once"):
        code.label("once")
    code.jump("never")
    with pytest.raises(KeyError, match="never"):
        code.assemble()


def test_a_jump_that_is_too_far_is_refused() -> None:
    code = Code()
    code.jump("end")
    for _ in range(1 << 15):
        code.exit()
    code.label("end")
    with pytest.raises(struct.error):
        code.assemble()


@pytest.mark.parametrize("value", [1 << 32, -(1 << 31) - 1])
def test_an_immediate_beyond_32_bits_is_refused(value: int) -> None:
    with pytest.raises(struct.error):
        Code().set(R1, value)
