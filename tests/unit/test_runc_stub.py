"""runc's ENOSYS stub: instruction by instruction as runc 1.4.0 makes it, and what it answers."""

from __future__ import annotations

from errno import ENOSYS

import pytest

from seccomp_floor.abi import ABIS, Abi, abi_named
from seccomp_floor.bpf.libseccomp import library
from seccomp_floor.bpf.machine import SeccompData, run
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, Instruction, check
from seccomp_floor.bpf.runc import highest_numbers, stub, wants_stub
from seccomp_floor.profile import Action, Profile

X86_64, X86, X32, S390X, AARCH64 = map(abi_named, ("x86_64", "x86", "x32", "s390x", "aarch64"))
ENOSYS_32 = RET_ERRNO | ENOSYS

# What generatePatch of runc 1.4.0 gave on x86_64 for these names under SCMP_ACT_ERRNO: opcode, jt, jf, k.
MADE_BY_RUNC = {
    "the native ABI alone": (
        (X86_64,),
        ("read", "write", "socket"),
        [
            (32, 0, 0, 4), (21, 1, 0, 3221225534), (5, 0, 0, 6), (32, 0, 0, 0), (69, 1, 0, 1073741824), (37, 2, 0, 41),
            (5, 0, 0, 2), (5, 0, 0, 1), (6, 0, 0, 327718),
        ],
    ),
    "x32, and with it x86_64": (
        (X32, X86_64),
        ("read", "write"),
        [
            (32, 0, 0, 4), (21, 1, 0, 3221225534), (5, 0, 0, 7), (32, 0, 0, 0), (69, 1, 0, 1073741824), (37, 3, 1, 1),
            (37, 2, 0, 1073741825), (5, 0, 0, 2), (5, 0, 0, 1), (6, 0, 0, 327718),
        ],
    ),
    "socket does not count on x86": (
        (X86, X86_64),
        ("socket",),
        [
            (32, 0, 0, 4), (21, 2, 0, 3221225534), (21, 7, 0, 1073741827), (5, 0, 0, 6), (32, 0, 0, 0),
            (69, 1, 0, 1073741824), (37, 2, 0, 41), (5, 0, 0, 2), (5, 0, 0, 1), (6, 0, 0, 327718),
        ],
    ),
    "no name that counts": (
        (X86_64,),
        ("nosuch",),
        [(32, 0, 0, 4), (21, 3, 0, 3221225534), (5, 0, 0, 2), (5, 0, 0, 1), (6, 0, 0, 327718)],
    ),
}  # fmt: skip


def highest(abis: tuple[Abi, ...], *names: str) -> dict[Abi, int]:
    """As runc counts."""
    return highest_numbers(names, abis, library().resolve_on)


def answer(program: tuple[Instruction, ...], abi: Abi, number: int) -> int:
    """What stub and an allowing filter behind it return."""
    whole = (*program, Instruction(6, 0, 0, RET_ALLOW))
    check(whole)
    return run(whole, SeccompData(number, abi.audit_arch), little_endian=abi.little_endian)


@pytest.mark.parametrize("case", MADE_BY_RUNC)
def test_as_runc_makes_it(case: str) -> None:
    """Where the order of sections is not up to Go's random walk, it is the same byte for byte."""
    abis, names, made = MADE_BY_RUNC[case]
    assert stub(highest(abis, *names)) == tuple(Instruction(*line) for line in made)


def test_numbers_above_the_highest() -> None:
    program = stub(highest((X86_64, X86, X32), "read", "write", "openat2"))
    for abi in (X86_64, X86, X32):
        top = abi.base + 437
        assert answer(program, abi, top) == RET_ALLOW
        assert answer(program, abi, top + 1) == ENOSYS_32
    assert answer(program, X86, 0xFFFF_FFFF) == ENOSYS_32
    assert answer(program, AARCH64, 500) == RET_ALLOW  # not its business


def test_each_abi_of_one_architecture_has_its_own_highest() -> None:
    """``rseq`` is 334 on x86_64 and x32, ``_sysctl`` 156 on x86_64 only."""
    program = stub({X86_64: 334, X32: X32.base + 10})
    assert answer(program, X86_64, 334) == RET_ALLOW
    assert answer(program, X86_64, 335) == ENOSYS_32
    assert answer(program, X32, X32.base + 10) == RET_ALLOW
    assert answer(program, X32, X32.base + 11) == ENOSYS_32


def test_x86_64_alone_leaves_x32_to_the_filter() -> None:
    program = stub(highest((X86_64,), "read", "write"))
    assert answer(program, X86_64, 2) == ENOSYS_32
    assert answer(program, X32, X32.base + 2) == RET_ALLOW


def test_a_highest_number_of_0_counts_as_none() -> None:
    """``read`` is 0 on x86_64: where a profile names nothing else, there is no stub for that ABI."""
    program = stub(highest((X86_64, X86), "read"))
    assert answer(program, X86_64, 500) == RET_ALLOW
    assert answer(program, X86, 500) == ENOSYS_32


def test_number_0_on_s390() -> None:
    """Since runc 1.1.3; a kernel that does not know a number shows 0."""
    counted = highest((S390X,), "read")
    assert answer(stub(counted), S390X, 0) == ENOSYS_32
    assert answer(stub(counted, s390_setup=False), S390X, 0) == RET_ALLOW


def test_many_architectures_need_long_jumps() -> None:
    """Beyond 255 instructions a conditional jump does not reach; runc then takes another form."""
    abis = tuple(abi for abi in ABIS.values() if abi.short not in ("x86_64", "x32"))
    counted = {abi: abi.base + 400 for abi in abis}
    sections = {abi.audit_arch: abi for abi in abis}
    for repeated in range(1, 8):  # as if there were more architectures than there are
        counted |= {_like(abi, abi.audit_arch ^ repeated << 20): abi.base + 400 for abi in sections.values()}
    program = stub(counted)
    assert len(program) > 600
    for abi, number in counted.items():
        assert answer(program, abi, number) == RET_ALLOW
        assert answer(program, abi, number + 1) == ENOSYS_32


def _like(abi: Abi, audit_arch: int) -> Abi:
    return Abi(abi.name + hex(audit_arch), abi.token, audit_arch, abi.little_endian, abi.base, 1, 2, None)


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        (Action.ERRNO, True), (Action.KILL, True), (Action.KILL_PROCESS, True), (Action.TRAP, True), (Action.NOTIFY, True),
        (Action.ALLOW, False), (Action.LOG, False), (Action.TRACE, False),
    ],
)  # fmt: skip
def test_permissive_defaults_have_none(action: Action, wanted: bool) -> None:
    assert wants_stub(Profile(action)) is wanted


def test_a_default_errno_of_enosys_does_not_spare_it() -> None:
    """runc means it to, and compares the errno with a whole return value."""
    assert wants_stub(Profile(Action.ERRNO, ENOSYS))
