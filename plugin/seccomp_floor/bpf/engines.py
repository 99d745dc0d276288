"""Which engine judges some programs: the fast one, and the one for everything where that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from seccomp_floor.bpf.boxes import Boxes
from seccomp_floor.bpf.decisions import Intricate
from seccomp_floor.bpf.program import Program
from seccomp_floor.bpf.space import CannotJudgeError, Leaves, Slice, Space

__all__ = ["View", "views"]


class View(NamedTuple):
    """A space, and what some programs do in it. ``whole``: whether these are all that were asked for."""

    space: Space[Any]
    leaves: list[Leaves[Any]]
    whole: bool


def views(programs: Sequence[Program], slices: Sequence[Slice]) -> Iterator[View]:
    """Views to try in turn, the cheapest first; a later one serves where an earlier one proves too coarse or too costly."""
    try:
        yield _boxes(programs, slices, True)
    except Intricate:
        plain = [program for program in programs if _is_plain(program)]
        if plain:
            yield _boxes(plain, slices, False)
    raise CannotJudgeError("the filter computes more than can be judged")


def _boxes(programs: Sequence[Program], slices: Sequence[Slice], whole: bool) -> View:
    space = Boxes(programs, slices)
    return View(space, [space.leaves(n) for n in range(len(programs))], whole)


def _is_plain(program: Program) -> bool:
    try:
        _boxes([program], (), True)
    except Intricate:
        return False
    return True
