"""Filters written down by hand, an instruction a line."""

from __future__ import annotations

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, Instruction, Program

NR, ARCH = 0, 1
ARG0_LOW, ARG0_HIGH, ARG1_LOW, ARG1_HIGH = 4, 5, 6, 7  # of a little-endian machine
ALLOW = Instruction(op.RET_K, 0, 0, RET_ALLOW)


def load(word: int) -> Instruction:
    """Load one of the sixteen words."""
    return Instruction(op.LD_ABS, 0, 0, 4 * word)


def jump(code: int, k: int, yes: int, no: int) -> Instruction:
    """A conditional jump over so many instructions."""
    return Instruction(code, yes, no, k)


def plain(code: int, k: int = 0) -> Instruction:
    """Any other instruction."""
    return Instruction(code, 0, 0, k)


def returns(value: int) -> Instruction:
    """The end."""
    return Instruction(op.RET_K, 0, 0, value)


def errno(code: int) -> Instruction:
    """The end, with an errno."""
    return returns(RET_ERRNO | code)


def program(*instructions: Instruction) -> Program:
    """The whole."""
    return instructions
