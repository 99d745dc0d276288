"""Whether a section answers exactly as profile and floor together: the same action and errno to every call there can be.

What it must answer has a short definition, since the kernel has it too: *what a task gets that loads the floor as one filter and
then the profile as another*. The stricter action wins, and where both deny alike, the profile's own errno stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from seccomp_floor.abi import ABIS, Abi, abis_of_machine
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.decisions import Intricate
from seccomp_floor.bpf.engines import views
from seccomp_floor.bpf.entrances import STRANGERS, abi_slice, answers
from seccomp_floor.bpf.machine import SeccompData, run
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, RET_LOG, Program, check, describe, effect, rank, strictest
from seccomp_floor.bpf.space import ARCH, EVERY, EVERY_VALUE, NR, CannotJudgeError, Leaves, Ranges, Slice, Space
from seccomp_floor.doors import Resolve, doors, floor_answer
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action

__all__ = ["Condition", "Difference", "differences"]

Answers = Sequence[tuple[Slice, int]]


@dataclass(frozen=True, slots=True)
class Condition:
    """What half of an argument must be: one of ``values``. ``high``: bits 32 to 63, else the low ones. ``argument``: None for the
    instruction pointer."""

    argument: int | None
    high: bool
    values: Ranges

    def __str__(self) -> str:
        whole = "instruction pointer" if self.argument is None else f"args[{self.argument}]"
        return f"{whole} {'high' if self.high else 'low'} in {_ranges(self.values, hex)}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Calls that the section answers otherwise than it should.

    ``abi``: theirs, None for architectures that there are not. ``numbers``: of the system calls. ``conditions``: on their
    arguments. ``complete``: whether numbers and conditions name all these calls, and only them. ``witness``: one of them.
    ``expected``, ``got``: the answers as the kernel's return values (see :func:`~seccomp_floor.bpf.program.effect`).
    """

    abi: Abi | None
    numbers: Ranges
    conditions: tuple[Condition, ...]
    complete: bool
    witness: SeccompData
    expected: int
    got: int

    def __str__(self) -> str:
        return self.describe()

    def describe(self, name_of: Callable[[int, Abi], str | None] | None = None) -> str:
        """The difference in one line. :param name_of: the name of a number, for those who know it"""
        abi = self.abi
        where = abi.short if abi else f"architecture {self.witness.arch:#010x} and its like"

        def number(value: int) -> str:
            name = name_of(value, abi) if name_of and abi else None
            return name or str(value)

        calls = _ranges(self.numbers, number)
        conditions = "".join(f", {condition}" for condition in self.conditions)
        example = "" if self.complete else f", such as {self.witness.nr}{self.witness.args}"
        return f"{where} {calls}{conditions}{example}: expected {describe(self.expected)}, got {describe(self.got)}"


def differences(
    profile_filter: Program | None, section_filter: Program, floor: Floor, resolve: Resolve, *, native: Abi
) -> tuple[Difference, ...]:
    """All calls for which the section is not the meet of profile and floor; none: it is exact.

    :param profile_filter: as the runtime would have loaded it; None: no profile, so that every ABI of the machine was allowed
        everything (and calls of others do not occur)
    :param section_filter: as the runtime loads it
    :raises ProgramError: where one is no filter that the kernel takes
    :raises CannotJudgeError: where the answer cannot be had in bounded time
    """
    programs = [section_filter] if profile_filter is None else [section_filter, profile_filter]
    for program in programs:
        check(program)
    places: dict[Abi | None, Answers] = {
        abi: answers(floor, abi, doors(floor, abi, resolve))
        for abi in (abis_of_machine(native) if profile_filter is None else ABIS.values())
    }
    if profile_filter is not None:
        places[None] = [(STRANGERS, RET_ALLOW)]
    slices = [within for pieces in places.values() for within, _ in pieces]
    slices += [abi_slice(abi) if abi else STRANGERS for abi in places]
    for view in views(programs, slices, data=True):
        if not view.whole:
            continue
        everything = view.space.slice(EVERY)
        section, profile = (*view.leaves, [(everything, RET_ALLOW)])[:2]
        try:
            return tuple(
                _confirmed(difference, programs, floor, resolve)
                for abi, pieces in places.items()
                for difference in _compare(view.space, section, profile, abi, pieces)
            )
        except Intricate:
            continue
    raise CannotJudgeError("profile and section compute more than can be compared exactly")


def _confirmed(found: Difference, programs: Sequence[Program], floor: Floor, resolve: Resolve) -> Difference:
    """The difference, after its witness was run through the programs themselves."""
    abi, data = found.abi, found.witness
    got, *others = (run(program, data, little_endian=abi.little_endian if abi else True) for program in programs)
    profile = others[0] if others else RET_ALLOW
    code = floor_answer(doors(floor, abi, resolve), data.nr, data.args) if abi else None
    answer = RET_ALLOW if code is None else RET_LOG if floor.action is Action.LOG else RET_ERRNO | code
    if effect(got) != found.got or effect(strictest((profile, answer))) != found.expected:
        raise AssertionError(f"the programs themselves answer otherwise to {data} than computed: {found}")
    return found


def _compare(
    space: Space[Any], section: Leaves[Any], profile: Leaves[Any], abi: Abi | None, pieces: Answers
) -> Iterator[Difference]:
    region = space.slice(abi_slice(abi) if abi else STRANGERS)
    section = _within(space, region, section)
    profile = _within(space, region, profile)
    if any(rank(value) > rank(answer) for _, value in profile for _, answer in pieces):  # else the floor has no say
        profile = [
            (common, strictest((value, answer)))
            for within, answer in pieces
            for common, value in _within(space, space.slice(within), profile)
        ]
    found: dict[tuple[int, int], list[Any]] = {}
    otherwise: dict[int, Leaves[Any]] = {}  # the section's leaves, by an effect that they do not have
    for area, value in profile:
        expected = effect(value)
        if expected not in otherwise:
            otherwise[expected] = [(other, effect(got)) for other, got in section if effect(got) != expected]
        for different, got in _within(space, area, otherwise[expected]):
            found.setdefault((expected, got), []).append(different)
    for (expected, got), regions in found.items():
        for different in space.unite(regions):
            yield _difference(space, different, abi, expected, got)


def _within(space: Space[Any], region: Any, leaves: Leaves[Any]) -> Leaves[Any]:
    meet = space.meet
    return [(common, value) for area, value in leaves if (common := meet(region, area)) is not None]


def _difference(space: Space[Any], region: Any, abi: Abi | None, expected: int, got: int) -> Difference:
    little_endian = abi.little_endian if abi else True
    shape, complete = space.shape(region)
    conditions = []
    for word in range(ARCH + 1, op.WORDS):
        if shape[word] != EVERY_VALUE:
            argument, half = divmod(word - 4, 2)
            conditions.append(Condition(argument if argument >= 0 else None, bool(half) == little_endian, shape[word]))
    witness = SeccompData.of_words(space.witness(region), little_endian=little_endian)
    return Difference(abi, shape[NR], tuple(conditions), complete, witness, expected, got)


def _ranges(ranges: Ranges, form: Callable[[int], str]) -> str:
    return ", ".join(form(first) if first == last else f"{form(first)} to {form(last)}" for first, last in ranges)
