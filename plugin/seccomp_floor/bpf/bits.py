"""Regions as Boolean functions of all 512 bits of ``seccomp_data``: exact for every program that the kernel accepts.

The program is run once, from top to bottom, on all calls at the same time: each register is a word of functions, and where ways
meet again their registers are joined by a choice, so that the number of ways does not matter. What can grow is the functions
(products of two arguments do); a budget bounds that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from seccomp_floor.abi import ABIS
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.bdd import BITS, Diagrams, Vector, constant
from seccomp_floor.bpf.decisions import Intricate
from seccomp_floor.bpf.program import ACTIONS, RET_ERRNO, RET_TRACE, RET_TRAP, Program
from seccomp_floor.bpf.space import ARCH, NR, Leaves, Ranges, Slice

__all__ = ["Bits"]

MOST_STEPS = 500_000
"""Steps of all operations on functions together: some two seconds; a program of a thousand comparisons takes 350,000."""

MOST_VALUES = 5_000
"""Different values that one RET A may return. ERRNO alone can tell 4096."""

MOST_RANGES = 64

OWN_SHIFTS = ("ARM", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64")
"""ABIs whose kernels may compile a shift by X to the machine's own, which for an X of 32 or more is not the interpreter's (that
takes it modulo 32, as RFC 9669 says; arch/*/net/bpf_jit*)."""


class _State(NamedTuple):
    """Where the program is at an instruction (``guard``), and what its registers hold there."""

    guard: int
    a: Vector
    x: Vector
    cells: tuple[Vector, ...]


class Bits:
    """The space of all system calls, bit by bit, for some programs.

    :param interleaved: the order of the bits: those of one word together, or those of one place; which of them keeps functions
        small depends on whether programs compare words with constants or with each other
    :param data: whether answers that differ in their data only (as errnos do) are to be told apart
    """

    def __init__(self, programs: Sequence[Program], *, interleaved: bool, data: bool) -> None:
        self._programs = programs
        self._data = data
        self._diagrams = Diagrams(MOST_STEPS)
        # Filters ask for the architecture first, then for the number.
        order = [(word, bit) for word in (ARCH, NR, *range(2, op.WORDS)) for bit in reversed(range(BITS))]
        if interleaved:
            order.sort(key=lambda place: -place[1])
        self._places = order
        level = {place: n for n, place in enumerate(order)}
        self._words = [
            tuple(self._diagrams.node(level[word, bit], 0, 1) for bit in range(BITS)) for word in range(op.WORDS)
        ]

    def leaves(self, program: int) -> Leaves[int]:
        """See :class:`~seccomp_floor.bpf.space.Space`. :raises Intricate: where the budget is spent."""
        doubtful = self.slice({ARCH: tuple(sorted((ABIS[f"SCMP_ARCH_{name}"].audit_arch,) * 2 for name in OWN_SHIFTS))})
        return _Run(self._diagrams, self._words, self._programs[program], self._data, doubtful or 0).leaves()

    def slice(self, ranges: Slice) -> int | None:
        dd = self._diagrams
        found = 1
        for word, values in ranges.items():
            bits = self._words[word]
            inside = 0
            for first, last in values:
                beyond = dd.compare(op.JGT, bits, constant(last))
                inside = dd.either(dd.without(dd.compare(op.JGE, bits, constant(first)), beyond), inside)
            found = dd.both(inside, found)
        return found or None

    def meet(self, left: int, right: int) -> int | None:
        return self._diagrams.both(left, right) or None

    def witness(self, region: int) -> tuple[int, ...]:
        dd = self._diagrams
        words = [0] * op.WORDS
        while region != 1:
            if dd.low[region]:
                region = dd.low[region]
            else:
                word, bit = self._places[dd.level[region]]
                words[word] |= 1 << bit
                region = dd.high[region]
        return tuple(words)

    def shape(self, region: int) -> tuple[Sequence[Ranges], bool]:
        try:
            shadows = [self._ranges(self._shadow(region, word)) for word in range(op.WORDS)]
            found = [ranges for ranges, _ in shadows]
            return found, all(every for _, every in shadows) and self.slice(dict(enumerate(found))) == region
        except Intricate:
            return [((value, value),) for value in self.witness(region)], False

    def unite(self, regions: Iterable[int]) -> list[int]:
        union = 0
        for region in regions:
            union = self._diagrams.either(region, union)
        return [union] if union else []

    def _shadow(self, region: int, word: int) -> int:
        """What a region leaves of one word alone."""
        return self._diagrams.project(region, lambda level: self._places[level][0] == word)

    def _ranges(self, shadow: int) -> tuple[Ranges, bool]:
        """A function of one word's bits as ranges of its values, and whether these are all."""
        dd = self._diagrams
        found: list[tuple[int, int]] = []
        open_ends = [(shadow, 0, BITS)]
        while open_ends:
            node, prefix, left = open_ends.pop()
            if node == 1:
                first, last = prefix << left, ((prefix + 1) << left) - 1
                if found and found[-1][1] + 1 == first:
                    first = found.pop()[0]
                if len(found) == MOST_RANGES:
                    return tuple(found), False
                found.append((first, last))
            elif node:
                asked = self._places[dd.level[node]][1] == left - 1
                low, high = (dd.low[node], dd.high[node]) if asked else (node, node)
                open_ends += ((high, prefix << 1 | 1, left - 1), (low, prefix << 1, left - 1))
        return tuple(found), True


class _Run:
    """One program, run on all calls at once. ``doubtful``: the calls of machines that shift in a way of their own."""

    def __init__(
        self, diagrams: Diagrams, words: Sequence[Vector], program: Program, data: bool, doubtful: int
    ) -> None:
        self.diagrams, self.words, self.program, self.data, self.doubtful = diagrams, words, program, data, doubtful
        self.arriving: list[_State | None] = [None] * len(program)
        self.returned: dict[int, int] = {}

    def leaves(self) -> Leaves[int]:
        zero = constant(0)
        self.arriving[0] = _State(1, zero, zero, (zero,) * op.CELLS)
        for pc, instruction in enumerate(self.program):
            state = self.arriving[pc]
            if state is not None:
                self.arriving[pc] = None
                self._step(pc + 1, *instruction, state)
        return [(region, value) for value, region in self.returned.items()]

    def _step(self, pc: int, code: int, jt: int, jf: int, k: int, state: _State) -> None:
        dd = self.diagrams
        guard, a, x, cells = state
        operand = x if code & op.X else constant(k)
        if code in op.CONDITIONAL:
            taken = dd.compare(code & ~op.X, a, operand)
            self._arrive(pc + jt, state._replace(guard=dd.both(taken, guard)))
            self._arrive(pc + jf, state._replace(guard=dd.without(guard, taken)))
        elif code in op.ARITHMETIC:
            if code == op.DIV | op.X:
                nothing = dd.compare(op.JEQ, x, constant(0))
                self._return(dd.both(nothing, guard), 0)
                state = state._replace(guard=dd.without(guard, nothing))
            if code in (op.LSH | op.X, op.RSH | op.X):
                beyond = dd.both(dd.compare(op.JGE, x, constant(BITS)), guard)
                if dd.both(beyond, self.doubtful):
                    raise Intricate
            self._arrive(pc, state._replace(a=dd.arithmetic(code & ~op.X, a, operand)))
        else:
            match code:
                case op.RET_K:
                    self._return(guard, k)
                    return
                case op.RET_A:
                    self._return_any(guard, a)
                    return
                case op.JA:
                    pc += k
                case op.NEG:
                    a = dd.arithmetic(op.NEG, a, a)
                case op.LD_ABS:
                    a = self.words[k >> 2]
                case op.LD_IMM | op.LD_LEN:
                    a = constant(k if code == op.LD_IMM else op.DATA_SIZE)
                case op.LDX_IMM | op.LDX_LEN:
                    x = constant(k if code == op.LDX_IMM else op.DATA_SIZE)
                case op.TAX:
                    x = a
                case op.TXA:
                    a = x
                case op.LD_MEM:
                    a = cells[k]
                case op.LDX_MEM:
                    x = cells[k]
                case op.ST | op.STX:
                    cells = (*cells[:k], a if code == op.ST else x, *cells[k + 1 :])
                case _:
                    raise AssertionError(f"opcode {code:#06x} passed the check")
            self._arrive(pc, _State(guard, a, x, cells))

    def _arrive(self, pc: int, state: _State) -> None:
        if not state.guard:
            return
        other = self.arriving[pc]
        if other is not None:
            dd, guard = self.diagrams, state.guard
            state = _State(
                dd.either(guard, other.guard),
                dd.select(guard, state.a, other.a),
                dd.select(guard, state.x, other.x),
                tuple(dd.select(guard, one, another) for one, another in zip(state.cells, other.cells, strict=True)),
            )
        self.arriving[pc] = state

    def _return(self, guard: int, value: int) -> None:
        if guard:
            self.returned[value] = self.diagrams.either(guard, self.returned.get(value, 0))

    def _return_any(self, guard: int, a: Vector) -> None:
        """RET A: the calls by what is returned. Actions that the kernel does not know are told apart only by the known ones
        between which they lie: that decides who wins against other filters, and all of them kill."""
        dd = self.diagrams
        signed = (*a[16:-1], dd.choose(a[-1], 0, 1)) + (0,) * 16  # the order of actions, as rank() has it
        last = -1
        for action in sorted(ACTIONS, key=lambda action: action ^ 0x8000_0000):
            place = (action ^ 0x8000_0000) >> 16
            least = dd.compare(op.JGE, signed, constant(place))
            between = dd.without(guard, least)
            self._return(between, (last + 1 << 16) ^ 0x8000_0000)
            guard = dd.both(least, guard)
            beyond = dd.compare(op.JGT, signed, constant(place))
            if self.data and action in (RET_ERRNO, RET_TRAP, RET_TRACE):
                self._return_data(dd.without(guard, beyond), a, action)
            else:
                self._return(dd.without(guard, beyond), action)
            guard = dd.both(beyond, guard)
            last = place
        assert not guard, "no action is more permissive than ALLOW"  # noqa: S101

    def _return_data(self, guard: int, a: Vector, action: int) -> None:
        dd = self.diagrams
        ways = [(guard, action, 15)] if guard else []
        found = 0
        while ways:
            guard, value, bit = ways.pop()
            if bit < 0:
                found += 1
                if found > MOST_VALUES:
                    raise Intricate
                self._return(guard, value)
                continue
            for taken, then in ((dd.without(guard, a[bit]), value), (dd.both(a[bit], guard), value | 1 << bit)):
                if taken:
                    ways.append((taken, then, bit - 1))
