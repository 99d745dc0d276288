"""A program as a graph of decisions: what is left of it once everything that does not depend on the system call is worked out.

Compilers of seccomp filters ask one kind of question: is a 32-bit word of ``seccomp_data``, perhaps masked, equal to a constant,
or at least that? Running a program with *the word itself* in the accumulator instead of a number leaves exactly these questions;
loads, moves, masks and jumps vanish. What a program does beyond that (arithmetic, two words combined) is left to
:mod:`seccomp_floor.bpf.bits`, which is exact for everything but slower.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.machine import COMPARE, U32, alu
from seccomp_floor.bpf.program import Program

__all__ = ["Decisions", "Intricate", "Test", "unfold"]

MOST_STEPS = 200_000
"""Instructions looked at before a program counts as intricate. Real ones need each instruction once."""


class Intricate(Exception):  # noqa: N818 (not an error: the slower engine takes over)
    """The program asks, or grows into, more than this representation holds."""


Test = tuple[int, int, int, bool]
"""``(word, mask, k, ordered)``: whether ``word & mask`` is at least ``k`` (``ordered``) or equal to it."""

Node = tuple[int, int, int, int]
"""``(number, test, yes, no)``: a decision. ``test`` is its place among the tests, -1 for none (the way leads on by ``yes``);
``yes`` and ``no`` are the number of the node that follows, or the bitwise complement of the value returned: a negative number."""


class Decisions(NamedTuple):
    """A program's decisions, each before those that follow it. ``first``: where it starts, as in :data:`Node`."""

    first: int
    nodes: list[Node]
    tests: list[Test]


Value = int | tuple[int, int]
"""What a register holds: a constant, or a word under a mask that is not 0."""

Registers = tuple[Value, Value, tuple[Value, ...]]


@lru_cache(maxsize=8)
def unfold(program: Program) -> Decisions:
    """The decisions of a program that the kernel accepts.

    :raises Intricate: where it computes more than masks, or in too many ways
    """
    arrivals: list[dict[Registers, int]] = [{} for _ in program]
    tests: dict[Test, int] = {}
    nodes: list[Node] = []
    count = steps = 0

    def follow(target: int, registers: Registers) -> int:
        nonlocal count
        code, _, _, k = program[target]
        if code == op.RET_K:
            return ~k
        known = arrivals[target]
        number = known.get(registers)
        if number is None:
            number = known[registers] = count
            count += 1
        return number

    first = follow(0, (0, 0, ()))
    for start, known in enumerate(arrivals):  # jumps lead forward only, so whatever arrives here has been found before
        for registers, number in known.items():
            a, x, cells = registers
            pc = start
            while True:
                steps += 1
                if steps > MOST_STEPS:
                    raise Intricate
                code, jt, jf, k = program[pc]
                pc += 1
                if code in op.CONDITIONAL:
                    asked = _ask(code & ~op.X, a, x if code & op.X else k)
                    if isinstance(asked, bool):
                        pc += jt if asked else jf
                        continue
                    test, negated = asked
                    if negated:
                        jt, jf = jf, jt
                    registers = (a, x, cells)
                    yes, no = follow(pc + jt, registers), follow(pc + jf, registers)
                    nodes.append((number, tests.setdefault(test, len(tests)), yes, no))
                    break
                if code == op.LD_ABS:
                    a = (k >> 2, U32)
                elif code == op.JA:
                    pc += k
                elif code == op.RET_K or code == op.RET_A or (code == op.DIV | op.X and x == 0):
                    value = k if code == op.RET_K else a if code == op.RET_A else 0
                    if isinstance(value, tuple):
                        raise Intricate
                    nodes.append((number, -1, ~value, ~value))
                    break
                elif code in op.ARITHMETIC:
                    a = _compute(code & ~op.X, a, x if code & op.X else k)
                elif code == op.NEG:
                    a = _compute(op.SUB, 0, a)
                else:
                    a, x, cells = _move(code, k, a, x, cells)
    return Decisions(first, nodes, list(tests))


def _ask(code: int, left: Value, right: Value) -> tuple[Test, bool] | bool:
    """A comparison as a test, with whether it must fail for the jump to be taken; or as the answer, where that is always the
    same."""
    if not isinstance(right, int):
        raise Intricate
    if isinstance(left, int):
        return COMPARE[code](left, right)
    word, mask = left
    if code == op.JEQ:
        return False if right & ~mask else ((word, mask, right, False), False)
    if code == op.JSET:
        return ((word, mask & right, 0, False), True) if mask & right else False
    least = right + 1 if code == op.JGT else right
    if least == 0:
        return True
    return False if least > mask else ((word, mask, least, True), False)


def _compute(code: int, left: Value, right: Value) -> Value:
    if isinstance(right, int):
        if isinstance(left, int):
            if code in (op.LSH, op.RSH) and right >= 32:
                raise Intricate  # not the same on every machine
            return alu(code, left, right)
        word, mask = left
        if code == op.AND:
            return (word, mask & right) if mask & right else 0
    raise Intricate


def _move(code: int, k: int, a: Value, x: Value, cells: tuple[Value, ...]) -> Registers:
    match code:
        case op.LD_IMM:
            a = k
        case op.LDX_IMM:
            x = k
        case op.LD_LEN:
            a = op.DATA_SIZE
        case op.LDX_LEN:
            x = op.DATA_SIZE
        case op.TAX:
            x = a
        case op.TXA:
            a = x
        case op.LD_MEM:
            a = cells[k]
        case op.LDX_MEM:
            x = cells[k]
        case op.ST | op.STX:
            cells = cells or (0,) * op.CELLS
            cells = (*cells[:k], a if code == op.ST else x, *cells[k + 1 :])
        case _:
            raise AssertionError(f"opcode {code:#06x} passed the check")
    return a, x, cells
