"""Where the doors of a floor lie in the space of all system calls, ABI by ABI."""

from __future__ import annotations

from collections.abc import Iterable

from seccomp_floor.abi import BY_AUDIT_ARCH, X32_BIT, Abi
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, RET_LOG
from seccomp_floor.bpf.space import ARCH, EVERY_VALUE, NR, Ranges, Slice, complement
from seccomp_floor.doors import Door
from seccomp_floor.floor import Floor
from seccomp_floor.profile import Action

__all__ = ["STRANGERS", "abi_slice", "answers", "door_slice"]

_ORDINARY: Ranges = ((0, X32_BIT - 1), (2 * X32_BIT, 3 * X32_BIT - 1))
"""The numbers without ``X32_BIT``."""

STRANGERS: Slice = {ARCH: complement(tuple(sorted((value, value) for value in BY_AUDIT_ARCH)))}
"""All calls whose architecture is none that there is."""


def abi_slice(abi: Abi) -> Slice:
    """All calls of an ABI."""
    arch = {ARCH: ((abi.audit_arch, abi.audit_arch),)}
    if len(BY_AUDIT_ARCH[abi.audit_arch]) == 1:
        return arch
    return arch | {NR: _ORDINARY if abi.admits(0) else complement(_ORDINARY)}


def door_slice(door: Door) -> Slice:
    """All calls that go through a door."""
    found = {ARCH: ((door.abi.audit_arch, door.abi.audit_arch),), NR: ((door.number, door.number),)}
    if door.value is not None:
        found[_low(door)] = ((door.value, door.value),)
    return found


def answers(floor: Floor, abi: Abi, doors: Iterable[Door]) -> list[tuple[Slice, int]]:
    """The floor itself as a filter: all calls of an ABI in disjoint slices, each with the value that the floor returns there.

    :param doors: of this ABI; where two match a call, the first gives the answer
    """
    everything = abi_slice(abi)
    by_number: dict[int, list[Door]] = {}
    for door in doors:
        if door.denied:
            by_number.setdefault(door.number, []).append(door)
    elsewhere = complement(tuple((number, number) for number in sorted(by_number)))
    found: list[tuple[Slice, int]] = [
        ({**everything, NR: _common(everything[NR], elsewhere) if NR in everything else elsewhere}, RET_ALLOW)
    ]
    for number, those in by_number.items():
        left: list[Slice] = [{**everything, NR: ((number, number),)}]
        for door in those:
            value = RET_LOG if floor.action is Action.LOG else RET_ERRNO | door.errno
            if door.value is None:
                found += [(part, value) for part in left]
                left = []
                break
            word, taken = _low(door), ((door.value, door.value),)
            outside = complement(taken)
            found += [
                ({**part, word: inside}, value)
                for part in left
                if (inside := _common(part.get(word, EVERY_VALUE), taken))
            ]
            left = [{**part, word: rest} for part in left if (rest := _common(part.get(word, EVERY_VALUE), outside))]
        found += [(part, RET_ALLOW) for part in left]
    return found


def _low(door: Door) -> int:
    """The word with the low half of the door's argument."""
    return 4 + 2 * door.argument + (not door.abi.little_endian)


def _common(left: Ranges, right: Ranges) -> Ranges:
    return tuple(
        (max(first, start), min(last, end))
        for first, last in left
        for start, end in right
        if first <= end and start <= last
    )
