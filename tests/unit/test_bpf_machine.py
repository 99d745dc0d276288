"""The interpreter on the instructions that are easily got wrong; the kernel's own answers are asked for elsewhere."""

from __future__ import annotations

import pytest

from oracles.assembly import ALLOW, load, plain, program, returns
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.machine import SeccompData, run, run_stack, words_of
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, RET_TRACE, Instruction, ProgramError

DATA = SeccompData(nr=41, arch=0xC000003E, instruction_pointer=0x1122334455667788, args=(1 << 32 | 40, 2, 3, 4, 5, 6))


def result(*instructions: Instruction) -> int:
    """What a program leaves in A."""
    return run(program(*instructions, plain(op.RET_A)), DATA)


@pytest.mark.parametrize(
    ("code", "a", "x", "expected"),
    [
        (op.ADD, 0xFFFF_FFFF, 2, 1),
        (op.SUB, 1, 2, 0xFFFF_FFFF),
        (op.MUL, 0x1_0001, 0x1_0000, 0x1_0000),
        (op.DIV, 0xFFFF_FFFF, 2, 0x7FFF_FFFF),
        (op.LSH, 1, 33, 2),
        (op.RSH, 0x8000_0000, 63, 1),
        (op.XOR, 0xF0F0, 0xFF00, 0x0FF0),
    ],
)
def test_arithmetic_is_that_of_32_bits(code: int, a: int, x: int, expected: int) -> None:
    assert result(plain(op.LD_IMM, a), plain(op.LDX_IMM, x), plain(code | op.X)) == expected


def test_a_division_by_an_x_of_0_ends_the_program_with_0() -> None:
    assert run(program(plain(op.LD_IMM, 5), plain(op.DIV | op.X), ALLOW), DATA) == 0


def test_registers_start_as_0() -> None:
    assert result() == 0
    assert result(plain(op.TXA)) == 0


def test_moves() -> None:
    assert result(load(0), plain(op.ST, 15), plain(op.LD_IMM, 0), plain(op.LDX_MEM, 15), plain(op.TXA)) == 41
    assert result(plain(op.LDX_IMM, 7), plain(op.STX, 0), plain(op.LD_MEM, 0)) == 7
    assert result(plain(op.LD_IMM, 7), plain(op.TAX), plain(op.LD_LEN), plain(op.SUB | op.X)) == 57
    assert result(plain(op.LD_IMM, 1), plain(op.NEG)) == 0xFFFF_FFFF


def test_big_endian_machines_have_the_high_half_first() -> None:
    assert words_of(DATA)[:6] == (41, 0xC000003E, 0x55667788, 0x11223344, 40, 1)
    assert words_of(DATA, little_endian=False)[:6] == (41, 0xC000003E, 0x11223344, 0x55667788, 1, 40)
    for little_endian in (False, True):
        assert SeccompData.of_words(words_of(DATA, little_endian=little_endian), little_endian=little_endian) == DATA
    assert run(program(load(4), plain(op.RET_A)), DATA, little_endian=False) == 1


def test_a_stack_is_given_as_it_was_loaded() -> None:
    oldest, newest = program(returns(RET_ERRNO | 1)), program(returns(RET_ERRNO | 2))
    assert run_stack([oldest, newest], DATA) == RET_ERRNO | 2
    assert run_stack([program(returns(RET_TRACE)), program(ALLOW)], DATA) == RET_TRACE
    assert run_stack([], DATA) == RET_ALLOW


def test_what_is_no_program() -> None:
    with pytest.raises(ProgramError, match="instruction 1: opcode 0x0028 is not one that seccomp admits"):
        run(program(load(0), plain(0x28), ALLOW), DATA)
    with pytest.raises(ProgramError, match="ends without a return"):
        run(program(load(0)), DATA)
