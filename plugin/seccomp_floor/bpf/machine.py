"""Run a filter as the kernel does, on one system call: the plain meaning of a program, which every proof is checked against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.program import Program, ProgramError, strictest

__all__ = ["SeccompData", "alu", "run", "run_stack", "words_of"]

U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class SeccompData:
    """``struct seccomp_data``: number and AUDIT_ARCH (32 bits each), instruction pointer and six arguments (64 bits each)."""

    nr: int
    arch: int
    instruction_pointer: int = 0
    args: tuple[int, ...] = (0,) * 6

    @classmethod
    def of_words(cls, words: Sequence[int], *, little_endian: bool = True) -> SeccompData:
        """The opposite of :func:`words_of`."""
        first, second = (0, 32) if little_endian else (32, 0)
        ip, *args = (words[n] << first | words[n + 1] << second for n in range(2, 16, 2))
        return cls(words[0], words[1], ip, tuple(args))


def words_of(data: SeccompData, *, little_endian: bool = True) -> tuple[int, ...]:
    """The sixteen 32-bit words that a filter can load, in order; big-endian machines have the high halves first."""
    words = [data.nr & U32, data.arch & U32]
    for value in (data.instruction_pointer, *data.args):
        low, high = value & U32, value >> 32 & U32
        words += (low, high) if little_endian else (high, low)
    return tuple(words)


def run(program: Program, data: SeccompData, *, little_endian: bool = True) -> int:
    """What the program returns, 32 bits.

    Facts of the kernel that programs can lean on: A and X start as 0, arithmetic is modulo 2^32, and a division by an X of 0 ends
    the program with 0 (which kills). A shift by X takes it modulo 32, as the kernel's interpreter does, and its compilers for
    most machines.

    :param program: one that :func:`~seccomp_floor.bpf.program.check` accepts
    :raises ProgramError: at an instruction that is none
    """
    words = words_of(data, little_endian=little_endian)
    a = x = pc = 0
    cells = [0] * op.CELLS
    while pc < len(program):
        code, jt, jf, k = program[pc]
        pc += 1
        operand = x if code & op.X else k
        if code in op.CONDITIONAL:
            pc += jt if COMPARE[code & ~op.X](a, operand) else jf
        elif code in op.ARITHMETIC:
            if code == op.DIV | op.X and x == 0:
                return 0
            a = alu(code & ~op.X, a, operand)
        else:
            match code:
                case op.LD_ABS:
                    a = words[k >> 2]
                case op.RET_K:
                    return k
                case op.RET_A:
                    return a
                case op.JA:
                    pc += k
                case op.LD_IMM:
                    a = k
                case op.LDX_IMM:
                    x = k
                case op.LD_LEN:
                    a = op.DATA_SIZE
                case op.LDX_LEN:
                    x = op.DATA_SIZE
                case op.LD_MEM:
                    a = cells[k]
                case op.LDX_MEM:
                    x = cells[k]
                case op.ST:
                    cells[k] = a
                case op.STX:
                    cells[k] = x
                case op.TAX:
                    x = a
                case op.TXA:
                    a = x
                case op.NEG:
                    a = -a & U32
                case _:
                    raise ProgramError(f"instruction {pc - 1}: opcode {code:#06x} is not one that seccomp admits")
    raise ProgramError("the program ends without a return")


def run_stack(programs: Sequence[Program], data: SeccompData, *, little_endian: bool = True) -> int:
    """What stacked filters return together. :param programs: from the oldest to the newest, as they were loaded."""
    return strictest(run(program, data, little_endian=little_endian) for program in reversed(programs))


def alu(code: int, a: int, operand: int) -> int:
    """One arithmetic instruction (without the X bit) on constants; the operand of DIV is not 0."""
    return ARITHMETIC[code](a, operand) & U32


ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    op.ADD: lambda a, b: a + b,
    op.SUB: lambda a, b: a - b,
    op.MUL: lambda a, b: a * b,
    op.DIV: lambda a, b: a // b,
    op.OR: lambda a, b: a | b,
    op.AND: lambda a, b: a & b,
    op.XOR: lambda a, b: a ^ b,
    op.LSH: lambda a, b: a << (b & 31),
    op.RSH: lambda a, b: a >> (b & 31),
}

COMPARE: dict[int, Callable[[int, int], bool]] = {
    op.JEQ: lambda a, b: a == b,
    op.JGT: lambda a, b: a > b,
    op.JGE: lambda a, b: a >= b,
    op.JSET: lambda a, b: a & b != 0,
}
