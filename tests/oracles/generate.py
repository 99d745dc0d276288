"""Programs and filters that nobody wrote: hypothesis strategies, and random ones where thousands are needed at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.program import (
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_PROCESS,
    RET_KILL_THREAD,
    RET_LOG,
    RET_TRACE,
    RET_TRAP,
    RET_USER_NOTIF,
    Instruction,
    Program,
    ProgramError,
    check,
)


def examples(most: int) -> Callable[[Any], Any]:
    """Settings for so many examples in continuous integration, the same each time, so that it is a change that makes one fail; and
    for an eighth of them elsewhere, others each time."""
    in_ci = os.environ.get("CI") == "true"
    count = most if in_ci else max(1, most // 8)
    return settings(max_examples=count, derandomize=in_ci, deadline=None, suppress_health_check=list(HealthCheck))


# What tests are likely to be about: numbers and families of the doors, architectures, edges of words and of x32's numbers.
CONSTANTS = (
    0, 1, 2, 3, 5, 8, 16, 38, 39, 40, 41, 53, 102, 359, 360, 425, 426, 427, 0x1AB, 0x0FFF_FFFF, 0x3FFF_FFFF, 0x4000_0000,
    0x4000_0029, 0x4000_0035, 0x8000_0000, 0xBFFF_FFFF, 0xC000_0000, 0x4000_0003, 0xC000_003E, 0x8000_0016, 0x16, 0xC000_00B7,
    0xFFFF_FFFF, 0x7FFF_FFFF, 0xFF, 0xFFF0, 0xFFFF, 0xFFFF_0000, 0x7E02_0000,
)  # fmt: skip
RETURNS = (
    RET_ALLOW, RET_ALLOW | 5, RET_ERRNO | 1, RET_ERRNO | 38, RET_ERRNO | 97, RET_ERRNO | 4095, RET_ERRNO | 5000, RET_KILL_THREAD,
    RET_KILL_PROCESS, RET_TRAP | 3, RET_TRACE | 7, RET_USER_NOTIF, RET_LOG, 0x7FF8_0000, 0x1234_5678, 0x9000_0001,
)  # fmt: skip
WORDS = (0, 0, 0, 1, 1, 4, 4, 4, 5, 5, 6, 7, 2, 3, 15)
CELLS = 3

_constant = st.sampled_from(CONSTANTS) | st.integers(0, 0xFFFF_FFFF)
_skip = st.integers(0, 6)


def _one(code: st.SearchStrategy[int] | int, k: st.SearchStrategy[int] | int = 0) -> st.SearchStrategy[Instruction]:
    codes = st.just(code) if isinstance(code, int) else code
    operands = st.just(k) if isinstance(k, int) else k
    return st.builds(lambda code, k: Instruction(code, 0, 0, k), codes, operands)


_load = _one(op.LD_ABS, st.sampled_from([4 * word for word in WORDS]))
_compare = st.builds(Instruction, st.sampled_from([op.JEQ, op.JEQ, op.JGT, op.JGE, op.JSET]), _skip, _skip, _constant)
_compare_x = st.builds(
    lambda code, jt, jf: Instruction(code | op.X, jt, jf, 0),
    st.sampled_from([op.JEQ, op.JGT, op.JGE, op.JSET]),
    _skip,
    _skip,
)
_and = _one(op.AND, _constant)
_return = _one(op.RET_K, st.sampled_from(RETURNS))
_jump = _one(op.JA, st.integers(0, 3))
_cell = st.integers(0, CELLS - 1)
_move = st.one_of(
    _one(st.sampled_from([op.TAX, op.TXA, op.LD_LEN, op.LDX_LEN])),
    _one(st.sampled_from([op.LD_IMM, op.LDX_IMM]), _constant),
    _one(st.sampled_from([op.ST, op.STX, op.LD_MEM, op.LDX_MEM]), _cell),
)
_arithmetic = st.one_of(
    _one(st.sampled_from([op.ADD, op.SUB, op.OR, op.XOR, op.AND]), _constant),
    _one(st.sampled_from([op.LSH, op.RSH]), st.integers(0, 31)),
    _one(st.sampled_from([op.MUL, op.DIV]), st.sampled_from([1, 2, 3, 5, 10, 0x100, 0x1_0000])),
    _one(st.sampled_from([code | op.X for code in (op.ADD, op.SUB, op.OR, op.XOR, op.AND, op.LSH, op.RSH, op.DIV)])),
    _one(op.NEG),
)


def assembled(body: list[Instruction], last: Instruction) -> Program:
    """A program that the kernel accepts: every cell stored first, jumps cut to its length."""
    instructions = [*(Instruction(op.ST, 0, 0, cell) for cell in range(CELLS)), *body, last]
    size = len(instructions)
    for pc, (code, jt, jf, k) in enumerate(instructions):
        left = size - pc - 2
        if code in op.CONDITIONAL:
            instructions[pc] = Instruction(code, min(jt, left), min(jf, left), k)
        elif code == op.JA:
            instructions[pc] = Instruction(code, 0, 0, min(k, left))
    made = tuple(instructions)
    check(made)
    return made


compiled_like = st.builds(
    assembled,
    st.lists(st.one_of(_load, _load, _compare, _compare, _compare, _and, _return, _jump, _move), max_size=40),
    _return,
)
"""Programs of the kind that compilers emit: masks, comparisons with constants, moves."""

anything = st.builds(
    assembled,
    st.lists(
        st.one_of(_load, _load, _compare, _compare_x, _and, _return, _jump, _move, _arithmetic, _arithmetic),
        max_size=16,
    ),
    _return | _one(op.RET_A),
)
"""Programs with all that the kernel admits."""


def mutated(program: Program, random: Random) -> Program:
    """The program after an accident that leaves it acceptable: an instruction lost, a jump led elsewhere, a constant changed."""
    while True:
        instructions = list(program)
        pc = random.randrange(len(instructions))
        code, jt, jf, k = instructions[pc]
        match random.randrange(4):
            case 0:
                del instructions[pc]
            case 1:
                instructions[pc] = Instruction(code, random.randrange(16), jf, k)
            case 2:
                instructions[pc] = Instruction(code, jt, random.randrange(16), k)
            case _:
                other = random.choice([*CONSTANTS, *RETURNS, k ^ 1 << random.randrange(32), (k + 1) & 0xFFFF_FFFF])
                instructions[pc] = Instruction(code, jt, jf, other)
        made = tuple(instructions)
        try:
            check(made)
        except ProgramError:
            continue
        if made != program:
            return made


def random_program(
    random: Random, words: tuple[int, ...], constants: tuple[int, ...], returns: tuple[int, ...]
) -> Program:
    """A program with all that the kernel admits, about these words and constants."""

    def skip() -> int:
        return random.randrange(7)

    def constant() -> int:
        return random.choice(constants) if random.random() < 0.8 else random.getrandbits(32)

    def one() -> Instruction:
        kind = random.random()
        if kind < 0.28:
            return Instruction(op.LD_ABS, 0, 0, 4 * random.choice(words))
        if kind < 0.55:
            return Instruction(random.choice([op.JEQ, op.JEQ, op.JGT, op.JGE, op.JSET]), skip(), skip(), constant())
        if kind < 0.60:
            return Instruction(random.choice([op.JEQ, op.JGT, op.JGE, op.JSET]) | op.X, skip(), skip(), 0)
        if kind < 0.64:
            return Instruction(op.JA, 0, 0, random.randrange(4))
        if kind < 0.72:
            return Instruction(op.RET_K, 0, 0, random.choice(returns))
        if kind < 0.84:
            code = random.choice(
                [
                    op.TAX,
                    op.TXA,
                    op.LD_LEN,
                    op.LDX_LEN,
                    op.LD_IMM,
                    op.LDX_IMM,
                    op.NEG,
                    op.ST,
                    op.STX,
                    op.LD_MEM,
                    op.LDX_MEM,
                ]
            )
            return Instruction(code, 0, 0, random.randrange(CELLS) if code in op.SCRATCH else constant())
        code = random.choice([op.ADD, op.SUB, op.MUL, op.DIV, op.OR, op.AND, op.LSH, op.RSH, op.XOR])
        if random.random() < 0.4:
            return Instruction(code | op.X, 0, 0, 0)
        return Instruction(code, 0, 0, random.randrange(32) if code in (op.LSH, op.RSH) else constant() or 1)

    body = [one() for _ in range(random.randrange(2, 40))]
    last = Instruction(op.RET_K, 0, 0, random.choice(returns))
    return assembled(body, last)
