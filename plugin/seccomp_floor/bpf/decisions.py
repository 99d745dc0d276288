"""A program as a graph of decisions: what is left of it once everything that does not depend on the system call is worked out.

Compilers of seccomp filters ask one kind of question: is a 32-bit word of ``seccomp_data``, perhaps masked, equal to a constant,
or at least that? Running a program with *the word itself* in the accumulator instead of a number leaves exactly these questions;
loads, moves, masks and jumps vanish. What a program does beyond that (arithmetic, two words combined) is left to
:mod:`seccomp_floor.bpf.bits`, which is exact for everything but slower.
"""

from __future__ import annotations

from typing import NamedTuple

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.machine import COMPARE, U32, alu
from seccomp_floor.bpf.program import Program

__all__ = ["Decisions", "Intricate", "Node", "Test", "unfold"]

MOST_STEPS = 200_000
"""Instructions looked at before a program counts as intricate. Real ones need each instruction once."""


class Intricate(Exception):  # noqa: N818 (not an error: the slower engine takes over)
    """The program asks, or grows into, more than this representation holds."""


class Test(NamedTuple):
    """Whether ``word & mask`` is at least ``k`` (``ordered``) or equal to it."""

    word: int
    mask: int
    k: int
    ordered: bool


class Node(NamedTuple):
    """A decision. ``test``: its index, -1 for none (the way leads on by ``yes``). ``yes``, ``no``: the number of the node that
    follows, or the bitwise complement of the value returned, which is negative."""

    number: int
    test: int
    yes: int
    no: int


class Decisions(NamedTuple):
    """A program's decisions, each before those that follow it. ``first``: where it starts, as in :class:`Node`."""

    first: int
    nodes: list[Node]


Value = int | tuple[int, int]
"""What a register holds: a constant, or a word under a mask that is not 0."""

Registers = tuple[Value, Value, tuple[Value, ...]]


def unfold(program: Program, tests: dict[Test, int]) -> Decisions:
    """The decisions of a program that the kernel accepts.

    :param tests: numbers of the tests; those met for the first time are added
    :raises Intricate: where it computes more than masks, or in too many ways
    """
    arrivals: list[dict[Registers, int]] = [{} for _ in program]
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
    nodes = []
    for start, known in enumerate(arrivals):  # jumps lead forward only, so whatever arrives here has been found before
        for (a, x, cells), number in known.items():
            pc = start
            while True:
                steps += 1
                if steps > MOST_STEPS:
                    raise Intricate
                code, jt, jf, k = program[pc]
                pc += 1
                if code == op.LD_ABS:
                    a = (k >> 2, U32)
                elif code in op.CONDITIONAL:
                    operand = x if code & op.X else k
                    if isinstance(operand, tuple):
                        raise Intricate
                    if isinstance(a, int):
                        pc += jt if COMPARE[code & ~op.X](a, operand) else jf
                        continue
                    asked = _ask(code & ~op.X, *a, operand)
                    if isinstance(asked, bool):
                        pc += jt if asked else jf
                        continue
                    test, negated = asked
                    if negated:
                        jt, jf = jf, jt
                    registers = (a, x, cells)
                    yes, no = follow(pc + jt, registers), follow(pc + jf, registers)
                    nodes.append(Node(number, tests.setdefault(test, len(tests)), yes, no))
                    break
                elif code == op.RET_K:
                    nodes.append(Node(number, -1, ~k, ~k))
                    break
                elif code == op.RET_A:
                    if isinstance(a, tuple):
                        raise Intricate
                    nodes.append(Node(number, -1, ~a, ~a))
                    break
                elif code in op.ARITHMETIC:
                    operand = x if code & op.X else k
                    if isinstance(operand, int) and isinstance(a, int):
                        if code == op.DIV | op.X and operand == 0:
                            nodes.append(Node(number, -1, ~0, ~0))
                            break
                        a = alu(code & ~op.X, a, operand)
                    elif isinstance(operand, int) and isinstance(a, tuple) and code & ~op.X == op.AND:
                        word, mask = a
                        a = (word, mask & operand) if mask & operand else 0
                    else:
                        raise Intricate
                elif code == op.JA:
                    pc += k
                elif code == op.NEG:
                    if isinstance(a, tuple):
                        raise Intricate
                    a = -a & U32
                else:
                    a, x, cells = _move(code, k, a, x, cells)
    return Decisions(first, nodes)


def _ask(code: int, word: int, mask: int, k: int) -> tuple[Test, bool] | bool:
    """A comparison of a masked word with a constant as a test, with whether it must fail for the jump to be taken; or as the
    answer, where that is always the same."""
    if code == op.JEQ:
        return False if k & ~mask else (Test(word, mask, k, False), False)
    if code == op.JSET:
        return (Test(word, mask & k, 0, False), True) if mask & k else False
    least = k + 1 if code == op.JGT else k
    if least == 0:
        return True
    return False if least > mask else (Test(word, mask, least, True), False)


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
