"""A profile with another default than its own, and every system call that libseccomp knows named with what its own default said.

For two ends. On a way on which the default's errno is lost (NRI carries everything of a section but ``defaultErrnoRet``), what
arrives would deny with EPERM what the profile denies with, say, ENOSYS. And on 64-bit ABIs with ``socketcall``, a companion (see
:mod:`.sockets`) can be absorbed by a rule, but not by a default.

Numbers that no system call has cannot be named: those alone get the new default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from errno import ENOSYS

from seccomp_floor.abi import Abi
from seccomp_floor.profile import Action, Profile, Syscall
from seccomp_floor.reconcile.says import ANY, MULTIPLEXED, Answer, default_answer, rules_for

__all__ = ["by_name"]

U32 = (1 << 32) - 1


def by_name(
    profile: Profile,
    action: Action,
    errno: int | None,
    abis: Sequence[Abi],
    calls_of: Callable[[Abi], Mapping[str, int]],
    ceilings: Mapping[Abi, int] | None,
) -> Profile:
    """The profile with this action and errno as its default.

    :param abis: those that the profile's filter knows
    :param calls_of: the calls of an ABI by name, with their numbers
    :param ceilings: the highest number named on each ABI, where the runtime answers ENOSYS to all above it
    """
    default = default_answer(profile)
    whole: list[str] = []
    rest: list[str] = []
    for name in sorted(_nameable(abis, calls_of, ceilings, default)):
        multiplexer = next((by for by, through in MULTIPLEXED.items() if name in through), None)
        rules = rules_for(profile, name)
        if any(not rule.args for rule in rules) or (multiplexer and (rules or rules_for(profile, multiplexer))):
            continue  # one for a multiplexed call would also be one for the multiplexer, where others say otherwise
        (rest if rules or name in MULTIPLEXED else whole).append(name)
    named = [
        Syscall(tuple(names), default.action, default.errno, args)
        for names, args in ((whole, ()), (rest, (ANY(0),)))
        if names
    ]
    # What was no rule, since it said what the default said, would be one now.
    kept = [rule for rule in profile.syscalls if Answer.of(rule.action, rule.errno_ret) != default]
    return replace(profile, default_action=action, default_errno_ret=errno, syscalls=(*kept, *named))


def _nameable(
    abis: Sequence[Abi],
    calls_of: Callable[[Abi], Mapping[str, int]],
    ceilings: Mapping[Abi, int] | None,
    default: Answer,
) -> Iterator[str]:
    """The calls that may be named without taking ENOSYS from other numbers."""
    free = ceilings is None or default == Answer.of(Action.ERRNO, ENOSYS)
    tables = [(calls_of(abi), U32 if free or ceilings is None else ceilings.get(abi, 0)) for abi in abis]
    for name in {name for calls, _ in tables for name in calls}:
        if all(calls[name] <= ceiling for calls, ceiling in tables if name in calls):
            yield name
