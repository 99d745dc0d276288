"""What a profile says about one system call: its rules, taken apart as runtimes and libseccomp take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from seccomp_floor.abi import Abi
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

__all__ = [
    "ANY", "IPC_CALLS", "LOW", "MULTIPLEXED", "NONE_ABOVE", "SOCKETCALLS", "U64", "Answer", "Rule", "Says", "default_answer",
    "holds", "multiplexed_wide", "rules_for", "socketcall_rules", "written",
]  # fmt: skip

LOW, U64 = (1 << 32) - 1, (1 << 64) - 1

EPERM = 1
AUDIT_ARCH_64BIT = 0x8000_0000

SOCKETCALLS = {
    name: call
    for call, name in enumerate(
        (
            "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
            "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg",
            "sendmmsg",
        ),
        1,
    )
}  # fmt: skip
"""What goes through ``socketcall(2)``, by name (include/uapi/linux/net.h)."""

IPC_CALLS = frozenset(
    {
        "semop", "semget", "semctl", "semtimedop", "msgsnd", "msgrcv", "msgget", "msgctl", "shmat", "shmdt", "shmget",
        "shmctl",
    }
)  # fmt: skip
"""What goes through ``ipc(2)``."""

MULTIPLEXED = {"socketcall": frozenset(SOCKETCALLS), "ipc": IPC_CALLS}
"""The multiplexers that some ABIs have, and what goes through each."""

# From the strictest to the most permissive (seccomp(2)).
_RANKS = {
    action: rank
    for rank, action in enumerate(
        (
            Action.KILL_PROCESS, Action.KILL_THREAD, Action.TRAP, Action.ERRNO, Action.NOTIFY, Action.TRACE, Action.LOG,
            Action.ALLOW,
        )
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An action with its errno, such that equal answers are equal values: made by :meth:`of`."""

    action: Action
    errno: int | None

    @staticmethod
    def of(action: Action, errno: int | None = None) -> Answer:
        """``errno`` counts for ERRNO and TRACE only, where none means EPERM."""
        if action is Action.KILL:
            action = Action.KILL_THREAD
        if action not in (Action.ERRNO, Action.TRACE):
            return Answer(action, None)
        return Answer(action, EPERM if errno is None else errno)

    @staticmethod
    def of_floor(floor: Floor, errno: int) -> Answer:
        """The floor's answer at a door that gives this errno."""
        return Answer.of(floor.action, errno)

    def weaker_than(self, other: Answer) -> bool:
        """Whether it lets more through, in the kernel's own order."""
        return _RANKS[self.action] > _RANKS[other.action]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for one call: ``args``, at most one for each argument, must all hold. ``origin``: the rule of the profile that it
    comes from, by its index."""

    args: tuple[Arg, ...]
    answer: Answer
    origin: int = -1

    def on(self, index: int) -> Arg | None:
        """Its condition on that argument."""
        return next((arg for arg in self.args if arg.index == index), None)

    def holds_on(self, index: int, value: int) -> bool:
        """Whether it can hold where that argument has this value."""
        arg = self.on(index)
        return arg is None or holds(arg, value)

    def but(self, index: int) -> tuple[Arg, ...]:
        """Its conditions on other arguments."""
        return tuple(arg for arg in self.args if arg.index != index)


def multiplexed_wide(abis: Iterable[Abi]) -> bool:
    """Whether one of these ABIs has ``socketcall`` and compares all 64 bits of its arguments: s390x and 64-bit PowerPC."""
    return any(abi.socketcall is not None and abi.audit_arch & AUDIT_ARCH_64BIT for abi in abis)


def ANY(index: int) -> Arg:  # noqa: N802 (reads like the operators beside which it stands)
    """A condition that always holds."""
    return Arg(index, 0, Operator.GE)


def NONE_ABOVE(index: int) -> Arg:  # noqa: N802
    """Another condition that always holds."""
    return Arg(index, U64, Operator.LE)


def default_answer(profile: Profile) -> Answer:
    """What the profile says of everything that it does not name."""
    return Answer.of(profile.default_action, profile.default_errno_ret)


def written(name: str, args: Iterable[Arg], answer: Answer) -> Syscall:
    """A rule as it stands in a profile."""
    return Syscall((name,), answer.action, answer.errno, tuple(args))


def rules_for(profile: Profile, name: str) -> list[Rule]:
    """The rules for a call that count, in order. An unconditional one is alone: nothing else is asked, wherever it stands."""
    default = default_answer(profile)
    found = []
    for origin, syscall in enumerate(profile.syscalls):
        answer = Answer.of(syscall.action, syscall.errno_ret)
        if answer != default and name in syscall.names:
            found += [Rule(args, answer, origin) for args in _alternatives(syscall.args)]
    return _unconditional(found) or found


def socketcall_rules(profile: Profile) -> list[Rule]:
    """The rules for ``socketcall`` on an ABI that has it: the profile's own, and those that libseccomp adds for each call that
    goes through it, with the call's number in place of the condition on argument 0 and the other conditions as they are."""
    default = default_answer(profile)
    found = []
    for origin, syscall in enumerate(profile.syscalls):
        answer = Answer.of(syscall.action, syscall.errno_ret)
        if answer == default:
            continue
        for name in syscall.names:
            call = SOCKETCALLS.get(name)
            if call is None and name != "socketcall":
                continue
            for args in _alternatives(syscall.args):
                if call is not None:
                    args = (Arg(0, call, Operator.EQ), *(arg for arg in args if arg.index))
                found.append(Rule(args, answer, origin))
    return _unconditional(found) or found


def _unconditional(rules: list[Rule]) -> list[Rule]:
    return next(([rule] for rule in rules if not rule.args), [])


def _alternatives(args: tuple[Arg, ...]) -> Iterator[tuple[Arg, ...]]:
    # Two conditions on one argument: runtimes make a rule of each condition, so that any of them is enough.
    if len({arg.index for arg in args}) == len(args):
        yield tuple(arg for arg in args if not _tautology(arg))
    else:
        for arg in args:
            yield () if _tautology(arg) else (arg,)


def _tautology(arg: Arg) -> bool:
    return arg.op is Operator.MASKED_EQ and arg.value == 0  # libseccomp leaves it out, whatever the second value


def holds(arg: Arg, value: int) -> bool:
    """Whether a condition holds for a 64-bit value."""
    match arg.op:
        case Operator.NE:
            return value != arg.value
        case Operator.LT:
            return value < arg.value
        case Operator.LE:
            return value <= arg.value
        case Operator.EQ:
            return value == arg.value
        case Operator.GE:
            return value >= arg.value
        case Operator.GT:
            return value > arg.value
        case Operator.MASKED_EQ:
            return value & arg.value == arg.value_two & arg.value


_CLASSES = {Operator.LT: 1, Operator.LE: 1, Operator.GE: 2, Operator.GT: 2}


def _turn(rule: Rule) -> tuple[int, int, int]:
    """When libseccomp asks a rule of several: those without argument 0 first; then equality, then LT and LE from the least
    value on, then GE and GT from the greatest."""
    first = rule.on(0)
    if first is None:
        return (-1, 0, 0)
    turn = _CLASSES.get(first.op, 0)
    return (turn, first.value if turn == 1 else -first.value if turn == 2 else 0, 0)


@dataclass(frozen=True, slots=True)
class Says:
    """What some rules and a default say about a call, as far as argument 0 decides."""

    rules: tuple[Rule, ...]
    default: Answer

    @staticmethod
    def of(rules: Iterable[Rule], default: Answer) -> Says:
        return Says(tuple(sorted(rules, key=_turn)), default)

    def at(self, value: int) -> tuple[Answer, ...]:
        """The answers that a call with this value of argument 0 can get, other arguments being anything."""
        found = []
        for rule in self.rules:
            if rule.holds_on(0, value):
                found.append(rule.answer)
                if not rule.but(0):
                    return tuple(dict.fromkeys(found))
        return tuple(dict.fromkeys([*found, self.default]))

    def above(self, low: int) -> tuple[Answer, ...]:
        """The answers to values that have these low 32 bits and others than zeros above them."""
        return tuple(dict.fromkeys(answer for value in self.values_of(low) if value > LOW for answer in self.at(value)))

    def values_of(self, low: int) -> list[int]:
        """Values with these low 32 bits: the least, and enough others to stand for all."""
        named = {arg.value >> 32 for rule in self.rules if (arg := rule.on(0))}
        named |= {arg.value_two >> 32 for rule in self.rules if (arg := rule.on(0))}
        highs = {0, 1, LOW} | {high + step for high in named for step in (-1, 0, 1)}
        return [high << 32 | low for high in sorted(highs) if 0 <= high <= LOW]
