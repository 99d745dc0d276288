"""Profiles in few words, and what becomes of calls under them."""

from __future__ import annotations

from seccomp_floor.abi import Abi, abi_named
from seccomp_floor.bpf.compile import RUNC, RuntimeModel, compile_profile
from seccomp_floor.bpf.libseccomp import library
from seccomp_floor.bpf.machine import SeccompData, run
from seccomp_floor.bpf.program import describe
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

__all__ = ["ALL_X86", "X32", "X86", "X86_64", "allowed", "arg", "denied", "outcome", "profile", "rule"]

X86_64, X86, X32 = map(abi_named, ("x86_64", "x86", "x32"))
ALL_X86 = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")


def arg(index: int, op: str, value: int, value_two: int = 0) -> Arg:
    """A condition: ``arg(0, "EQ", 40)``; for ``MASKED_EQ`` the mask comes first."""
    return Arg(index, value, Operator[op], value_two)


def rule(names: str, action: Action, errno: int | None = None, *args: Arg) -> Syscall:
    """A rule for names in a row."""
    return Syscall(tuple(names.split()), action, errno, args)


def allowed(names: str, *args: Arg) -> Syscall:
    """A rule that allows."""
    return rule(names, Action.ALLOW, None, *args)


def denied(names: str, errno: int, *args: Arg) -> Syscall:
    """A rule that gives an errno."""
    return rule(names, Action.ERRNO, errno, *args)


def profile(
    *rules: Syscall,
    default: Action = Action.ERRNO,
    errno: int | None = None,
    architectures: tuple[str, ...] = ALL_X86,
) -> Profile:
    """A profile, for x86_64 with its other ABIs where nothing else is said."""
    return Profile(default, errno, architectures, syscalls=rules)


def outcome(
    section: Profile, name: str, *args: int, abi: Abi = X86_64, native: Abi = X86_64, runtime: RuntimeModel = RUNC
) -> str:
    """What a call gets under a section, as ``ALLOW`` or ``ERRNO(EPERM)``."""
    number = library(runtime.library).number(name, abi)
    assert number is not None, f"{abi.short} has no {name}"
    program = compile_profile(section, native, runtime=runtime)
    data = SeccompData(number, abi.audit_arch, args=(*args, *[0] * (6 - len(args))))
    return describe(run(program, data, little_endian=abi.little_endian))
