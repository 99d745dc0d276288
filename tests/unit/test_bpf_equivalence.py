"""What differences are found between sections and what they should be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from oracles.assembly import ALLOW, ARCH, ARG0_LOW, NR, errno, jump, load, program, returns
from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.equivalence import Condition, Difference, differences
from seccomp_floor.bpf.machine import SeccompData, run
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
)
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action

X86_64, X32, AARCH64 = map(abi_named, ("x86_64", "x32", "aarch64"))
NOTHING = Floor(families=())
KILL = returns(RET_KILL_PROCESS)


def no_more(name: str, abi: Abi) -> int | None:  # noqa: ARG001 (a Resolve)
    """Numbers of no calls at all."""
    return None


def only(abi: Abi, *body: Instruction) -> Program:
    """A filter that admits one architecture, and goes on with its number."""
    return program(load(ARCH), jump(op.JEQ, abi.audit_arch, 1, 0), KILL, load(NR), *body)


def compared(
    profile: Program | None, section: Program, floor: Floor = NOTHING, native: Abi = AARCH64
) -> Sequence[Difference]:
    """The differences."""
    return differences(profile, section, floor, no_more, native=native)


def floored(
    *, family_errno: int = 97, io_uring: int = 38, pairs: tuple[int, ...] = (38, 40)
) -> tuple[Instruction, ...]:
    """The default floor on aarch64, instruction by instruction, down to ALLOW."""
    return (
        jump(op.JEQ, 198, 8, 0), jump(op.JEQ, 199, 3, 0), jump(op.JGE, 428, 1, 0), jump(op.JGE, 425, 10, 0), ALLOW,
        load(ARG0_LOW), jump(op.JEQ, pairs[0], 6, 0), jump(op.JEQ, pairs[1], 5, 0), ALLOW,
        load(ARG0_LOW), jump(op.JEQ, 38, 2, 0), jump(op.JEQ, 40, 1, 0), ALLOW,
        errno(family_errno),
        errno(io_uring),
    )  # fmt: skip


def test_a_filter_equals_itself() -> None:
    filtered = only(AARCH64, jump(op.JEQ, 3, 0, 1), errno(5), ALLOW)
    assert compared(filtered, filtered) == ()


def test_the_floor_done_by_hand_is_exact_for_a_container_without_a_profile() -> None:
    body = only(AARCH64, *floored())
    # 32-bit programs of the same machine had everything, too.
    assert {difference.abi for difference in compared(None, body, Floor())} == {abi_named("arm")}
    assert compared(only(AARCH64, ALLOW), body, Floor()) == ()


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            floored(family_errno=1),
            "aarch64 198 to 199, args[0] low in 0x26, 0x28: expected ERRNO(EAFNOSUPPORT), got ERRNO(EPERM)",
        ),
        (floored(io_uring=1), "aarch64 425 to 427: expected ERRNO(ENOSYS), got ERRNO(EPERM)"),
        (floored(pairs=(38, 38)), "aarch64 199, args[0] low in 0x28: expected ERRNO(EAFNOSUPPORT), got ALLOW"),
    ],
)
def test_a_difference_is_told_in_one_line(section: tuple[Instruction, ...], told: str) -> None:
    (found,) = compared(only(AARCH64, ALLOW), only(AARCH64, *section), Floor())
    assert str(found) == told
    assert found.complete


def test_numbers_are_told_by_name_where_they_have_one() -> None:
    (found,) = compared(only(AARCH64, ALLOW), only(AARCH64, jump(op.JEQ, 3, 0, 1), errno(1), ALLOW))
    assert (
        found.describe(lambda number, abi: f"{abi.short}:{number}")
        == "aarch64 aarch64:3: expected ALLOW, got ERRNO(EPERM)"
    )
    assert found.describe(lambda number, abi: None) == "aarch64 3: expected ALLOW, got ERRNO(EPERM)"  # noqa: ARG005


@pytest.mark.parametrize(
    "answer", [RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP | 5, RET_ERRNO | 1, RET_ERRNO | 0, 0x0001_0000]
)
def test_what_the_profile_denies_as_strictly_stays_its_own(answer: int) -> None:
    profile = only(AARCH64, returns(answer))
    assert compared(profile, profile, Floor()) == ()


@pytest.mark.parametrize("answer", [RET_USER_NOTIF, RET_TRACE | 1, RET_LOG, RET_ALLOW])
def test_what_the_profile_lets_pass_is_the_floors(answer: int) -> None:
    profile = only(AARCH64, returns(answer))
    section = only(AARCH64, *(returns(answer) if part == ALLOW else part for part in floored()))
    assert compared(profile, section, Floor()) == ()
    assert {difference.got for difference in compared(profile, profile, Floor())} == {answer}


def test_a_watching_floor_logs_what_was_silent_and_leaves_the_rest() -> None:
    watching = Floor(action=Action.LOG)
    logged = tuple(returns(RET_LOG) if part.code == op.RET_K and part != ALLOW else part for part in floored())
    assert compared(only(AARCH64, ALLOW), only(AARCH64, *logged), watching) == ()
    traced = only(AARCH64, returns(RET_TRACE))
    assert compared(traced, traced, watching) == ()


def test_values_that_nobody_can_tell_apart_are_no_difference() -> None:
    def answering(value: int) -> Program:
        return only(AARCH64, returns(value))

    assert compared(answering(RET_ALLOW), answering(RET_ALLOW | 7)) == ()
    assert compared(answering(RET_ERRNO | 4095), answering(RET_ERRNO | 9999)) == ()
    assert compared(answering(RET_KILL_PROCESS), answering(0x7FF8_0000)) == ()
    assert compared(answering(RET_TRAP | 1), answering(RET_TRAP | 2)) != ()
    assert compared(answering(RET_KILL_PROCESS), answering(RET_KILL_THREAD)) != ()


def test_differences_are_merged_into_as_few_as_there_are() -> None:
    scattered = [part for number in range(0, 40, 2) for part in (jump(op.JEQ, number, 0, 1), errno(1))]
    (found,) = compared(only(AARCH64, ALLOW), only(AARCH64, *scattered, ALLOW))
    assert found.numbers == tuple((number, number) for number in range(0, 40, 2))
    (found,) = compared(only(AARCH64, ALLOW), only(AARCH64, errno(1)))
    assert found.numbers == ((0, 0xFFFF_FFFF),)
    assert found.conditions == ()


def test_x32_is_told_apart_from_x86_64() -> None:
    found = compared(only(X86_64, ALLOW), only(X86_64, errno(1)), native=X86_64)
    assert {(difference.abi, difference.numbers) for difference in found} == {
        (X86_64, ((0, 0x3FFF_FFFF), (0x8000_0000, 0xBFFF_FFFF))),
        (X32, ((0x4000_0000, 0x7FFF_FFFF), (0xC000_0000, 0xFFFF_FFFF))),
    }


def test_architectures_that_do_not_exist_count_too() -> None:
    def admitting(value: int) -> Program:
        return program(load(ARCH), jump(op.JEQ, value, 0, 1), ALLOW, KILL)

    (found,) = compared(admitting(0x1234), admitting(0x1235))[:1]
    assert found.abi is None
    told = [str(difference) for difference in compared(admitting(0x1234), program(KILL))]
    assert told == ["architecture 0x00001234 and its like 0 to 4294967295: expected ALLOW, got KILL_PROCESS"]


def test_conditions_on_a_big_endian_machine_name_the_right_half() -> None:
    s390x = abi_named("s390x")
    first, second = (
        compared(only(s390x, ALLOW), only(s390x, load(word), jump(op.JEQ, 7, 0, 1), errno(1), ALLOW), native=s390x)[
            0
        ].conditions
        for word in (4, 5)
    )
    assert first == (Condition(0, True, ((7, 7),)),)
    assert second == (Condition(0, False, ((7, 7),)),)
    assert str(second[0]) == "args[0] low in 0x7"


def test_the_instruction_pointer_is_an_input_too() -> None:
    (found,) = compared(only(AARCH64, ALLOW), only(AARCH64, load(3), jump(op.JEQ, 7, 0, 1), errno(1), ALLOW))
    assert str(found) == "aarch64 0 to 4294967295, instruction pointer high in 0x7: expected ALLOW, got ERRNO(EPERM)"


def test_a_difference_that_is_no_product_of_ranges_has_a_witness() -> None:
    equal = (load(4), Instruction(op.TAX, 0, 0, 0), load(6), jump(op.JEQ | op.X, 0, 0, 1), errno(1), ALLOW)
    section = only(AARCH64, *equal)
    (found,) = compared(only(AARCH64, ALLOW), section)
    assert not found.complete
    assert run(section, found.witness) == RET_ERRNO | 1
    assert isinstance(found.witness, SeccompData)
    assert "such as" in str(found)
