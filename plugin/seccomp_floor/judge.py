"""From a container's profile to a section that is proven: the one way that every face of the project takes.

The profile is compiled as its runtime would compile it. If that program holds the floor already, the profile stays as it is, byte
for byte. Otherwise sections that should be the meet of profile and floor are compiled as well, each proven closed, and compared
with what it must be; the first that is closed and exact is the answer. Where none is exact, the closed one with the least
difference is, and the difference is said. Where none is closed, there is no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from errno import EACCES, EINVAL, ENOSYS, EOPNOTSUPP, EPERM

from seccomp_floor.abi import Abi
from seccomp_floor.bpf.compile import RUNC, CompileError, RuntimeModel, abis_of_filter, compile_profile
from seccomp_floor.bpf.equivalence import Difference, differences
from seccomp_floor.bpf.libseccomp import Library, library
from seccomp_floor.bpf.program import Program
from seccomp_floor.bpf.prove import Proof, prove
from seccomp_floor.bpf.runc import highest_numbers, wants_stub
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.floor import Floor, OnNoProfile, Policy
from seccomp_floor.profile import Action, Profile, as_nri_delivers
from seccomp_floor.reconcile import Candidate, Change, candidates, open_profile
from seccomp_floor.reconcile.by_name import by_name
from seccomp_floor.reconcile.hardened import hardened_profile
from seccomp_floor.reconcile.says import default_answer, multiplexed_wide

__all__ = ["Judgement", "Unprovable", "Way", "examine", "judge"]


class Unprovable(SeccompFloorError):  # noqa: N818 (reads as what it says)
    """No section could be proven: its text is why, with a counterexample where there is one."""


class Way(StrEnum):
    """How a section reaches the container's spec."""

    SPEC = "spec"  # written there as it is
    NRI = "nri"  # as an NRI adjustment

    def arrives(self, section: Profile) -> Profile:
        """What of a section is in the spec in the end."""
        return section if self is Way.SPEC else as_nri_delivers(section)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A section that is proven.

    ``section``: as it is to be handed on; None: the container had no profile and needs none. ``changes``: to the profile, none
    where it stays as it is. ``proof``: of the section's program (of None: nothing is denied). ``differences``: the calls that it
    answers otherwise than profile and floor together would.
    """

    section: Profile | None
    changes: tuple[Change, ...]
    proof: Proof
    differences: tuple[Difference, ...] = ()


def judge(
    profile: Profile | None, policy: Policy, native: Abi, *, way: Way = Way.SPEC, runtime: RuntimeModel = RUNC
) -> Judgement:
    """Find the section that a container gets for its profile.

    libseccomp can be made to run for ever by a profile: call this where it can be ended (:mod:`seccomp_floor.confine`).

    :param profile: the container's; None where it has none
    :param policy: whose floor holds, and which says what a container without a profile gets
    :param native: the machine's own ABI
    :raises InputError: the floor names a system call that libseccomp does not know
    :raises CompileError: the runtime refuses the profile itself
    :raises Unprovable: there is no section that could be proven
    :raises CannotJudgeError: the profile's program is too intricate to be judged in bounded time
    """
    court = _Court(policy.floor, native, way, runtime)
    if profile is not None:
        return court.reconciled(profile, court.compile(profile))
    if policy.apply.no_profile is OnNoProfile.HARDENED:
        hardened = hardened_profile(native)
        return court.reconciled(hardened, court.compile(hardened), added=hardened)
    return court.opened()


def examine(section: Profile, floor: Floor, native: Abi, *, runtime: RuntimeModel = RUNC) -> Proof:
    """Prove a section as it stands, as :func:`~seccomp_floor.bpf.prove.prove` does. :raises CompileError: the runtime refuses it"""
    return prove(
        [compile_profile(section, native, runtime=runtime)], floor, library(runtime.library).number, native=native
    )


@dataclass(frozen=True, slots=True)
class _Court:
    floor: Floor
    native: Abi
    way: Way
    runtime: RuntimeModel

    @property
    def library(self) -> Library:
        return library(self.runtime.library)

    def compile(self, section: Profile) -> Program:
        return compile_profile(section, self.native, runtime=self.runtime)

    def prove(self, *programs: Program) -> Proof:
        return prove(programs, self.floor, self.library.number, native=self.native)

    def opened(self) -> Judgement:
        """For a container without a profile."""
        proof = self.prove()
        if proof.holds:
            return Judgement(None, (), proof)
        base = open_profile(self.native)
        reason = "there is no filter: everything else stays allowed, on every ABI of the machine"
        return self._best(base, None, Change(reason, (), ()))

    def reconciled(self, profile: Profile, program: Program, *, added: Profile | None = None) -> Judgement:
        """For a container with a profile, or with one that is added."""
        first = Change("a container without a profile gets the hardened one", (), added.syscalls) if added else None
        proof = self.prove(program)
        if proof.holds:
            return Judgement(profile, (first,) if first else (), proof)
        return self._best(profile, program, first)

    def _best(self, base: Profile, program: Program | None, first: Change | None) -> Judgement:
        best: Judgement | None = None
        least = (0, 0, 0)
        failures = []
        for candidate in self._candidates(base):
            try:
                made = self.compile(self.way.arrives(candidate.section))
            except CompileError as error:
                failures.append(str(error))
                continue
            proof = self.prove(made)
            if not proof.holds:
                failures.append(str(proof.counterexamples[0]))
                continue
            different = differences(program, made, self.floor, self.library.number, native=self.native)
            changes = (first, *candidate.changes) if first else candidate.changes
            found = Judgement(candidate.section, changes, proof, different)
            calls, *_ = extent = self._extent(different)
            if calls == 0:  # at the best, another section would give another answer to numbers that no call has
                return found
            if best is None or extent < least:
                best, least = found, extent
        if best is None:
            raise Unprovable("no section could be proven to hold the floor: " + "; ".join(dict.fromkeys(failures)))
        return best

    def _candidates(self, base: Profile) -> Iterator[Candidate]:
        abis = abis_of_filter(base, self.native)
        default = default_answer(base)
        if self.way.arrives(base).default_errno_ret != base.default_errno_ret and default.errno != EPERM:
            reason = "defaultErrnoRet is lost on the way: each call is named with the errno that the default gave it"
            yield from self._by_name(base, abis, base.default_action, None, reason)
        yield from candidates(base, self.floor, abis, self.library.number, stub=self._stubbed(base))
        if multiplexed_wide(abis) and (not default.action.denies or default.errno == ENOSYS):
            reason = (
                "each call is named with what the default said: rules absorb what libseccomp adds, a default does not"
            )
            used = {rule.errno_ret or EPERM for rule in base.syscalls if rule.action is Action.ERRNO}
            unused = next(errno for errno in (EPERM, EACCES, EINVAL, EOPNOTSUPP, *range(1, 4096)) if errno not in used)
            yield from self._by_name(base, abis, Action.ERRNO, unused, reason)

    def _by_name(
        self, base: Profile, abis: tuple[Abi, ...], action: Action, errno: int | None, reason: str
    ) -> Iterator[Candidate]:
        ceilings = None
        if self._stubbed(base):
            names = (name for rule in base.syscalls for name in rule.names)
            ceilings = highest_numbers(names, abis, self.library.resolve_on)
        named = by_name(base, action, errno, abis, self.library.names, ceilings)
        change = Change(reason, (), tuple(rule for rule in named.syscalls if rule not in base.syscalls))
        for candidate in candidates(named, self.floor, abis, self.library.number, stub=self._stubbed(named)):
            yield replace(candidate, changes=(change, *candidate.changes))

    def _stubbed(self, section: Profile) -> bool:
        return self.runtime.stub and wants_stub(section)

    def _extent(self, different: tuple[Difference, ...]) -> tuple[int, int, int]:
        """How much differs: how many system calls that there are, in how many ways, and how many numbers in all."""
        known = total = 0
        for found in different:
            numbers = self.library.names(found.abi).values() if found.abi else (found.witness.nr,)
            for first, last in found.numbers:
                known += sum(first <= number <= last for number in numbers)
                total += last - first + 1
        return known, len(different), total
