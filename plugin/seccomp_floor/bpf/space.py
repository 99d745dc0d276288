"""All system calls there can be, as a space whose points are the sixteen words of ``seccomp_data``, and regions of it.

Two engines hold regions exactly: :mod:`~seccomp_floor.bpf.boxes`, fast, for what compilers emit, and
:mod:`~seccomp_floor.bpf.bits` for every program that the kernel accepts. Proofs are written once, against what both can do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from seccomp_floor.errors import SeccompFloorError

__all__ = ["ARCH", "EVERY", "EVERY_VALUE", "NR", "CannotJudgeError", "Leaves", "Ranges", "Slice", "Space", "complement"]

NR, ARCH = 0, 1
U32 = 0xFFFF_FFFF

Ranges = tuple[tuple[int, int], ...]
"""Values of a word: first and last of each range, ascending, disjoint."""

Slice = Mapping[int, Ranges]
"""The points whose words, by index, are in these ranges; a word that is not named is free."""

EVERY: Slice = {}
EVERY_VALUE: Ranges = ((0, U32),)

R = TypeVar("R")

Leaves = Sequence[tuple[R, int]]
"""What a program does: regions that are disjoint and together the whole space, each with the value returned there."""


class CannotJudgeError(SeccompFloorError):
    """A program is built so that judging it exactly would take too long. Nothing is known of it: treat it as not proven."""


class Space(Protocol[R]):
    """Regions of one engine. No region is empty: where nothing is left, there is None."""

    def leaves(self, program: int) -> Leaves[R]:
        """What a program does. :param program: its place among those that the space was made for."""
        ...

    def slice(self, ranges: Slice) -> R | None:
        """A region by its words. :param ranges: made of bounds that the space was made for."""
        ...

    def meet(self, left: R, right: R) -> R | None:
        """What two regions have in common."""
        ...

    def witness(self, region: R) -> tuple[int, ...]:
        """The words of one point of a region, as small as can be."""
        ...

    def shape(self, region: R) -> tuple[Sequence[Ranges], bool]:
        """For each word, the values that it takes in a region; and whether this says it all: nothing left out, and every
        combination of these values in the region."""
        ...

    def unite(self, regions: Iterable[R]) -> list[R]:
        """The same points in fewer regions, where that is easily had."""
        ...


def complement(ranges: Ranges) -> Ranges:
    """All other values of a 32-bit word."""
    gaps = []
    start = 0
    for first, last in ranges:
        if start < first:
            gaps.append((start, first - 1))
        start = last + 1
    if start <= U32:
        gaps.append((start, U32))
    return tuple(gaps)
