"""Which engine judges some programs: the fast one, and the one for everything where that does not fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.boxes import Boxes
from seccomp_floor.bpf.decisions import Intricate
from seccomp_floor.bpf.program import Program
from seccomp_floor.bpf.space import Leaves, Slice, Space

__all__ = ["View", "views"]


class View(NamedTuple):
    """A space, and what some programs do in it. ``whole``: whether these are all that were asked for."""

    space: Space[Any]
    leaves: list[Leaves[Any]]
    whole: bool


def views(programs: Sequence[Program], slices: Sequence[Slice], *, data: bool) -> Iterator[View]:
    """Views to try in turn, the cheapest first. Where one proves too coarse, or too costly (:class:`Intricate`), the next may
    serve; after the last there is no more that can be done in bounded time.

    :param slices: what the spaces will be asked for
    :param data: whether answers that differ in their data only (as errnos do) are to be told apart
    """

    def view(space: Space[Any], judged: Sequence[Program]) -> View:
        return View(space, [space.leaves(n) for n in range(len(judged))], len(judged) == len(programs))

    with suppress(Intricate):
        yield view(Boxes(programs, slices), programs)
    plain = [program for program in programs if _is_plain(program)] if len(programs) > 1 else []
    if 0 < len(plain) < len(programs):
        with suppress(Intricate):
            yield view(Boxes(plain, slices), plain)
    from seccomp_floor.bpf.bits import (
        Bits,
    )  # here, since next to nobody needs it, and every container waits for imports

    # Only with X can a program put two words together: then their bits had better alternate.
    combines = any(code & op.X and code in _WITH_OPERAND for program in programs for code, _, _, _ in program)
    for interleaved in (combines, not combines):
        with suppress(Intricate):
            yield view(Bits(programs, interleaved=interleaved, data=data), programs)


_WITH_OPERAND = frozenset(op.ARITHMETIC) | frozenset(op.CONDITIONAL)


def _is_plain(program: Program) -> bool:
    try:
        Boxes([program], ()).leaves(0)
    except Intricate:
        return False
    return True
