"""From a profile and a floor to the section that a container gets: their meet, in rules that libseccomp compiles rightly.

The meet is easy to say and hard to write down, since libseccomp merges, reorders and drops rules (:mod:`.sockets` says how). So
there are several ways to write it, in order of preference, and whoever asks proves each until one holds: nothing here decides
what is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from errno import EAFNOSUPPORT, ENOSYS, EPERM

from seccomp_floor.abi import Abi, abis_of_machine
from seccomp_floor.doors import SYS_SOCKET, SYS_SOCKETPAIR, Resolve
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall
from seccomp_floor.reconcile.says import (
    ANY,
    MULTIPLEXED,
    NONE_ABOVE,
    SOCKETCALLS,
    Answer,
    Rule,
    default_answer,
    multiplexed_wide,
    rules_for,
    socketcall_rules,
    written,
)
from seccomp_floor.reconcile.sockets import Companions, Encoded, deny_calls, deny_families

__all__ = ["Candidate", "Change", "candidates", "open_profile"]


@dataclass(frozen=True, slots=True)
class Change:
    """Rules of the profile that became others. ``reason``: for people. ``before`` is empty where rules were added."""

    reason: str
    before: tuple[Syscall, ...]
    after: tuple[Syscall, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A section that should be the meet of profile and floor, with every change it makes to the profile."""

    section: Profile
    changes: tuple[Change, ...]


def open_profile(native: Abi) -> Profile:
    """What a container without a profile may do, as a profile: everything, on every ABI of the machine.

    It must list them: on an ABI that a section does not list, every call is SIGSYS. Its flags stay absent, so that runtimes add
    SPEC_ALLOW where they can: without that, having a filter would turn on mitigations that a container without one runs without.
    """
    return Profile(Action.ALLOW, architectures=tuple(abi.name for abi in abis_of_machine(native)))


def candidates(
    profile: Profile, floor: Floor, abis: Sequence[Abi], resolve: Resolve, *, stub: bool
) -> Iterator[Candidate]:
    """Ways to write the meet of profile and floor, the best first.

    :param abis: those that the profile's filter knows
    :param stub: whether the runtime answers ENOSYS to all numbers above the highest one named (see :mod:`..bpf.runc`)
    """
    seen = {profile}
    for style in _STYLES:
        candidate = _Writer(profile, floor, tuple(abis), resolve, stub, style).candidate()
        if candidate.section not in seen:
            seen.add(candidate.section)
            yield candidate


@dataclass(frozen=True, slots=True)
class _Style:
    """``swap``: an errno of the floor that equals the default's gives way to another. ``anchor``: against the lost load, where
    no unconditional rule prevents it. ``blunt``: ``socketcall`` is denied whole; ``coarse``: and so is every other call that is
    denied whatever its arguments, though the profile may have denied part of it in its own way."""

    swap: bool = False
    anchor: bool = False
    blunt: bool = False
    coarse: bool = False


_STYLES = (
    _Style(),
    _Style(swap=True),
    _Style(anchor=True),
    _Style(blunt=True),
    _Style(swap=True, blunt=True),
    _Style(swap=True, blunt=True, coarse=True),
)


class _Writer:
    """One way of writing one section: ``first``, the profile's rules as far as they stay, ``last``."""

    def __init__(
        self, profile: Profile, floor: Floor, abis: tuple[Abi, ...], resolve: Resolve, stub: bool, style: _Style
    ) -> None:
        self.profile, self.floor, self.abis, self.resolve, self.stub, self.style = (
            profile, floor, abis, resolve, stub, style,
        )  # fmt: skip
        self.default = default_answer(profile)
        self.first: list[Syscall] = []
        self.last: list[Syscall] = []
        self.replaced: dict[str, dict[int, tuple[Syscall, ...]]] = {}  # by name and rule: what stands there now
        self.changes: list[Change] = []

    def candidate(self) -> Candidate:
        whole = dict(self.floor.syscalls)
        if self.floor.families:
            if self.floor.io_uring:
                whole |= dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), ENOSYS) | whole
            self._sockets(whole)
        for name, code in whole.items():
            if any(self.resolve(name, abi) is not None for abi in self.abis):
                self._whole(name, self._swapped(code) if name in MULTIPLEXED else Answer.of_floor(self.floor, code))
        if self.style.anchor:
            self._anchor()
        rules = [*self.first, *self._kept(), *self.last]
        return Candidate(replace(self.profile, syscalls=tuple(rules)), tuple(self.changes))

    def _swapped(self, code: int) -> Answer:
        """The floor's answer, or another where it may not be the default's."""
        answer = Answer.of_floor(self.floor, code)
        if self.style.swap and answer == self.default:
            return Answer.of_floor(self.floor, EAFNOSUPPORT if code != EAFNOSUPPORT else EPERM)
        return answer

    def _kept(self) -> Iterator[Syscall]:
        """The profile's rules, without the names that were taken out, and with what stands there for them."""
        for origin, rule in enumerate(self.profile.syscalls):
            out = {name for name in rule.names if origin in self.replaced.get(name, ())}
            if not out:
                yield from self._anchored(rule)
                continue
            names = tuple(name for name in rule.names if name not in out)
            if names:
                yield from self._anchored(replace(rule, names=names))
            for name in dict.fromkeys(name for name in rule.names if name in out):
                yield from self.replaced[name][origin]

    # Calls that are denied whatever their arguments

    def _whole(self, name: str, denial: Answer) -> None:
        rules = rules_for(self.profile, name)
        if any(
            rule.answer.weaker_than(denial) for through in MULTIPLEXED.get(name, ()) for rule in self._rules(through)
        ):
            # Only a rule without conditions swallows what libseccomp adds for the calls behind it.
            self._put(
                name, Encoded((written(name, (), denial),), ()), f"{name} is denied, and all that goes through it"
            )
            return
        weak = [rule for rule in rules if rule.answer.weaker_than(denial)]
        always = any(all(arg in (ANY(arg.index), NONE_ABOVE(arg.index)) for arg in rule.args) for rule in rules)
        open_by_default = self.default.weaker_than(denial) and not always
        reason = f"{name} is denied"
        if (open_by_default and len(weak) == len(rules)) or (self.style.coarse and (weak or open_by_default)):
            args = (ANY(0), ANY(4)) if self.style.anchor and self._lacking(name) else ()
            self._put(name, Encoded((), (written(name, args, denial),)), reason)
            return
        if weak or open_by_default:
            places: dict[int, tuple[Syscall, ...]] = dict.fromkeys(self._origins(name), ())
            for rule in rules:
                answer = denial if rule in weak else rule.answer
                places[rule.origin] = (*places[rule.origin], written(name, rule.args, answer))
            self.replaced[name] = places
            after = [rule for rules_there in places.values() for rule in rules_there]
            if open_by_default:
                self.last.append(written(name, (ANY(0),), denial))
                after.append(self.last[-1])
            self.changes.append(Change(reason, _stated(name, rules), tuple(after)))

    def _rules(self, name: str) -> list[Rule]:
        """The profile's rules for a call, unless the floor denies it whole."""
        return [] if name in dict(self.floor.syscalls) else rules_for(self.profile, name)

    def _origins(self, name: str) -> list[int]:
        """The rules of the profile that name a call."""
        return [n for n, rule in enumerate(self.profile.syscalls) if name in rule.names]

    def _lacking(self, name: str) -> bool:
        """Whether one of the ABIs lacks a call."""
        return any(self.resolve(name, abi) is None for abi in self.abis)

    def _put(self, name: str, encoded: Encoded, reason: str) -> None:
        """The rules of a call are these now, wherever the profile had its own."""
        origins = self._origins(name)
        self.replaced[name] = dict.fromkeys(origins, ())
        self.first += encoded.first
        self.last += encoded.last
        before = tuple(replace(self.profile.syscalls[n], names=(name,)) for n in origins)
        self.changes.append(Change(reason, before, (*encoded.first, *encoded.last)))

    # Sockets

    def _sockets(self, whole: dict[str, int]) -> None:
        multiplexing = [abi for abi in self.abis if abi.socketcall is not None]
        wide = multiplexed_wide(self.abis)
        families = self.floor.numbers
        denial = self._swapped(self.floor.family_errno)
        call_denial = self._swapped(ENOSYS)
        denied = [SYS_SOCKET, *([SYS_SOCKETPAIR] if self.floor.denies_pairs else [])] if self.floor.socketcall else []
        leaves: list[Rule] = []
        dropping = False
        names = [name for name in ("socket", "socketpair") if name not in whole]
        encoded: dict[str, Encoded] = {}
        for name in names:
            rules = rules_for(self.profile, name)
            call = SOCKETCALLS[name]
            companions = Companions()
            if multiplexing and "socketcall" not in whole and not self.style.blunt:
                companions = self._companions(
                    name, rules, families, denial, call_denial if call in denied else None, wide=wide
                )
            those = deny_families(name, rules, self.default, families, denial, companions)
            if those.first or not _same(those.last, name, rules):
                encoded[name] = those
                leaves += companions.leaves
                dropping |= companions.drop
        if multiplexing and "socketcall" not in whole:
            self._socketcall(denied, call_denial, leaves, wide, dropping)
        for name, those in reversed(encoded.items()):
            if multiplexing and "socketcall" not in self.replaced:
                # Nothing absorbs companions but those of the profile's own rules, if they come first.
                those = Encoded((), (*those.last, *those.first))
            self._put(name, those, _FAMILIES.format(name=name, families=" and ".join(self.floor.families)))

    def _companions(
        self,
        name: str,
        rules: Sequence[Rule],
        families: Sequence[int],
        denial: Answer,
        call_denial: Answer | None,
        *,
        wide: bool,
    ) -> Companions:
        """:param call_denial: what the floor answers to the call behind socketcall; None: nothing"""
        if call_denial is not None and call_denial == self.default:
            return Companions(drop=any(rule.answer.weaker_than(call_denial) for rule in rules))
        alone = deny_families(name, rules, self.default, families, denial, Companions())
        if all(Answer.of(rule.action, rule.errno_ret) != denial for rule in (*alone.first, *alone.last)):
            return Companions()
        call = Arg(0, SOCKETCALLS[name], Operator.EQ)
        leaves = {rule.but(0): Rule((call, *rule.but(0)), rule.answer) for rule in reversed(rules)}
        if () in leaves:
            leaves = {(): leaves[()]}
        if not self.default.weaker_than(denial) or () in leaves or (wide and leaves):
            return Companions(tuple(leaves.values()))
        if call_denial is not None and not leaves:
            return Companions()  # the denial of the call itself comes before them all
        return Companions(drop=True)

    def _socketcall(
        self, denied: Sequence[int], denial: Answer, leaves: Sequence[Rule], wide: bool, dropping: bool
    ) -> None:
        rules = socketcall_rules(self.profile)
        own = rules_for(self.profile, "socketcall")
        if self.style.blunt:
            if denied:
                self._put("socketcall", Encoded((written("socketcall", (), denial),), ()), "socketcall is denied whole")
            return
        named = [name for rule in self.profile.syscalls for name in rule.names]
        silent = self.stub and not own
        if silent and all(0 < self._highest(abi, named) < abi.socketcall for abi in self.abis if abi.socketcall):
            return  # the runtime answers ENOSYS by itself, and must go on doing so for the numbers up to there
        drop = None
        if dropping:
            drop = Answer.of_floor(self.floor, EAFNOSUPPORT)
            if drop == self.default:
                drop = Answer.of_floor(self.floor, EPERM)
        encoded = deny_calls(rules, own, self.default, denied, denial, leaves, wide=wide, drop=drop)
        if encoded.first or not _same(encoded.last, "socketcall", own):
            self._put("socketcall", encoded, _SOCKETCALL)

    def _highest(self, abi: Abi, names: Iterable[str]) -> int:
        """The highest number that these names have on an ABI, as runc counts."""
        numbers = (self.resolve(name, abi) for name in names if abi.socketcall is None or name not in SOCKETCALLS)
        return max((number for number in numbers if number is not None), default=0)

    # The lost load

    def _anchored(self, rule: Syscall) -> Iterator[Syscall]:
        """A rule such that no call which an ABI lacks comes before all others there."""
        lacking = [name for name in rule.names if self._lacking(name)] if self.style.anchor and not rule.args else []
        if not lacking:
            yield rule
            return
        names = tuple(name for name in rule.names if name not in lacking)
        if names:
            yield replace(rule, names=names)
        yield replace(rule, names=tuple(lacking), args=(ANY(0), ANY(4)))

    def _anchor(self) -> None:
        """A rule that never holds, on a call that every ABI has.

        Up to 32 names, libseccomp asks for calls in the order of how few conditions they have. Where the first one is a call that
        an ABI lacks, it is left out there, and with it the instruction that loads the number: nothing after it works.
        """
        made = [*self.first, *self._kept(), *self.last]
        named = dict.fromkeys(name for rule in made for name in rule.names)
        for name in (*_EVERYWHERE, *named):
            if name in SOCKETCALLS or rules_for(self.profile, name):
                continue
            numbers = {abi: self.resolve(name, abi) for abi in self.abis}
            if all(
                number is not None and (not self.stub or number <= self._highest(abi, named))
                for abi, number in numbers.items()
            ):
                answer = Answer.of(Action.ERRNO, EPERM if self.default != Answer.of(Action.ERRNO, EPERM) else ENOSYS)
                rule = written(name, (Arg(0, 0, Operator.LT),), answer)
                self.first.append(rule)
                self.changes.append(Change("a rule that never holds, so that libseccomp loads the number", (), (rule,)))
                return


_EVERYWHERE = ("read", "write", "close", "getpid", "exit")

_FAMILIES = "{name}: {families} are denied, whatever the high half of the register"
_SOCKETCALL = "socketcall: libseccomp would add a rule for each of socket's, without the family"


def _stated(name: str, rules: Sequence[Rule]) -> tuple[Syscall, ...]:
    return tuple(written(name, rule.args, rule.answer) for rule in rules)


def _same(encoded: Sequence[Syscall], name: str, rules: Sequence[Rule]) -> bool:
    """Whether the rules say what the profile said already, whatever their order."""
    before = _stated(name, rules)
    return len(before) == len(encoded) and set(before) == set(encoded)
