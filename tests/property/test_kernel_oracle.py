"""The interpreter and the checker against the running kernel: the same programs are taken, and calls made for real fare alike."""

from __future__ import annotations

from dataclasses import replace
from errno import EINVAL, ENOSYS
from itertools import product
from random import Random

import pytest

from oracles.assembly import ALLOW, load, plain
from oracles.generate import mutated, random_program
from oracles.kernel import Call, Case, Kernel, Kind, Outcome
from seccomp_floor.abi import abi_named
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.machine import SeccompData, run_stack
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
    effect,
)
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

pytestmark = pytest.mark.kernel

X86_64, X86 = abi_named("x86_64"), abi_named("x86")

# Calls that do no harm, whatever their arguments, and never answer ENOSYS; by number, native and compat.
HARMLESS = {
    False: (24, 39, 102, 104, 107, 108, 110, 111, 186),  # sched_yield, getpid, getuid, getgid, geteuid, getegid, ...
    True: (20, 24, 47, 49, 50, 64, 65, 158, 224),
}
NOWHERE = 0x1234  # no kernel has such a number: ENOSYS, if the filter lets it pass


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    """The oracle, built."""
    return Kernel(tmp_path_factory.mktemp("kernel"))


def taken(program: Program) -> bool:
    """What our checker says."""
    try:
        check(program)
    except ProgramError:
        return False
    return True


def agree_on_taking(kernel: Kernel, programs: list[Program]) -> int:
    """See that the kernel takes what the checker takes. :returns: how many it took"""
    accepted = kernel.accepts(programs)
    assert set(accepted) <= {0, EINVAL}
    for program, errno in zip(programs, accepted, strict=True):
        assert taken(program) == (errno == 0), program
    return accepted.count(0)


def test_every_opcode_is_taken_or_refused_as_the_kernel_does(kernel: Kernel) -> None:
    stores = tuple(plain(op.ST, cell) for cell in range(op.CELLS))
    ours = [code for code in range(1 << 16) if taken((*stores, Instruction(code, 0, 0, 4), ALLOW))]
    programs = [(*stores, Instruction(code, 0, 0, 4), ALLOW) for code in range(1 << 16)]
    theirs = [code for code, errno in enumerate(kernel.accepts(programs)) if errno == 0]
    assert ours == theirs
    assert set(ours) == op.ADMITTED - {op.JA}  # which would jump past the end


def test_operands_at_their_limits(kernel: Kernel) -> None:
    limits = (0, 1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 56, 60, 61, 63, 64, 68, 0x7FFF_FFFF, 0xFFFF_F000, 0xFFFF_FFFF)
    stores = tuple(plain(op.ST, cell) for cell in range(op.CELLS))
    programs: list[Program] = [
        (*stores, Instruction(code, jt, jf, k), ALLOW, ALLOW)
        for code in sorted(op.ADMITTED)
        for k in limits
        for jt, jf in ((0, 0), (1, 1), (2, 0), (0, 2), (255, 255))
    ]
    programs += [
        (),
        (load(0),),
        (plain(op.RET_A),),
        (ALLOW,) * 4096,
        (ALLOW,) * 4097,
        (plain(op.JA, 4094), *(ALLOW,) * 4095),
        (plain(op.JA, 4095), *(ALLOW,) * 4095),
    ]
    assert 0 < agree_on_taking(kernel, programs) < len(programs)


@pytest.mark.parametrize("seed", range(4))
def test_programs_are_taken_or_refused_as_the_kernel_does(kernel: Kernel, seed: int) -> None:
    random = Random(seed)
    codes = [*sorted(op.ADMITTED - {op.RET_K, op.LD_ABS}), *op.CONDITIONAL, *op.SCRATCH, *op.SCRATCH]

    def one() -> Instruction:
        k = random.choice((0, 1, 2, 3, 4, 8, 16, 31, 60))
        return Instruction(random.choice(codes), random.choice((0, 0, 1, 2, 3)), random.choice((0, 0, 1, 2, 3)), k)

    programs: list[Program] = []
    for _ in range(4000):
        body = (one() for _ in range(random.randrange(1, 9)))
        programs.append((plain(op.ST, 0), plain(op.STX, 1), *body, ALLOW, ALLOW))
    took = agree_on_taking(kernel, programs)
    assert len(programs) // 20 < took < len(programs) // 20 * 19


def call_data(kernel: Kernel, call: Call) -> SeccompData:
    """What the filter is shown of a call."""
    arch = (X86 if call.compat else X86_64).audit_arch
    return SeccompData(call.number, arch, kernel.addresses[call.compat], call.args)


def expected(call: Call, value: int) -> tuple[Outcome, ...]:
    """What may become of a call that gets this value from its filters; empty: it is made, and returns what it likes."""
    action, data = action_of(value), effect(value) & 0xFFFF
    if action is Action.ERRNO:
        return (Outcome(Kind.RETURNED, -data),)
    if action is Action.TRAP:
        return (Outcome(Kind.TRAPPED, data),)
    if action is Action.KILL_THREAD:
        return tuple(Outcome(Kind.KILLED_THREAD, status) for status in (256,))
    if action is Action.KILL_PROCESS:
        return tuple(
            Outcome(Kind.KILLED_PROCESS, status) for status in (31, 31 | 0x80)
        )  # SIGSYS, with or without a core
    if action in (Action.TRACE, Action.NOTIFY) or call.number not in HARMLESS[call.compat]:
        return (Outcome(Kind.RETURNED, -ENOSYS),)  # nobody traces or listens here
    return ()


def agree_on_calls(kernel: Kernel, cases: list[Case]) -> dict[Action, int]:
    """See that the kernel treats all calls as the interpreter says. :returns: how often each action was taken"""
    seen = dict.fromkeys(map(action_of, RETURNS), 0)
    for case, outcomes in zip(cases, kernel.run(cases), strict=True):
        for call, outcome in zip(case.calls, outcomes, strict=True):
            value = run_stack(case.filters, call_data(kernel, call))
            possible = expected(call, value)
            if possible:
                assert outcome in possible, (case.filters, call, hex(value))
            else:
                assert outcome.kind is Kind.RETURNED, (case.filters, call, hex(value))
                assert outcome.value >= 0, (case.filters, call, hex(value))
            seen[action_of(value)] += 1
    return seen


RETURNS = (
    RET_ALLOW, RET_ALLOW | 9, RET_LOG, RET_ERRNO | 1001, RET_ERRNO | 1002, RET_ERRNO | 1003, RET_ERRNO | 4095, RET_ERRNO | 5000,
    RET_ERRNO, RET_TRAP | 11, RET_TRAP | 0xFFFF, RET_TRACE | 3, RET_USER_NOTIF, RET_KILL_THREAD, RET_KILL_PROCESS, 0x7FF8_0000,
    0x0001_0000, 0x9000_0001,
)  # fmt: skip
GENTLE = tuple(value for value in RETURNS if not action_of(value).name.startswith("KILL"))


def random_calls(random: Random, constants: tuple[int, ...], count: int) -> tuple[Call, ...]:
    """Calls about these constants, in halves of arguments too."""
    calls = []
    for _ in range(count):
        compat = random.random() < 0.4
        number = NOWHERE if random.random() < 0.1 else random.choice(HARMLESS[compat])
        halves = [random.choice(constants) if random.random() < 0.7 else random.getrandbits(32) for _ in range(12)]
        args = tuple(low | high << 32 for low, high in zip(halves[::2], halves[1::2], strict=True))
        calls.append(Call(number, args, compat))  # type: ignore[arg-type]  # (six of them)
    return tuple(calls)


@pytest.mark.parametrize("seed", range(4))
def test_generated_programs_fare_as_in_the_interpreter(kernel: Kernel, seed: int) -> None:
    random = Random(seed)
    numbers = {*HARMLESS[False], *HARMLESS[True], NOWHERE}
    small = (0, 1, 2, 3, 8, 31, 32, 33, 0x8000_0000, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x1_0000)
    constants = (*numbers, *small, *small, *kernel.addresses, X86.audit_arch, X86_64.audit_arch)
    words = (0, 0, 1, 2, 3, *range(4, 16))
    cases = []
    for _ in range(400):
        count = random.choice((1, 1, 1, 2, 3))
        returns = RETURNS if random.random() < 0.3 else GENTLE
        filters = tuple(random_program(random, words, constants, returns) for _ in range(count))
        # What is loaded later is loaded under the filters before: those must let seccomp(2) pass.
        filters = tuple(_admits_loading(program) for program in filters)
        cases.append(Case(filters, random_calls(random, constants, 24)))
    seen = agree_on_calls(kernel, cases)
    assert min(seen.values()) > 20, seen


def _admits_loading(program: Program) -> Program:
    return (
        load(1),
        Instruction(op.JEQ, 0, 3, X86_64.audit_arch),
        load(0),
        Instruction(op.JEQ, 0, 1, 317),
        ALLOW,
        *_cleared(program),
    )


def _cleared(program: Program) -> Program:
    """As if nothing had been loaded before."""
    return (plain(op.LD_IMM, 0), *program)


def test_a_division_and_a_return_of_every_kind(kernel: Kernel) -> None:
    """The corners that generated programs may miss: each arithmetic instruction on words from the caller, returned as errno."""
    pairs = tuple(product((0, 1, 2, 31, 32, 33, 64, 0x1234_5678, 0x8000_0000, 0xFFFF_FFFF), repeat=2))
    calls = tuple(Call(110, (a | b << 32, 0, 0, 0, 0, 0), compat) for a, b in pairs for compat in (False, True))
    cases = []
    for code in sorted({code for code in op.ARITHMETIC if code & op.X} | {op.NEG}):
        for shift in (0, 12, 24):  # an errno has 12 bits
            program: Program = (
                load(5), plain(op.TAX), load(4), plain(code), plain(op.RSH, shift), plain(op.AND, 0x7FF),
                plain(op.OR, RET_ERRNO), plain(op.RET_A),
            )  # fmt: skip
            cases.append(Case((program,), calls))
    seen = agree_on_calls(kernel, cases)
    assert seen[Action.ERRNO] > 5000
    assert seen[Action.KILL_THREAD] >= 60  # by a division by 0


def test_the_filter_of_a_profile_after_accidents(kernel: Kernel) -> None:
    names = ("getpid", "getuid", "getppid", "sched_yield", "gettid", "seccomp")
    profile = Profile(
        Action.ERRNO,
        1001,
        ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
        syscalls=(
            Syscall(names, Action.ALLOW),
            Syscall(("getgid",), Action.ERRNO, 1002, (Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, 38),)),
            Syscall(("geteuid",), Action.TRAP, None, (Arg(1, 1 << 32, Operator.GE), Arg(2, 7, Operator.NE))),
            Syscall(("getegid",), Action.LOG, None, (Arg(5, 2, Operator.LT),)),
        ),
    )
    program = compile_profile(profile, X86_64)
    random = Random(3)
    constants = (0, 1, 2, 7, 38)
    calls = random_calls(random, constants, 100)
    cases = [Case((program,), calls)]
    while len(cases) < 200:
        changed = mutated(program, random)
        if action_of(run_stack([changed], SeccompData(317, X86_64.audit_arch))) is Action.ALLOW:
            cases.append(Case((changed,), calls))
    seen = agree_on_calls(kernel, cases)
    assert seen[Action.ERRNO] > 1000
    assert seen[Action.ALLOW] > 1000


def test_the_kernel_would_show_a_wrong_interpreter(kernel: Kernel) -> None:
    """The oracle can fail: told of other calls than were made, it disagrees."""
    random = Random(4)
    program: Program = (load(4), plain(op.AND, 0x7FF), plain(op.OR, RET_ERRNO), plain(op.RET_A))
    calls = tuple(replace(call, number=110) for call in random_calls(random, (1, 2, 3), 20))
    case = Case((program,), calls)
    (outcomes,) = kernel.run([case])
    values = [run_stack([program], call_data(kernel, call)) for call in calls]
    assert [outcome.value for outcome in outcomes] == [-(value & 0x7FF) for value in values]
    assert [outcome.value for outcome in outcomes] != [-(value & 0x7FF) for value in reversed(values)]
