"""The proof against an SMT solver: both find a breach, at the same doors, or both find none."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import z3
from hypothesis import event, given
from hypothesis import strategies as st

from oracles import solver
from oracles.generate import anything, compiled_like, examples, mutated
from seccomp_floor.abi import ABIS, BY_AUDIT_ARCH, X32_BIT, abi_named
from seccomp_floor.bpf import bits
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.machine import words_of
from seccomp_floor.bpf.program import Program
from seccomp_floor.bpf.prove import prove
from seccomp_floor.bpf.space import CannotJudgeError
from seccomp_floor.doors import Door, doors
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

pytestmark = pytest.mark.timeout(900)  # a solver on a busy machine

X86_64 = abi_named("x86_64")
FLOOR = Floor()


def agree(filters: Sequence[Program], floor: Floor = FLOOR) -> bool:
    """Put filters before both, and see that they say the same: the solver confirms each breach that the proof reports, and finds
    no way through any door that the proof calls closed.

    :returns: whether the floor holds
    """
    proof = prove(filters, floor, resolve, native=X86_64)
    value = solver.winner([solver.returned(program) for program in reversed(filters)])
    calls = proof.counterexamples  # each of them was already run through the programs, so a few do for the solver
    for call in {*calls[:3], *calls[-2:]}:
        little_endian = call.door.abi.little_endian if call.door else True
        words = words_of(call.data, little_endian=little_endian)
        assert goes_through(words, call.door)
        assert z3.is_true(z3.simplify(solver.passes(solver.at(value, words))))
    found = {call.door for call in calls}
    closed = [
        solver.entrance(door)
        for abi in ABIS.values()
        for door in doors(floor, abi, resolve)
        if door.denied and door not in found
    ]
    if proof.stranger is None:
        closed.append(z3.And(*(solver.number(arch) != solver.ARCH for arch in BY_AUDIT_ARCH)))
    question = z3.Solver()
    question.add(solver.passes(value), z3.Or(*closed))
    assert question.check() == z3.unsat, solver.model_words(question)
    return proof.holds


def goes_through(words: tuple[int, ...], door: Door | None) -> bool:
    """Whether these words are a call through the door; for None, of an architecture that there is not."""
    if door is None:
        return words[1] not in BY_AUDIT_ARCH
    low = 4 + 2 * door.argument + (0 if door.abi.little_endian else 1)
    return (door.number, door.abi.audit_arch) == words[:2] and (door.value is None or words[low] == door.value)


@examples(1600)
@given(compiled_like)
def test_programs_of_the_kind_that_compilers_emit(program: Program) -> None:
    event(f"holds: {agree([program])}")


@examples(640)
@given(anything)
def test_programs_with_all_that_the_kernel_admits(program: Program) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bits, "MOST_STEPS", 60_000)  # what is too hard is refused, and that may as well be soon
        try:
            event(f"holds: {agree([program])}")
        except CannotJudgeError:
            event("cannot be judged")


@examples(320)
@given(st.lists(compiled_like, min_size=2, max_size=3))
def test_stacked_filters(filters: list[Program]) -> None:
    event(f"holds: {agree(filters)}")


def closed_profiles() -> list[Profile]:
    """Profiles that close all doors, as small as they come."""
    architectures = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
    denied = [
        Syscall((name,), Action.ERRNO, 97, (Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, family),))
        for name in ("socket", "socketpair")
        for family in (38, 40)
    ]
    io_uring = Syscall(("io_uring_setup", "io_uring_enter", "io_uring_register"), Action.ERRNO, 38)
    allowed = ("read", "write", "openat", "close", "mmap", "brk", "futex", "execve", "exit", "exit_group")
    return [
        Profile(
            Action.ALLOW,
            architectures=architectures,
            syscalls=(Syscall(("socketcall",), Action.ERRNO, 38), io_uring, *denied),
        ),
        Profile(
            Action.ERRNO,
            architectures=architectures,
            syscalls=(
                Syscall(allowed, Action.ALLOW),
                Syscall(("socket",), Action.ALLOW, None, (Arg(0, 2, Operator.EQ),)),
                Syscall(("clone",), Action.ALLOW, None, (Arg(0, 0x7E02_0000, Operator.MASKED_EQ, 0),)),
                Syscall(("socketcall",), Action.ERRNO, 38),
            ),
        ),
    ]


@pytest.mark.parametrize("profile", closed_profiles(), ids=["denylist", "allowlist"])
def test_real_programs_after_accidents(profile: Profile) -> None:
    program = compile_profile(profile, X86_64)
    assert agree([program])
    random = Random(1)
    held = [agree([mutated(program, random)]) for _ in range(80)]
    assert any(held)
    assert not all(held)


@examples(320)
@given(st.integers(0, 2**32), st.sampled_from(closed_profiles()))
def test_more_accidents(seed: int, profile: Profile) -> None:
    random = Random(seed)
    program = mutated(mutated(compile_profile(profile, X86_64), random), random)
    event(f"holds: {agree([program])}")


def test_the_solver_knows_x32_by_its_bit() -> None:
    """What both of them lean on."""
    x32 = abi_named("x32")
    assert all(door.number & X32_BIT for door in doors(FLOOR, x32, resolve))
    assert not any(door.number & X32_BIT for door in doors(FLOOR, X86_64, resolve))
