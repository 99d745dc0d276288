"""The meaning of a filter in the words of an SMT solver, written apart from the code that it judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import z3

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.program import Program
from seccomp_floor.doors import Door

WORDS: list[z3.BitVecRef] = [z3.BitVec(f"word{n}", 32) for n in range(16)]
NR, ARCH = WORDS[0], WORDS[1]


def number(value: int) -> z3.BitVecNumRef:
    """A constant of 32 bits."""
    return z3.BitVecVal(value, 32)


COMPARE: dict[int, Callable[[z3.BitVecRef, z3.BitVecRef], z3.BoolRef]] = {
    op.JEQ: lambda a, operand: a == operand,
    op.JGT: z3.UGT,
    op.JGE: z3.UGE,
    op.JSET: lambda a, operand: a & operand != 0,
}


def returned(program: Program) -> z3.BitVecRef:
    """What a program returns, as a term over the sixteen words.

    Built from its end: what is returned from an instruction on depends on the registers there, so it is a function of them. Here
    every way is joined where ways meet, with the condition on which it is taken.
    """
    zero = number(0)
    waiting: list[list[tuple[z3.BoolRef, list[z3.BitVecRef]]]] = [[] for _ in program]
    waiting[0].append((z3.BoolVal(True), [zero] * 18))  # A, X, then the cells
    results: list[tuple[z3.BoolRef, z3.BitVecRef]] = []
    for pc, (code, jt, jf, k) in enumerate(program):
        arrived = waiting[pc]
        if not arrived:
            continue
        here = z3.Or(*(condition for condition, _ in arrived)) if len(arrived) > 1 else arrived[0][0]
        registers = arrived[0][1]
        for condition, others in arrived[1:]:
            registers = [
                one if one.eq(other) else z3.If(condition, other, one)
                for one, other in zip(registers, others, strict=True)
            ]
        registers = list(registers)
        a, x = registers[:2]
        operand = x if code & op.X and code & 7 in (4, 5) else number(k)
        if code == op.RET_K:
            results.append((here, number(k)))
            continue
        if code == op.RET_A:
            results.append((here, a))
            continue
        if code & 7 == 5:
            if code == op.JA:
                waiting[pc + 1 + k].append((here, registers))
                continue
            holds = COMPARE[code & ~op.X](a, operand)
            waiting[pc + 1 + jt].append((z3.And(here, holds), registers))
            waiting[pc + 1 + jf].append((z3.And(here, z3.Not(holds)), registers))
            continue
        if code == op.DIV | op.X:
            results.append((z3.And(here, x == 0), zero))
            here = z3.And(here, x != 0)
        match code & ~op.X if code & 7 == 4 else code:
            case op.LD_ABS:
                registers[0] = WORDS[k // 4]
            case op.LD_LEN:
                registers[0] = number(64)
            case op.LDX_LEN:
                registers[1] = number(64)
            case op.LD_IMM:
                registers[0] = number(k)
            case op.LDX_IMM:
                registers[1] = number(k)
            case op.LD_MEM:
                registers[0] = registers[2 + k]
            case op.LDX_MEM:
                registers[1] = registers[2 + k]
            case op.ST:
                registers[2 + k] = a
            case op.STX:
                registers[2 + k] = x
            case op.TAX:
                registers[1] = a
            case op.TXA:
                registers[0] = x
            case op.ADD:
                registers[0] = a + operand
            case op.SUB:
                registers[0] = a - operand
            case op.MUL:
                registers[0] = a * operand
            case op.DIV:
                registers[0] = z3.UDiv(a, operand)
            case op.OR:
                registers[0] = a | operand
            case op.AND:
                registers[0] = a & operand
            case op.XOR:
                registers[0] = a ^ operand
            case op.LSH:
                registers[0] = a << (operand & 31)
            case op.RSH:
                registers[0] = z3.LShR(a, operand & 31)
            case op.NEG:
                registers[0] = -a
            case _:
                raise AssertionError(f"opcode {code:#x}")
        waiting[pc + 1].append((here, registers))
    value = results[0][1]
    for condition, result in results[1:]:
        value = z3.If(condition, result, value)
    return value


def action(value: z3.BitVecRef) -> z3.BitVecRef:
    """The upper half of a return value."""
    return value & number(0xFFFF_0000)


def winner(values: Sequence[z3.BitVecRef]) -> z3.BitVecRef:
    """What stacked filters return together, given from the newest to the oldest."""
    best = number(0x7FFF_0000)
    for value in values:
        best = z3.If(action(value) < action(best), value, best)  # signed, as the kernel compares
    return best


def passes(value: z3.BitVecRef) -> z3.BoolRef:
    """Whether a call that gets this value can be made: USER_NOTIF, TRACE, LOG or ALLOW."""
    return z3.Or(*(action(value) == number(known) for known in (0x7FC0_0000, 0x7FF0_0000, 0x7FFC_0000, 0x7FFF_0000)))


def observed(value: z3.BitVecRef) -> z3.BitVecRef:
    """A return value with all taken away that nobody can observe."""
    kind, data = action(value), value & number(0xFFFF)
    errno = number(0x5_0000) | z3.If(z3.UGT(data, 4095), number(4095), data)
    bare = z3.Or(*(kind == number(known) for known in (0, 0x8000_0000, 0x7FC0_0000, 0x7FFC_0000, 0x7FFF_0000)))
    with_data = z3.Or(kind == number(0x3_0000), kind == number(0x7FF0_0000))
    return z3.If(kind == number(0x5_0000), errno, z3.If(with_data, value, z3.If(bare, kind, number(0x8000_0000))))


def at(value: z3.BitVecRef, words: Sequence[int]) -> z3.BitVecRef:
    """A term for given words."""
    return z3.substitute(value, *((word, number(known)) for word, known in zip(WORDS, words, strict=True)))


def entrance(door: Door) -> z3.BoolRef:
    """All calls through a door, in the solver's words."""
    through = [number(door.abi.audit_arch) == ARCH, number(door.number) == NR]
    if door.value is not None:
        low = 4 + 2 * door.argument + (0 if door.abi.little_endian else 1)
        through.append(number(door.value) == WORDS[low])
    return z3.And(*through)


def model_words(solver: z3.Solver) -> list[int]:
    """The words of the solver's example."""
    model = solver.model()
    return [model.eval(word, model_completion=True).as_long() for word in WORDS]


def among(word: z3.BitVecRef, ranges: Iterable[tuple[int, int]]) -> z3.BoolRef:
    """Whether a word is in one of these ranges."""
    return z3.Or(*(z3.And(z3.UGE(word, first), z3.ULE(word, last)) for first, last in ranges))
