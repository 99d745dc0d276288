"""Exactness against an SMT solver: the differences found are all that there are, and each of them is one."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
import z3
from hypothesis import event, given
from hypothesis import strategies as st

from oracles import solver
from oracles.generate import anything, compiled_like, examples, mutated
from seccomp_floor.abi import ABIS, BY_AUDIT_ARCH, X32_BIT, Abi, abi_named, abis_of_machine
from seccomp_floor.bpf import bits
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.equivalence import Difference, differences
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.program import RET_ALLOW, Program
from seccomp_floor.bpf.space import CannotJudgeError
from seccomp_floor.doors import doors
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

pytestmark = pytest.mark.timeout(900)  # a solver on a busy machine

X86_64 = abi_named("x86_64")
FLOORS = (
    Floor(),
    Floor(families=("AF_VSOCK", "AF_UNIX"), socketcall=False, syscalls=(("clone", 22), ("getpid", 1))),
    Floor(io_uring=False, action=Action.LOG),
)


def stricter(floor: Floor, profile: z3.BitVecRef, abis: Iterable[Abi]) -> z3.BitVecRef:
    """The meet of a profile's answer and the floor's, spelled out door by door."""
    answer = solver.number(RET_ALLOW)
    for abi in abis:
        for door in reversed(doors(floor, abi, resolve)):  # the first one decides, so it is asked last
            if door.denied:
                value = 0x7FFC_0000 if floor.action is Action.LOG else 0x5_0000 | door.errno
                answer = z3.If(solver.entrance(door), solver.number(value), answer)
    return z3.If(solver.action(profile) <= solver.action(answer), profile, answer)


def place(difference: Difference) -> z3.BoolRef:
    """The calls that a difference names."""
    abi = difference.abi
    if abi is None:
        where = z3.And(*(solver.number(arch) != solver.ARCH for arch in BY_AUDIT_ARCH))
    else:
        where = solver.number(abi.audit_arch) == solver.ARCH
        if len(BY_AUDIT_ARCH[abi.audit_arch]) > 1:
            x32 = solver.NR & solver.number(X32_BIT) != 0
            where = z3.And(where, x32 if abi.base else z3.Not(x32))
    named = [where, solver.among(solver.NR, difference.numbers)]
    little_endian = abi.little_endian if abi else True
    for condition in difference.conditions:
        first = 2 if condition.argument is None else 4 + 2 * condition.argument
        named.append(solver.among(solver.WORDS[first + (condition.high == little_endian)], condition.values))
    return z3.And(*named)


def agree(profile: Program | None, section: Program, floor: Floor) -> bool:
    """Put a pair before both, and see that they say the same. :returns: whether the section is exact"""
    found = differences(profile, section, floor, resolve, native=X86_64)
    abis = ABIS.values() if profile else abis_of_machine(X86_64)
    asked = solver.returned(profile) if profile else solver.number(RET_ALLOW)
    expected = solver.observed(stricter(floor, asked, abis))
    got = solver.observed(solver.returned(section))
    question = z3.Solver()
    if profile is None:
        question.add(z3.Or(*(solver.number(abi.audit_arch) == solver.ARCH for abi in abis)))

    question.push()
    elsewhere = [z3.Not(place(difference)) for difference in found if difference.complete]
    for difference in found:
        if not difference.complete:  # it does not name all its calls: leave out what might be among them
            pair = expected == solver.number(difference.expected), got == solver.number(difference.got)
            elsewhere.append(z3.Not(z3.And(*pair)))
    question.add(expected != got, *elsewhere)
    assert question.check() == z3.unsat, solver.model_words(question)
    question.pop()

    for difference in found[:3]:
        assert difference.expected != difference.got
        if difference.complete:
            question.push()
            question.add(
                place(difference),
                z3.Or(expected != solver.number(difference.expected), got != solver.number(difference.got)),
            )
            assert question.check() == z3.unsat, (str(difference), solver.model_words(question))
            question.pop()
    return not found


@examples(640)
@given(compiled_like, st.integers(0, 2**32), st.sampled_from(FLOORS))
def test_a_program_and_itself_after_accidents(profile: Program, seed: int, floor: Floor) -> None:
    event(f"exact: {agree(profile, mutated(profile, Random(seed)), floor)}")


@examples(400)
@given(st.none() | compiled_like, compiled_like, st.sampled_from(FLOORS))
def test_programs_that_have_nothing_in_common(profile: Program | None, section: Program, floor: Floor) -> None:
    event(f"exact: {agree(profile, section, floor)}")


@examples(240)
@given(anything, st.integers(0, 2**32), st.sampled_from(FLOORS))
def test_programs_with_all_that_the_kernel_admits(profile: Program, seed: int, floor: Floor) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "MOST_STEPS", 60_000)
        try:
            event(f"exact: {agree(profile, mutated(profile, Random(seed)), floor)}")
        except CannotJudgeError:
            event("cannot be judged")


def denylist(*architectures: str) -> Profile:
    """What the floor denies, and nothing else, as one would write it."""
    names = ("socketpair", "socket")
    families = [(name, Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, family)) for name in names for family in (38, 40)]
    return Profile(
        Action.ALLOW,
        architectures=tuple(f"SCMP_ARCH_{name}" for name in architectures),
        syscalls=(
            Syscall(("socketcall",), Action.ERRNO, 38, (Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, 1),)),
            Syscall(("io_uring_setup", "io_uring_enter", "io_uring_register"), Action.ERRNO, 38),
            *(Syscall((name,), Action.ERRNO, 97, (family,)) for name, family in families),
        ),
    )


def test_a_denylist_is_exact_until_something_happens_to_it() -> None:
    open_profile = compile_profile(Profile(Action.ALLOW, architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X32")), X86_64)
    program = compile_profile(denylist("X86_64", "X32"), X86_64)
    assert differences(open_profile, program, Floor(), resolve, native=X86_64) == ()
    assert agree(open_profile, program, Floor())
    random = Random(2)
    exact = [agree(open_profile, mutated(program, random), Floor()) for _ in range(60)]
    assert any(exact)
    assert not all(exact)


def test_the_same_denylist_takes_pairs_from_32_bit_programs() -> None:
    """libseccomp gives each rule for a multiplexed call a companion on the multiplexer, without its conditions."""
    (found,) = differences(
        None, compile_profile(denylist("X86_64", "X86", "X32"), X86_64), Floor(), resolve, native=X86_64
    )
    assert str(found) == "x86 102, args[0] low in 0x8: expected ALLOW, got ERRNO(EAFNOSUPPORT)"
