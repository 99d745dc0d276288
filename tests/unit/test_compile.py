"""Profiles compiled as runtimes do it: what each of their steps does to the answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.bpf.compile import CRUN, RUNC, RUNTIMES, CompileError, RuntimeModel, compile_profile, runc_model
from seccomp_floor.bpf.machine import SeccompData, run
from seccomp_floor.bpf.program import (
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_THREAD,
    RET_LOG,
    RET_TRACE,
    RET_TRAP,
    Program,
    check,
)
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

X86_64, X86, X32, S390X, AARCH64 = map(abi_named, ("x86_64", "x86", "x32", "s390x", "aarch64"))
ALL_X86 = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
NAMES = (
    "read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek", "mmap", "mprotect", "munmap", "brk",
    "ioctl", "pread64", "pwrite64", "readv", "writev", "access", "pipe", "select", "sched_yield", "mremap", "msync",
    "mincore", "madvise", "shmget", "shmat", "shmctl", "dup", "dup2", "pause", "nanosleep", "getpid",
)  # fmt: skip
EPERM, EINVAL, ENOSYS = 1, 22, 38


def answer(program: Program, number: int, *args: int, abi: Abi = X86_64) -> int:
    """What a program returns for a call."""
    data = SeccompData(number, abi.audit_arch, args=(*args, *[0] * (6 - len(args))))
    return run(program, data, little_endian=abi.little_endian)


def compiled(*rules: Syscall, default: Action = Action.ERRNO, runtime: RuntimeModel = CRUN) -> Program:
    """A profile for x86_64; by crun, so that no stub is in the way."""
    return compile_profile(Profile(default, syscalls=rules), X86_64, runtime=runtime)


def test_the_native_abi_is_always_there() -> None:
    for native in (X86_64, AARCH64, S390X):
        program = compile_profile(Profile(Action.ALLOW), native)
        check(program)
        assert answer(program, native.base + 1, abi=native) == RET_ALLOW
    assert answer(compile_profile(Profile(Action.ALLOW), X86_64), 1, abi=X86) == RET_KILL_THREAD
    listed = compile_profile(Profile(Action.ALLOW, architectures=("SCMP_ARCH_X86",)), X86_64)
    assert {answer(listed, 1, abi=abi) for abi in (X86_64, X86)} == {RET_ALLOW}


def test_errno_is_eperm_where_none_is_given() -> None:
    program = compiled(Syscall(("read",), Action.TRACE), Syscall(("write",), Action.ERRNO, EINVAL))
    assert answer(program, 0) == RET_TRACE | EPERM
    assert answer(program, 1) == RET_ERRNO | EINVAL
    assert answer(program, 2) == RET_ERRNO | EPERM


@pytest.mark.parametrize(
    ("action", "value"),
    [(Action.KILL, RET_KILL_THREAD), (Action.TRAP, RET_TRAP), (Action.LOG, RET_LOG), (Action.ALLOW, RET_ALLOW)],
)
def test_errnos_beside_other_actions_are_dropped_by_runc(action: Action, value: int) -> None:
    rule = Syscall(("read",), action, EINVAL)
    assert answer(compiled(rule, runtime=RUNC), 0) == value
    with pytest.raises(CompileError, match="crun does not take"):
        compiled(rule, runtime=CRUN)


def test_rules_equal_to_the_default_vanish() -> None:
    """Even where they are conditional, and would be asked before others: what they say is not said at all."""
    eperm = Syscall(("socket",), Action.ERRNO, EPERM, (Arg(0, 40, Operator.MASKED_EQ, 40),))
    allowed = Syscall(("socket",), Action.ALLOW, None, (Arg(0, 1, Operator.GE),))
    assert answer(compiled(eperm, allowed), 41, 40) == RET_ALLOW
    assert answer(compiled(replace(eperm, errno_ret=EINVAL), allowed), 41, 40) == RET_ERRNO | EINVAL


def test_names_that_nobody_knows_are_left_out() -> None:
    assert compiled(Syscall(("read", "no_such_call"), Action.ALLOW)) == compiled(Syscall(("read",), Action.ALLOW))


def test_names_of_other_machines_are_no_error() -> None:
    program = compiled(Syscall(("socketcall", "read"), Action.ALLOW))
    assert answer(program, 0) == RET_ALLOW


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    """``!= 38`` and ``!= 40`` together let every family through."""
    both = tuple(Arg(0, family, Operator.NE) for family in (38, 40))
    program = compiled(Syscall(("socket",), Action.ALLOW, None, both))
    assert {answer(program, 41, family) for family in (2, 38, 40)} == {RET_ALLOW}


def test_conditions_on_several_arguments_must_all_hold() -> None:
    both = (Arg(0, 2, Operator.EQ), Arg(1, 1, Operator.EQ))
    program = compiled(Syscall(("socket",), Action.ALLOW, None, both))
    assert answer(program, 41, 2, 1) == RET_ALLOW
    assert answer(program, 41, 2, 2) == answer(program, 41, 1, 1) == RET_ERRNO | EPERM


def test_crun_reads_six_conditions_of_a_rule() -> None:
    seven = Syscall(("read",), Action.ALLOW, None, tuple(Arg(0, value, Operator.EQ) for value in range(7)))
    assert answer(compiled(seven, runtime=CRUN), 0, 6) == RET_ERRNO | EPERM
    assert answer(compiled(seven, runtime=RUNC), 0, 6) == RET_ALLOW


def test_more_than_32_names_make_a_tree() -> None:
    """Of names as they stand in the rules, even of those that make no rule."""
    listed = replace(RUNC, tree_above=None)
    for names, same in ((NAMES[:32], True), (NAMES[:33], False)):
        rule = Syscall(names, Action.ALLOW)
        assert (compiled(rule, runtime=RUNC) == compiled(rule, runtime=listed)) is same
    vanishing = Syscall(NAMES[:30], Action.ERRNO)
    rules = (Syscall(("read", "write", "close"), Action.ALLOW), vanishing)
    assert compiled(*rules, runtime=RUNC) != compiled(*rules, runtime=listed)


def test_the_stub_stands_in_front() -> None:
    program = compiled(Syscall(("read", "socket"), Action.ALLOW), runtime=RUNC)
    assert answer(program, 40) == RET_ERRNO | EPERM
    assert answer(program, 42) == RET_ERRNO | ENOSYS


def test_rules_that_vanish_still_move_the_stub() -> None:
    """So a rule that is added to say nothing can take ENOSYS from hundreds of numbers."""
    base = (Syscall(("read", "rseq"), Action.ALLOW),)
    assert answer(compiled(*base, runtime=RUNC), 425) == RET_ERRNO | ENOSYS
    silent = Syscall(("io_uring_setup", "io_uring_register"), Action.ERRNO, EPERM)
    assert answer(compiled(*base, silent, runtime=RUNC), 424) == RET_ERRNO | EPERM


def test_refusals_of_runc() -> None:
    for profile, message in (
        (Profile(Action.NOTIFY), "NOTIFY as the default"),
        (Profile(Action.ALLOW, syscalls=(Syscall(("read", "write"), Action.NOTIFY),)), "NOTIFY for write"),
        (Profile(Action.ALLOW, architectures=("SCMP_ARCH_PARISC",)), "does not know the architecture SCMP_ARCH_PARISC"),
    ):
        with pytest.raises(CompileError, match=message):
            compile_profile(profile, X86_64, runtime=RUNC)


def test_contradictions_are_refused_with_the_rule_that_made_them() -> None:
    """Two rules with the same conditions: libseccomp gives EEXIST, and the container does not start."""
    same = (Arg(0, 40, Operator.EQ),)
    with pytest.raises(
        CompileError, match=r"the rule for socket: .*contradicts a rule on the same system call.*\(-17\)"
    ):
        compiled(Syscall(("socket",), Action.ALLOW, None, same), Syscall(("socket",), Action.ERRNO, 97, same))


def test_an_errno_that_no_kernel_returns_is_refused() -> None:
    with pytest.raises(CompileError, match="-22"):
        compiled(Syscall(("read",), Action.ERRNO, 5000))


def test_machines_of_the_other_byte_order() -> None:
    """A program of more than 255 instructions has returns repeated, whose bytes libseccomp swaps once too often when it compiles
    for another machine."""
    rules = (Syscall((*NAMES, "socketcall"), Action.ALLOW), Syscall(("clone3",), Action.ERRNO, ENOSYS))
    many = tuple(Syscall(("personality",), Action.ALLOW, None, (Arg(0, n, Operator.EQ),)) for n in range(200))
    profile = Profile(Action.ERRNO, None, ("SCMP_ARCH_S390", "SCMP_ARCH_S390X"), syscalls=(*rules, *many))
    program = compile_profile(profile, S390X)
    check(program)
    returns = {line.k for line in program if line.code == 6}
    assert returns == {RET_ALLOW, RET_ERRNO | EPERM, RET_ERRNO | ENOSYS, RET_KILL_THREAD}
    assert answer(program, 136, 199, abi=S390X) == RET_ALLOW
    assert answer(program, 136, 200, abi=S390X) == RET_ERRNO | EPERM


def test_older_runcs() -> None:
    """Before 1.2 there was no tree, and a stub for listed architectures only."""
    old, new = runc_model((1, 1, 15)), runc_model((1, 2))
    assert new == RUNC
    profile = Profile(Action.ERRNO, syscalls=(Syscall(("read", "write"), Action.ALLOW),))
    assert answer(compile_profile(profile, X86_64, runtime=old), 400) == RET_ERRNO | EPERM
    assert answer(compile_profile(profile, X86_64, runtime=new), 400) == RET_ERRNO | ENOSYS
    assert old.tree_above is None
    assert not runc_model((1, 1, 2)).stub_s390_setup
    assert "SCMP_ARCH_LOONGARCH64" in runc_model((1, 5, 0)).architectures - RUNC.architectures


def test_every_runtime_has_a_name() -> None:
    assert {name: model.name for name, model in RUNTIMES.items()} == {"runc": "runc", "crun": "crun"}
