"""The proof that a floor holds: no register contents reach a denied thing, or here are some that do.

A filter is a finite function of sixteen 32-bit words, and programs have no loops: what it answers to *every* call can be worked
out exactly. All words are free, on every ABI, since the high half of a register is the caller's even where the kernel drops it,
and 64-bit code can make 32-bit calls with all 64 bits set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from seccomp_floor.abi import ABIS, Abi, abis_of_machine
from seccomp_floor.bpf.decisions import Intricate
from seccomp_floor.bpf.engines import View, views
from seccomp_floor.bpf.entrances import STRANGERS, abi_slice, door_slice
from seccomp_floor.bpf.machine import SeccompData, run_stack
from seccomp_floor.bpf.program import RET_ALLOW, RET_USER_NOTIF, Program, action_of, check, describe, rank, strictest
from seccomp_floor.bpf.space import CannotJudgeError, Slice
from seccomp_floor.doors import MODULE_LOAD, Door, Resolve, doors, require_known
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action

__all__ = ["Counterexample", "Proof", "Status", "Verdict", "prove"]

MOST_PARTS = 20_000


class Status(StrEnum):
    """What became of a door on an ABI. Stable words, for JSON and metrics."""

    CLOSED = "closed"  # every call answers ERRNO, TRAP or KILL
    LOGGED = "logged"  # a floor that only watches: every call that is made is logged, or goes by a tracer or listener
    BREACHED = "breached"
    OPEN_BY_POLICY = "open-by-policy"  # the policy leaves the door open, and it is
    MODULE_LOAD = "module-load-only"  # hands out nothing, but the family's module may be loaded
    NOT_ADMITTED = "not-admitted"  # the filter denies every call of the ABI


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A call that the filter lets through a door that the floor denies: run on it, the filter returns ``value``.

    ``door`` is None where the filter admits an architecture that does not exist.
    """

    door: Door | None
    data: SeccompData
    value: int

    def __str__(self) -> str:
        where = f"{self.door.abi.short} {self.door.name}" if self.door else f"architecture {self.data.arch:#010x}"
        args = ", ".join(f"{arg:#x}" if arg > 9 else str(arg) for arg in self.data.args)
        opens = f", opens {self.door.opens}" if self.door and self.door.opens != self.door.name else ""
        return f"{where}: number {self.data.nr} with ({args}) gets {describe(self.value)}{opens}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the proof says of one door. ``counterexample``: where the door is breached."""

    door: Door
    status: Status
    counterexample: Counterexample | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What a filter, or several stacked, do to the doors of a floor.

    ``verdicts``: for every door of the ABIs that the filter admits or that the machine has. ``stranger``: a call of an
    architecture that does not exist and is let through.
    """

    verdicts: tuple[Verdict, ...]
    stranger: Counterexample | None = None

    @property
    def holds(self) -> bool:
        """Whether the filter does all that the floor asks: no door that it denies is breached."""
        return not self.counterexamples

    @property
    def closed(self) -> bool:
        """Whether all that the floor denies is denied; never true of a floor that only watches, unless nothing gets as far."""
        return self.holds and all(verdict.status is not Status.LOGGED for verdict in self.verdicts)

    @property
    def counterexamples(self) -> tuple[Counterexample, ...]:
        """A call for each breach."""
        found = [verdict.counterexample for verdict in self.verdicts if verdict.counterexample]
        return (*found, self.stranger) if self.stranger else tuple(found)


def prove(filters: Sequence[Program], floor: Floor, resolve: Resolve, *, native: Abi) -> Proof:
    """Judge the filters of one task, which the kernel all runs, the strictest answer winning.

    :param filters: from the oldest to the newest; none: an unconfined task, which can use every ABI of the machine
    :param resolve: numbers of the floor's further system calls
    :param native: the machine's own ABI
    :raises InputError: where the floor names a system call that there is not
    :raises ProgramError: where one is no filter that the kernel takes
    :raises CannotJudgeError: where the answer cannot be had in bounded time
    """
    require_known(floor, resolve)
    for program in filters:
        check(program)
    machine = abis_of_machine(native)
    entries = {abi: doors(floor, abi, resolve) for abi in (ABIS.values() if filters else machine)}
    slices = [STRANGERS, *map(abi_slice, entries), *(door_slice(door) for those in entries.values() for door in those)]
    for view in views(filters, slices, data=False):
        try:
            proof = _Prover(view, filters, floor).proof(entries, machine)
        except Intricate:
            continue
        # Stacked filters only take away: a door closed by some of them is closed, whatever the others do. So a task that adds
        # a filter made to be hard to judge does not get out of being judged.
        if view.whole or proof.holds:
            return proof
    raise CannotJudgeError("the filter computes more than can be judged exactly")


class _Prover:
    """One proof in one view."""

    def __init__(self, view: View, filters: Sequence[Program], floor: Floor) -> None:
        self.space, leaves, self.whole = view
        self.leaves = leaves[::-1]  # the newest first, as the kernel runs them
        self.filters = filters
        self.watching = floor.action is Action.LOG

    def proof(self, entries: dict[Abi, tuple[Door, ...]], machine: Sequence[Abi]) -> Proof:
        verdicts: list[Verdict] = []
        for abi, those in entries.items():
            passing = self._passing(abi_slice(abi))
            if passing:
                verdicts += [self._verdict(door, passing) for door in those]
            elif abi in machine:
                verdicts += [Verdict(door, Status.NOT_ADMITTED) for door in those]
        return Proof(tuple(verdicts), self._stranger() if self.filters else None)

    def _passing(self, within: Slice) -> list[tuple[Any, int]]:
        """The regions of a slice where the filters together do not deny, with the value that wins."""
        region = self.space.slice(within)
        parts = [] if region is None else [(region, RET_ALLOW)]
        meet = self.space.meet
        for leaves in self.leaves:
            parts = [
                (common, strictest((value, other)))
                for region, value in parts
                for area, other in leaves
                # Below USER_NOTIF all actions deny, and so does the winner, which is no higher.
                if rank(other) >= _NOTIF and (common := meet(region, area)) is not None
            ]
            if len(parts) > MOST_PARTS:
                raise Intricate
        return [(region, value) for region, value in parts if not action_of(value).denies]

    def _verdict(self, door: Door, passing: list[tuple[Any, int]]) -> Verdict:
        entrance = self.space.slice(door_slice(door))
        through = [
            (common, value) for region, value in passing if (common := self.space.meet(region, entrance)) is not None
        ]
        if not through:
            return Verdict(door, Status.CLOSED)
        if not door.denied:
            return Verdict(door, Status.MODULE_LOAD if door.opens == MODULE_LOAD else Status.OPEN_BY_POLICY)
        breach = self._counterexample(door, through)
        return Verdict(door, Status.BREACHED, breach) if breach else Verdict(door, Status.LOGGED)

    def _stranger(self) -> Counterexample | None:
        return self._counterexample(None, self._passing(STRANGERS))

    def _counterexample(self, door: Door | None, through: list[tuple[Any, int]]) -> Counterexample | None:
        """The plainest call that gets through; where the floor only watches, one that nobody hears of."""
        if self.watching:
            through = [(region, value) for region, value in through if rank(value) == rank(RET_ALLOW)]
        if not through:
            return None
        best = max(rank(value) for _, value in through)
        words = min(self.space.witness(region) for region, value in through if rank(value) == best)
        little_endian = door.abi.little_endian if door else True
        data = SeccompData.of_words(words, little_endian=little_endian)
        value = run_stack(self.filters, data, little_endian=little_endian)
        if rank(value) != best and self.whole:
            raise AssertionError(f"the proof's counterexample {data} gets {describe(value)} from the program itself")
        return Counterexample(door, data, value)


_NOTIF = rank(RET_USER_NOTIF)
