"""runc's ENOSYS stub: what runc puts in front of the program that libseccomp made.

A profile denies what it does not name, with EPERM as a rule; but a libc that tries a system call newer than the profile must be
told ENOSYS, or it will not fall back to an older one. So runc returns ENOSYS for every number above the highest that the profile
names, ABI by ABI, before the filter itself is asked. Whoever adds a name to a profile may thereby change the answer to all the
numbers below it.

Source: ``libcontainer/seccomp/patchbpf/enosys_linux.go`` of runc; the instructions here are those of its 1.4.0, one by one. Go
walks its map of architectures in random order: where a filter has several, equality with a program that runc made is up to the
order of their sections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from errno import ENOSYS

from seccomp_floor.abi import X32_BIT, Abi
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.program import RET_ERRNO, Instruction, Program
from seccomp_floor.profile import Action, Profile

__all__ = ["highest_numbers", "stub", "wants_stub"]

_RET_ENOSYS = Instruction(op.RET_K, 0, 0, RET_ERRNO | ENOSYS)
_S390_SETUP = 0
"""On s390 and s390x a number that the kernel does not know arrives as 0, ``setup(2)``, which nothing has used for decades."""

_X86_64 = 0xC000_003E
_LONGEST_JUMP = 255


def wants_stub(profile: Profile) -> bool:
    """Whether runc adds a stub: where the default denies, NOTIFY included.

    It means to leave it out for a default errno of ENOSYS as well, but compares that errno with a whole return value.
    """
    if profile.default_errno_ret == RET_ERRNO | ENOSYS:
        return False
    return profile.default_action not in (Action.ALLOW, Action.LOG, Action.TRACE)


def highest_numbers(names: Iterable[str], abis: Iterable[Abi], resolve_on: Callable[[str, Abi], int]) -> dict[Abi, int]:
    """The highest number that any of these names has on each ABI; 0 where none of them is above 0 there.

    :param resolve_on: as ``seccomp_syscall_resolve_name_arch``: calls that an ABI also has behind a multiplexer are negative,
        so that ``socket`` does not count on x86
    """
    names = tuple(dict.fromkeys(names))
    return {abi: max((resolve_on(name, abi) for name in names), default=0) for abi in abis}


def stub(highest: dict[Abi, int], *, s390_setup: bool = True) -> Program:
    """The stub for these ABIs, in this order.

    :param highest: from :func:`highest_numbers`
    :param s390_setup: whether number 0 gets ENOSYS on s390 and s390x, as it does since runc 1.1.3
    """
    by_audit_arch: dict[int, list[tuple[Abi, int]]] = {}
    for abi, number in highest.items():
        known = by_audit_arch.setdefault(abi.audit_arch, [])
        if number > 0:
            known.append((abi, number))

    tail: list[Instruction] = [_ja(1), _RET_ENOSYS]
    starts: dict[int, int] = {}  # of a section, counted from the program's end
    for audit_arch, known in by_audit_arch.items():
        if known:
            to_enosys = len(tail) - 1
            section = _x86_64_and_x32(known, to_enosys) if len(known) == 2 else _one(*known[0], to_enosys, s390_setup)
            tail = [_load(0), *section, *tail]
            starts[audit_arch] = len(tail)

    tail = [_ja(len(tail)), *tail]
    for audit_arch in by_audit_arch:
        jump = len(tail) - starts.get(audit_arch, 0)
        if jump <= _LONGEST_JUMP:
            tail = [Instruction(op.JEQ, jump, 0, audit_arch), *tail]
        else:
            tail = [Instruction(op.JEQ, 0, 1, audit_arch), _ja(jump), *tail]
    return (_load(4), *tail)


def _one(abi: Abi, number: int, to_enosys: int, s390_setup: bool) -> Sequence[Instruction]:
    if to_enosys + 1 <= _LONGEST_JUMP:
        section = [Instruction(op.JGT, to_enosys + 1, 0, number), _ja(to_enosys + 1)]
    else:
        section = [Instruction(op.JGT, 0, 1, number), _RET_ENOSYS, _ja(to_enosys + 1)]
    if abi.audit_arch == _X86_64:  # a call of the other ABI of the two goes by
        skip = len(section) - 1
        other = (0, skip) if abi.base == X32_BIT else (skip, 0)
        section = [Instruction(op.JSET, *other, X32_BIT), *section]
    if s390_setup and abi.short in ("s390", "s390x"):
        section = [Instruction(op.JEQ, 0, 1, _S390_SETUP), _RET_ENOSYS, *section]
    return section


def _x86_64_and_x32(known: list[tuple[Abi, int]], to_enosys: int) -> Sequence[Instruction]:
    x32, x86_64 = (number for _, number in sorted(known, key=lambda pair: pair[0].base != X32_BIT))
    choose = Instruction(op.JSET, 1, 0, X32_BIT)
    if to_enosys + 2 <= _LONGEST_JUMP:
        return [
            choose,
            Instruction(op.JGT, to_enosys + 2, 1, x86_64),
            Instruction(op.JGT, to_enosys + 1, 0, x32),
            _ja(to_enosys + 1),
        ]
    return [
        choose,
        Instruction(op.JGT, 1, 2, x86_64),
        Instruction(op.JGT, 0, 1, x32),
        _RET_ENOSYS,
        _ja(to_enosys + 1),
    ]


def _load(offset: int) -> Instruction:
    return Instruction(op.LD_ABS, 0, 0, offset)


def _ja(skip: int) -> Instruction:
    return Instruction(op.JA, 0, 0, skip)
