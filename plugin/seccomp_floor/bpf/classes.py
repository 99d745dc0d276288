"""The values of one word, sorted into classes that no test of a program can tell apart.

A set of values that a program can distinguish is then a set of classes, held as the bits of an int: intersection is ``&``, and a
set is empty exactly when it is 0. Each class has a witness, a real value of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from seccomp_floor.bpf.decisions import Intricate, Test
from seccomp_floor.bpf.space import Ranges

__all__ = ["Classes"]

U32 = 0xFFFF_FFFF
MOST_CLASSES = 20_000


class Classes:
    """The classes of one word under some tests of it.

    ``witnesses``: the smallest value of each class, ascending. ``every``: the set of all classes. ``sets``: where each test holds.
    ``bounds``: for words that are only compared whole, the classes are ranges, and these are their last values.

    :raises Intricate: where the tests make more than MOST_CLASSES classes (masks can make 2 to the power of their number)
    """

    __slots__ = ("every", "lasts", "sets", "witnesses")

    def __init__(self, tests: Iterable[Test]) -> None:
        tests = list(tests)
        self.sets: dict[Test, int] = {}
        self.lasts: list[int] | None = None
        if all(test.mask == U32 for test in tests):
            self._by_ranges(tests)
        else:
            self._by_bits(tests)
        self.every = (1 << len(self.witnesses)) - 1

    def _by_ranges(self, tests: list[Test]) -> None:
        cuts = {0}
        for _, _, k, ordered in tests:
            cuts.add(k)
            if not ordered and k < U32:
                cuts.add(k + 1)
        self.witnesses = sorted(cuts)
        self.lasts = [value - 1 for value in self.witnesses[1:]]
        self.lasts.append(U32)
        place = {value: n for n, value in enumerate(self.witnesses)}
        every = (1 << len(place)) - 1
        for test in tests:
            bit = 1 << place[test.k]
            self.sets[test] = every & -bit if test.ordered else bit

    def _by_bits(self, tests: list[Test]) -> None:
        """Read a value from its highest bit down, and keep of it what the tests need: which of them find the bits so far equal
        to theirs, and which smaller. At the end, values with the same memory are one class."""
        mask_at, k_at = [0] * 32, [0] * 32
        for n, (_, mask, k, _) in enumerate(tests):
            for bit in range(32):
                mask_at[bit] |= (mask >> bit & 1) << n
                k_at[bit] |= (k >> bit & 1) << n
        states = {((1 << len(tests)) - 1, 0): 0}
        for bit in range(31, -1, -1):
            mask, k = mask_at[bit], k_at[bit]
            following: dict[tuple[int, int], int] = {}
            for (equal, less), value in states.items():
                for seen, prefix in ((0, value), (mask, value | 1 << bit)):
                    state = equal & ~(seen ^ k), less | equal & k & ~seen
                    if prefix < following.get(state, U32 + 1):
                        following[state] = prefix
            states = following
            if len(states) > MOST_CLASSES:
                raise Intricate
        ordered = sorted((value, state) for state, value in states.items())
        self.witnesses = [value for value, _ in ordered]
        for n, test in enumerate(tests):
            self.sets[test] = sum(
                1 << place
                for place, (_, (equal, less)) in enumerate(ordered)
                if (not less >> n & 1 if test.ordered else equal >> n & 1)
            )

    def within(self, ranges: Ranges, word: int) -> int:
        """The classes that make up some ranges of the word, whose bounds are among the tests (see :func:`bounds`)."""
        chosen = 0
        for first, last in ranges:
            least = self.sets[Test(word, U32, first, True)] if first else self.every
            beyond = self.sets[Test(word, U32, last + 1, True)] if last < U32 else 0
            chosen |= least & ~beyond
        return chosen

    def ranges(self, chosen: int) -> tuple[Ranges, bool]:
        """The values of a set of classes as ranges, and whether that is all of them: of classes that are no ranges, only
        their witnesses are given."""
        places = [place for place in range(len(self.witnesses)) if chosen >> place & 1]
        if self.lasts is None:
            return tuple((self.witnesses[place],) * 2 for place in places), chosen == self.every
        found: list[tuple[int, int]] = []
        for place in places:
            first, last = self.witnesses[place], self.lasts[place]
            if found and found[-1][1] + 1 == first:
                first = found.pop()[0]
            found.append((first, last))
        return tuple(found), True


def bounds(ranges: Ranges, word: int) -> Iterable[Test]:
    """The tests that a set of ranges of a word needs."""
    for first, last in ranges:
        if first:
            yield Test(word, U32, first, True)
        if last < U32:
            yield Test(word, U32, last + 1, True)
