"""Answers that were published, or are the first that come to mind, and what the proof says of each.

All of them are compiled by libseccomp as runc has it done, and judged on x86_64 with its two other ABIs.
"""

from __future__ import annotations

import pytest

from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.libseccomp import resolve
from seccomp_floor.bpf.prove import Proof, Status, prove
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

X86_64, X86, X32 = map(abi_named, ("x86_64", "x86", "x32"))
ABIS = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
EVERYDAY = ("read", "write", "openat", "close", "mmap", "brk", "execve", "exit_group", "futex", "clone", "faccessat2")
IO_URING = Syscall(("io_uring_setup", "io_uring_enter", "io_uring_register"), Action.ERRNO, 38)


def allowlist(*rules: Syscall, default_errno: int | None = None) -> Profile:
    """A profile that denies what it does not name."""
    return Profile(Action.ERRNO, default_errno, ABIS, syscalls=(Syscall(EVERYDAY, Action.ALLOW), *rules))


def allowed(name: str, *args: Arg) -> Syscall:
    """A rule that allows."""
    return Syscall((name,), Action.ALLOW, None, args)


def family(value: int, op: Operator) -> Arg:
    """A condition on the first argument."""
    return Arg(0, value, op)


def judged(profile: Profile, native: Abi = X86_64) -> Proof:
    """What the proof says of it."""
    return prove([compile_profile(profile, native)], Floor(), resolve, native=native)


def breaches(profile: Profile) -> set[tuple[str, str, int]]:
    """Each open door, with the first argument that opens it."""
    calls = judged(profile).counterexamples
    return {(call.door.abi.short, call.door.name, call.data.args[0]) for call in calls if call.door}


CONTAINERD_2_3 = (
    allowed("socketcall"),
    allowed("socket", family(38, Operator.LT)),
    allowed("socket", family(39, Operator.EQ)),
    allowed("socket", family(40, Operator.GT)),
)


def test_containerds_ranges_of_families() -> None:
    """containerd 2.3's default: families below, between and above those denied. A family with a bit in the high half is above
    all of them, and the kernel drops that bit; 32-bit programs have ``socketcall``."""
    assert breaches(allowlist(*CONTAINERD_2_3)) == {
        ("x86_64", "socket", 1 << 32 | 38),
        ("x86_64", "socket", 1 << 32 | 40),
        ("x86", "socketcall(SYS_SOCKET)", 1),
    }


def test_all_families_but_one() -> None:
    """``!= AF_VSOCK``, the rule that older defaults have: it never meant AF_ALG, and any high half is unequal too."""
    found = breaches(allowlist(allowed("socket", family(40, Operator.NE))))
    assert ("x86_64", "socket", 1 << 32 | 40) in found
    assert ("x86_64", "socket", 38) in found


def test_two_conditions_on_one_argument() -> None:
    """``!= AF_ALG`` and ``!= AF_VSOCK`` in one rule: runtimes make two rules of it, of which any is enough."""
    found = breaches(allowlist(allowed("socket", family(38, Operator.NE), family(40, Operator.NE))))
    assert ("x86_64", "socket", 38) in found
    assert ("x86_64", "socket", 40) in found


SHUT = Syscall(("socketcall",), Action.ERRNO, 1)


@pytest.mark.parametrize(("default_errno", "opened"), [(None, True), (38, False)])
def test_a_deny_that_equals_the_default_vanishes(default_errno: int | None, opened: bool) -> None:
    """A ``socketcall`` deny with EPERM under a default of EPERM is left out by runtimes, and with it the deny of the companion
    that libseccomp gives each ``socket`` allow. Under another default it stays."""
    profile = allowlist(SHUT, allowed("socket", family(2, Operator.EQ)), default_errno=default_errno)
    assert (("x86", "socketcall(SYS_SOCKET)", 1) in breaches(profile)) == opened


def lost_load(*more: Syscall) -> Profile:
    """A denylist of ``socketcall`` first, then of families."""
    families = (Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, number) for number in (38, 40))
    sockets = (Syscall(("socket",), Action.ERRNO, 97, (one,)) for one in families)
    return Profile(Action.ALLOW, None, ABIS, syscalls=(Syscall(("socketcall",), Action.ERRNO, 38), *sockets, *more))


def test_the_lost_load() -> None:
    """libseccomp 2.5.4 to 2.6.1 leaves out the load of the system call's number with the first rule of an architecture that
    lacks its call. Right by its text, the filter denies x86_64 nothing; one rule without conditions brings the load back."""
    opened = breaches(lost_load())
    assert {("x86_64", "socket", 38), ("x86_64", "socket", 40)} <= opened
    assert not {door for door in breaches(lost_load(IO_URING)) if door[1] == "socket"}


def test_an_answer_that_holds() -> None:
    """Families by their low half, io_uring, ``socketcall`` whole with an errno that is not the default's."""
    families = (Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, number) for number in (38, 40))
    pairs = (Arg(0, 0xFFFF_FFFF, Operator.MASKED_EQ, number) for number in (38, 40))
    profile = Profile(
        Action.ALLOW,
        None,
        ABIS,
        syscalls=(
            Syscall(("socketcall",), Action.ERRNO, 38),
            *(Syscall(("socket",), Action.ERRNO, 97, (one,)) for one in families),
            *(Syscall(("socketpair",), Action.ERRNO, 97, (one,)) for one in pairs),
            IO_URING,
        ),
    )
    proof = judged(profile)
    assert proof.closed
    assert {verdict.status for verdict in proof.verdicts} == {Status.CLOSED}
    assert {verdict.door.abi for verdict in proof.verdicts} == {X86_64, X86, X32}


def test_an_unlisted_architecture_is_killed_and_not_open() -> None:
    """A profile that lists none is for the native architecture only: the others' calls are not admitted."""
    profile = Profile(Action.ERRNO, syscalls=(Syscall(EVERYDAY, Action.ALLOW),))
    proof = judged(profile)
    assert proof.closed
    statuses = {verdict.door.abi: verdict.status for verdict in proof.verdicts}
    assert statuses == {X86_64: Status.CLOSED, X86: Status.NOT_ADMITTED, X32: Status.NOT_ADMITTED}


@pytest.mark.parametrize("name", ["s390x", "ppc64le", "mips64", "arm", "aarch64", "riscv64", "mipsel"])
def test_the_same_mistake_on_other_machines(name: str) -> None:
    """The high half opens 64-bit ABIs of either byte order; where there is a multiplexer, it is open as well."""
    native = abi_named(name)
    profile = Profile(Action.ERRNO, None, (native.name,), syscalls=(Syscall(EVERYDAY, Action.ALLOW), *CONTAINERD_2_3))
    calls = judged(profile, native).counterexamples
    opened = {(call.door.name, call.data.args[0]) for call in calls if call.door}
    wide = {("socket", 1 << 32 | 38), ("socket", 1 << 32 | 40)} if native.audit_arch >> 31 else set()
    multiplexer = {("socketcall(SYS_SOCKET)", 1)} if native.socketcall is not None else set()
    assert opened == wide | multiplexer
