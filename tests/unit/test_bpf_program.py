"""Programs as bytes and as text, and what their return values mean."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.assembly import ALLOW, errno, jump, load, plain, program, returns
from oracles.generate import anything, compiled_like
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
    action_of,
    check,
    decode,
    describe,
    disassemble,
    effect,
    encode,
    strictest,
)
from seccomp_floor.profile import Action


@given(anything | compiled_like, st.booleans())
def test_bytes_and_back(given_program: Program, little_endian: bool) -> None:
    data = encode(given_program, little_endian=little_endian)
    assert len(data) == 8 * len(given_program)
    assert decode(data, little_endian=little_endian) == given_program


def test_the_layout_is_struct_sock_filter() -> None:
    instruction = Instruction(0x15, 1, 2, 0xC000003E)
    assert encode((instruction,), little_endian=True) == bytes.fromhex("1500 01 02 3e0000c0")
    assert encode((instruction,), little_endian=False) == bytes.fromhex("0015 01 02 c000003e")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected 1 to 4096 instructions, got 0"),
        (bytes(8 * 4097), "expected 1 to 4096 instructions, got 4097"),
        (bytes(13), "offset 8: expected 8 bytes of an instruction, got 5"),
    ],
)
def test_bytes_that_are_no_program(data: bytes, message: str) -> None:
    with pytest.raises(ProgramError) as raised:
        decode(data)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((load(0),), "instruction 0: the last instruction must return"),
        ((plain(0x94, 2), ALLOW), "instruction 0: opcode 0x0094 is not one that seccomp admits"),  # MOD
        ((plain(op.LD_ABS, 62), ALLOW), "instruction 0: loads from offset 62: expected a multiple of 4 below 64"),
        ((plain(op.LD_ABS, 64), ALLOW), "instruction 0: loads from offset 64: expected a multiple of 4 below 64"),
        ((jump(op.JEQ, 0, 1, 0), ALLOW), "instruction 0: jumps past the end"),
        ((plain(op.JA, 1), ALLOW), "instruction 0: jumps past the end"),
        ((plain(op.ST, 16), ALLOW), "instruction 0: scratch cell 16: expected 0 to 15"),
        ((plain(op.LSH, 32), ALLOW), "instruction 0: operand 32 is not one that lsh takes"),
        ((plain(op.DIV, 0), ALLOW), "instruction 0: operand 0 is not one that div takes"),
        (
            (jump(op.JEQ, 0, 0, 1), plain(op.ST, 3), plain(op.LD_MEM, 3), ALLOW),
            "instruction 2: loads scratch cell 3, which is not stored on every way there",
        ),
    ],
)
def test_programs_that_the_kernel_refuses(wrong: Program, message: str) -> None:
    with pytest.raises(ProgramError) as raised:
        check(wrong)
    assert str(raised.value) == message


@given(anything | compiled_like)
def test_every_instruction_has_a_line(given_program: Program) -> None:
    lines = disassemble(given_program).splitlines()
    assert len(lines) == len(given_program)
    assert [int(line.split(":")[0]) for line in lines] == list(range(len(given_program)))


def test_what_a_disassembly_looks_like() -> None:
    text = disassemble(
        program(
            load(1), jump(op.JEQ, 0xC000003E, 1, 0), returns(0), load(4), jump(op.JSET | op.X, 0, 0, 1), errno(97),
            plain(op.AND, 0xFF), plain(op.LDX_MEM, 2), plain(op.JA, 0), plain(op.NEG), plain(op.RET_A),
            Instruction(0x28, 0, 0, 0),
        )
    )  # fmt: skip
    assert [line.strip() for line in text.splitlines()] == [
        "0: ld a, arch",
        "1: jeq a, 0xc000003e, yes 3, no 2",
        "2: ret 0x00000000 (KILL_THREAD)",
        "3: ld a, args[0]+0",
        "4: jset a, x, yes 5, no 6",
        "5: ret 0x00050061 (ERRNO(EAFNOSUPPORT))",
        "6: and a, 0xff",
        "7: ld x, m[2]",
        "8: ja 9",
        "9: neg a",
        "10: ret a",
        "11: opcode 0x0028 (0, 0, 0x0), which seccomp does not admit",
    ]


IN_ORDER = (
    RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, RET_ERRNO, RET_USER_NOTIF, RET_TRACE, RET_LOG, RET_ALLOW,
)  # fmt: skip


def test_the_stricter_action_wins() -> None:
    for stricter, other in pairwise(IN_ORDER):
        assert strictest([stricter, other]) == strictest([other, stricter]) == stricter


def test_of_equal_actions_the_newest_filters_data_counts() -> None:
    assert strictest([RET_ERRNO | 1, RET_ERRNO | 2]) == RET_ERRNO | 1
    assert strictest([RET_ALLOW | 7]) == RET_ALLOW  # where the kernel starts from
    assert strictest([]) == RET_ALLOW


@pytest.mark.parametrize(
    ("value", "action", "observed", "text"),
    [
        (RET_ALLOW | 1, Action.ALLOW, RET_ALLOW, "ALLOW"),
        (RET_LOG | 1, Action.LOG, RET_LOG, "LOG"),
        (RET_ERRNO | 38, Action.ERRNO, RET_ERRNO | 38, "ERRNO(ENOSYS)"),
        (RET_ERRNO | 5000, Action.ERRNO, RET_ERRNO | 4095, "ERRNO(5000)"),
        (RET_TRAP | 5000, Action.TRAP, RET_TRAP | 5000, "TRAP(5000)"),
        (RET_TRACE | 1, Action.TRACE, RET_TRACE | 1, "TRACE(1)"),
        (RET_USER_NOTIF | 1, Action.NOTIFY, RET_USER_NOTIF, "NOTIFY"),
        (RET_KILL_THREAD | 1, Action.KILL_THREAD, RET_KILL_THREAD, "KILL_THREAD"),
        (RET_KILL_PROCESS | 1, Action.KILL_PROCESS, RET_KILL_PROCESS, "KILL_PROCESS"),
        (0x7FF8_0000, Action.KILL_PROCESS, RET_KILL_PROCESS, "KILL_PROCESS"),  # none that the kernel knows
    ],
)
def test_what_a_value_does(value: int, action: Action, observed: int, text: str) -> None:
    assert (action_of(value), effect(value), describe(value)) == (action, observed, text)
