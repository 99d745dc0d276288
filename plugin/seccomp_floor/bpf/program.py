"""Classic BPF programs as seccomp takes them: read, written, checked by the kernel's own rules, made readable.

Sources: ``struct sock_filter`` and the opcodes in ``include/uapi/linux/bpf_common.h`` and ``filter.h``; what is admitted in
``bpf_check_classic`` (net/core/filter.c) and ``seccomp_check_filter`` (kernel/seccomp.c); what a return value means in
``__seccomp_filter`` and ``seccomp_run_filters`` of the latter, and in seccomp(2).
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from errno import errorcode
from typing import NamedTuple

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.profile import Action

__all__ = [
    "RET_ALLOW", "RET_ERRNO", "RET_KILL_PROCESS", "RET_KILL_THREAD", "RET_LOG", "RET_TRACE", "RET_TRAP",
    "RET_USER_NOTIF", "Instruction", "Program", "ProgramError", "action_of", "check", "decode", "describe", "disassemble",
    "effect", "encode", "rank", "strictest",
]  # fmt: skip


class ProgramError(SeccompFloorError):
    """Not a program that the kernel would take as a seccomp filter."""


class Instruction(NamedTuple):
    """``struct sock_filter``: opcode (16 bits), jumps taken when the test holds or fails (8 bits each), operand (32 bits)."""

    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]

_LAYOUT = {True: struct.Struct("<HBBI"), False: struct.Struct(">HBBI")}
HOST_LITTLE_ENDIAN = sys.byteorder == "little"


def decode(data: bytes, *, little_endian: bool = HOST_LITTLE_ENDIAN) -> Program:
    """Read an array of ``struct sock_filter``, as libseccomp exports and ptrace(2) reads it.

    :param little_endian: the byte order of the machine that wrote it; default: this one's
    :raises ProgramError: where the bytes are no whole number of instructions, or none, or more than the kernel takes
    """
    layout = _LAYOUT[little_endian]
    whole, rest = divmod(len(data), layout.size)
    if rest:
        raise ProgramError(f"offset {whole * layout.size}: expected {layout.size} bytes of an instruction, got {rest}")
    _check_length(whole)
    return tuple(map(Instruction._make, layout.iter_unpack(data)))


def encode(program: Program, *, little_endian: bool = HOST_LITTLE_ENDIAN) -> bytes:
    """The opposite of :func:`decode`."""
    pack = _LAYOUT[little_endian].pack
    return b"".join(pack(*instruction) for instruction in program)


def _check_length(length: int) -> None:
    if not 1 <= length <= op.MOST_INSTRUCTIONS:
        raise ProgramError(f"expected 1 to {op.MOST_INSTRUCTIONS} instructions, got {length}")


def check(program: Program) -> None:
    """Accept exactly what the kernel accepts as a seccomp filter.

    :raises ProgramError: naming the first instruction that it would refuse, and why
    """
    size = len(program)
    _check_length(size)
    for pc, (code, jt, jf, k) in enumerate(program):
        if code not in op.ADMITTED:
            raise _wrong(pc, f"opcode {code:#06x} is not one that seccomp admits")
        if code in op.CONDITIONAL:
            if pc + 1 + max(jt, jf) >= size:
                raise _wrong(pc, "jumps past the end")
        elif code == op.LD_ABS:
            if k >= op.DATA_SIZE or k & 3:
                raise _wrong(pc, f"loads from offset {k}: expected a multiple of 4 below {op.DATA_SIZE}")
        elif code == op.JA:
            if k >= size - pc - 1:
                raise _wrong(pc, "jumps past the end")
        elif code in op.SCRATCH:
            if k >= op.CELLS:
                raise _wrong(pc, f"scratch cell {k}: expected 0 to {op.CELLS - 1}")
        elif (code in (op.LSH, op.RSH) and k >= 32) or (code == op.DIV and k == 0):
            raise _wrong(pc, f"operand {k} is not one that {op.ARITHMETIC[code]} takes")
    if program[-1].code not in (op.RET_K, op.RET_A):
        raise _wrong(size - 1, "the last instruction must return")
    if any(instruction.code in (op.LD_MEM, op.LDX_MEM) for instruction in program):
        _check_scratch(program)


def _check_scratch(program: Program) -> None:
    """No cell may be loaded that some way to the load has not stored (``check_load_and_stores``)."""
    every = (1 << op.CELLS) - 1
    stored = 0
    arriving = [every] * len(program)
    for pc, (code, jt, jf, k) in enumerate(program):
        stored &= arriving[pc]
        if code in (op.ST, op.STX):
            stored |= 1 << k
        elif code in (op.LD_MEM, op.LDX_MEM):
            if not stored >> k & 1:
                raise _wrong(pc, f"loads scratch cell {k}, which is not stored on every way there")
        elif code == op.JA:
            arriving[pc + 1 + k] &= stored
            stored = every
        elif code in op.CONDITIONAL:
            arriving[pc + 1 + jt] &= stored
            arriving[pc + 1 + jf] &= stored
            stored = every


def _wrong(pc: int, what: str) -> ProgramError:
    return ProgramError(f"instruction {pc}: {what}")


# --- what a program returns -------------------------------------------------------------------------------------------

RET_KILL_PROCESS = 0x8000_0000
RET_KILL_THREAD = 0x0000_0000
RET_TRAP = 0x0003_0000
RET_ERRNO = 0x0005_0000
RET_USER_NOTIF = 0x7FC0_0000
RET_TRACE = 0x7FF0_0000
RET_LOG = 0x7FFC_0000
RET_ALLOW = 0x7FFF_0000

ACTION_FULL, DATA = 0xFFFF_0000, 0x0000_FFFF
MAX_ERRNO = 4095

ACTIONS = {
    RET_KILL_PROCESS: Action.KILL_PROCESS, RET_KILL_THREAD: Action.KILL_THREAD, RET_TRAP: Action.TRAP, RET_ERRNO: Action.ERRNO,
    RET_USER_NOTIF: Action.NOTIFY, RET_TRACE: Action.TRACE, RET_LOG: Action.LOG, RET_ALLOW: Action.ALLOW,
}  # fmt: skip


def action_of(value: int) -> Action:
    """What the kernel does on a return value; one that it does not know kills the process."""
    return ACTIONS.get(value & ACTION_FULL, Action.KILL_PROCESS)


def rank(value: int) -> int:
    """How permissive a return value is when filters are stacked; the kernel compares actions as signed numbers."""
    return (value & ACTION_FULL) ^ 0x8000_0000


def strictest(values: Iterable[int]) -> int:
    """The value that wins among those of stacked filters, given from the newest filter to the oldest: of equal actions the
    newest filter's data counts (``seccomp_run_filters``)."""
    winner = RET_ALLOW
    for value in values:
        if rank(value) < rank(winner):
            winner = value
    return winner


def effect(value: int) -> int:
    """A return value reduced to what a program can observe of it: two values with the same effect are the same answer.

    Data counts for ERRNO (up to 4095), TRAP and TRACE only.
    """
    action = value & ACTION_FULL
    if action == RET_ERRNO:
        return RET_ERRNO | min(value & DATA, MAX_ERRNO)
    if action in (RET_TRAP, RET_TRACE):
        return value
    return action if action in ACTIONS else RET_KILL_PROCESS


def describe(value: int) -> str:
    """A return value for people: ``ERRNO(EPERM)``."""
    action, data = action_of(value), value & DATA
    name = action.removeprefix("SCMP_ACT_")
    if action is Action.ERRNO:
        return f"{name}({errorcode.get(data, data)})"
    return f"{name}({data})" if data and action in (Action.TRAP, Action.TRACE) else name


# --- for people -------------------------------------------------------------------------------------------------------

_WORDS = ("nr", "arch", "ip[0]", "ip[1]", *(f"args[{n}]+{half}" for n in range(6) for half in (0, 4)))


def disassemble(program: Program) -> str:
    """One line an instruction: its number, what it does, and where a jump leads."""
    return "\n".join(f"{pc:4}: {_instruction(pc, *line)}" for pc, line in enumerate(program))


def _instruction(pc: int, code: int, jt: int, jf: int, k: int) -> str:
    operand = "x" if code & op.X else f"{k:#x}"
    if code in op.CONDITIONAL:
        return f"{op.CONDITIONAL[code]} a, {operand}, yes {pc + 1 + jt}, no {pc + 1 + jf}"
    if code in op.ARITHMETIC:
        return f"{op.ARITHMETIC[code]} a, {operand}"
    register = "x" if code & 1 else "a"
    match code:
        case op.LD_ABS:
            return f"ld a, {_WORDS[k >> 2] if k < op.DATA_SIZE and not k & 3 else f'offset {k}'}"
        case op.LD_LEN | op.LDX_LEN:
            return f"ld {register}, {op.DATA_SIZE} (length)"
        case op.LD_IMM | op.LDX_IMM:
            return f"ld {register}, {k:#x}"
        case op.LD_MEM | op.LDX_MEM:
            return f"ld {register}, m[{k}]"
        case op.ST | op.STX:
            return f"st m[{k}], {register}"
        case op.JA:
            return f"ja {pc + 1 + k}"
        case op.RET_K:
            return f"ret {k:#010x} ({describe(k)})"
        case op.RET_A:
            return "ret a"
        case op.TAX:
            return "tax"
        case op.TXA:
            return "txa"
        case op.NEG:
            return "neg a"
        case _:
            return f"opcode {code:#06x} ({jt}, {jf}, {k:#x}), which seccomp does not admit"
