"""Boolean functions as reduced ordered binary decision diagrams, and 32-bit arithmetic on them.

A function is the number of its node; 0 and 1 are the constants, and equal functions have equal numbers, so that to be empty, or
the same, is one comparison (Bryant, "Graph-based algorithms for Boolean function manipulation", 1986). Words are vectors of 32
functions, the lowest bit first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.decisions import Intricate

__all__ = ["Diagrams", "Vector", "constant"]

BITS = 32
BOTTOM = 1 << 30  # the level of the constants, below all variables

Vector = tuple[int, ...]


def constant(value: int) -> Vector:
    """A word that is known."""
    return tuple(value >> bit & 1 for bit in range(BITS))


class Diagrams:
    """The functions of one ordering of variables, which are known by their level; the lowest level is asked first.

    :param most: how many steps to spend altogether
    :raises Intricate: by every operation, once they are spent
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.level = [BOTTOM, BOTTOM]
        self.low = [0, 1]
        self.high = [0, 1]
        self._known: dict[tuple[int, int, int], int] = {}
        self._done: dict[tuple[int, int, int], int] = {}

    def node(self, level: int, low: int, high: int) -> int:
        """The function that is ``high`` where the variable is 1, and ``low`` elsewhere; both below it."""
        if low == high:
            return low
        key = (level, low, high)
        number = self._known.setdefault(key, len(self.level))
        if number == len(self.level):
            self.level.append(level)
            self.low.append(low)
            self.high.append(high)
        return number

    def choose(self, test: int, yes: int, no: int) -> int:
        """``yes`` where the test holds, ``no`` elsewhere."""
        try:
            return self._choose(test, yes, no)
        except RecursionError:  # called from deep down: as good as spent
            raise Intricate from None

    def _choose(self, test: int, yes: int, no: int) -> int:
        if test < 2:
            return yes if test else no
        if yes == test:
            yes = 1
        if no == test:
            no = 0
        if yes == no:
            return yes
        if yes == 1 and no == 0:
            return test
        key = (test, yes, no)
        found = self._done.get(key)
        if found is None:
            if len(self._done) >= self._most:
                raise Intricate
            level, low, high = self.level, self.low, self.high
            top = min(level[test], level[yes], level[no])
            test_low, test_high = (low[test], high[test]) if level[test] == top else (test, test)
            yes_low, yes_high = (low[yes], high[yes]) if level[yes] == top else (yes, yes)
            no_low, no_high = (low[no], high[no]) if level[no] == top else (no, no)
            found = self._done[key] = self.node(
                top, self._choose(test_low, yes_low, no_low), self._choose(test_high, yes_high, no_high)
            )
        return found

    def both(self, one: int, other: int) -> int:
        return self.choose(one, other, 0)

    def either(self, one: int, other: int) -> int:
        return self.choose(one, 1, other)

    def without(self, one: int, other: int) -> int:
        return self.choose(other, 0, one)

    def odd(self, one: int, other: int) -> int:
        return self.choose(one, self.choose(other, 0, 1), other)

    def project(self, function: int, kept: Callable[[int], bool]) -> int:
        """Where some values of all variables but the kept ones make the function true. :param kept: asked for levels"""
        done = {0: 0, 1: 1}

        def down(node: int) -> int:
            found = done.get(node)
            if found is None:
                level, low, high = self.level[node], down(self.low[node]), down(self.high[node])
                found = done[node] = (
                    self.choose(self.node(level, 0, 1), high, low) if kept(level) else self.either(low, high)
                )
            return found

        try:
            return down(function)
        except RecursionError:
            raise Intricate from None

    # --- words --------------------------------------------------------------------------------------------------------

    def select(self, test: int, yes: Vector, no: Vector) -> Vector:
        """One of two words."""
        return yes if yes == no else tuple(map(self.choose, repeat(test), yes, no))

    def compare(self, code: int, left: Vector, right: Vector) -> int:
        """Where a conditional jump (without its X bit) is taken."""
        if code == op.JSET:
            taken = 0
            for one, other in zip(left, right, strict=True):
                taken = self.either(self.both(one, other), taken)
            return taken
        if code == op.JGT:
            return self.choose(self.compare(op.JGE, right, left), 0, 1)
        greater = int(code == op.JGE)
        taken = 1  # what the lower bits say, if all higher ones are equal
        for one, other in zip(left, right, strict=True):
            taken = self.choose(one, self.choose(other, taken, greater), self.choose(other, 0, taken))
        return taken

    def arithmetic(self, code: int, left: Vector, right: Vector) -> Vector:
        """One arithmetic instruction (without its X bit); what DIV gives for a divisor of 0 means nothing."""
        match code:
            case op.AND:
                return tuple(map(self.both, left, right))
            case op.OR:
                return tuple(map(self.either, left, right))
            case op.XOR:
                return tuple(map(self.odd, left, right))
            case op.ADD:
                return self._add(left, right, 0)
            case op.SUB:
                return self._add(left, self._inverted(right), 1)
            case op.NEG:
                return self._add(constant(0), self._inverted(left), 1)
            case op.MUL:
                return self._multiply(left, right)
            case op.DIV:
                return self._divide(left, right)
            case op.LSH | op.RSH:
                return self._shift(left, right, code == op.LSH)
            case _:
                raise AssertionError(f"opcode {code:#06x} passed the check")

    def _inverted(self, word: Iterable[int]) -> Vector:
        return tuple(self.choose(bit, 0, 1) for bit in word)

    def _add(self, left: Vector, right: Vector, carry: int) -> Vector:
        total = []
        for one, other in zip(left, right, strict=True):
            total.append(self.odd(self.odd(one, other), carry))
            carry = self.choose(one, self.either(other, carry), self.both(other, carry))
        return tuple(total)

    def _multiply(self, left: Vector, right: Vector) -> Vector:
        if all(bit < 2 for bit in left):
            left, right = right, left
        total = constant(0)
        for place, factor in enumerate(right):
            if factor:
                shifted = (0,) * place + left[: BITS - place]
                total = self._add(total, tuple(map(self.both, shifted, repeat(factor))), 0)
        return total

    def _divide(self, left: Vector, right: Vector) -> Vector:
        """Long division, bit by bit from the top; the remainder needs one bit more than the words."""
        divisor = (*right, 0)
        subtrahend = self._inverted(divisor)
        remainder: Vector = (0,) * (BITS + 1)
        quotient = []
        for bit in reversed(left):
            remainder = (bit, *remainder[:-1])
            fits = self.compare(op.JGE, remainder, divisor)
            remainder = self.select(fits, self._add(remainder, subtrahend, 1), remainder)
            quotient.append(fits)
        return tuple(reversed(quotient))

    def _shift(self, word: Vector, by: Vector, leftwards: bool) -> Vector:
        for place in range(5):  # modulo 32
            if by[place]:
                gap = (0,) * (1 << place)
                moved = gap + word[: -(1 << place)] if leftwards else word[1 << place :] + gap
                word = self.select(by[place], moved, word)
        return word
