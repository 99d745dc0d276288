"""The values of one word, sorted into classes that no test of a program can tell apart.

A set of values that a program can distinguish is then a set of classes, held as the bits of an int: intersection is ``&``, and a
set is empty exactly when it is 0. Each class has a witness, a real value of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from seccomp_floor.bpf.decisions import Intricate, Test
from seccomp_floor.bpf.space import Ranges

__all__ = ["Classes"]

U32 = 0xFFFF_FFFF
MOST_CLASSES = 20_000
MOST_BLOCKS = 256
MOST_RANGES = 64

_State = tuple[int, int]
"""What is kept of a value's higher bits: the tests that find them equal to theirs, and those that find them smaller."""

_Layer = dict[_State, tuple[_State, _State]]
"""The states after some bits, each with the states after one more, 0 or 1."""


class Classes:
    """The classes of one word under some tests of it.

    ``witnesses``: the smallest value of each class, ascending. ``every``: the set of all classes. ``sets``: where each test holds.

    :raises Intricate: where the tests make more than MOST_CLASSES classes (masks can make 2 to the power of their number)
    """

    __slots__ = ("_layers", "_places", "every", "sets", "witnesses")

    def __init__(self, tests: Iterable[Test]) -> None:
        tests = list(tests)
        self.sets: dict[Test, int] = {}
        self._layers: list[_Layer] = []
        self._places: dict[_State, int] = {}
        if all(mask == U32 or _blocks(mask) <= MOST_BLOCKS for _, mask, _, _ in tests):
            self._by_ranges(tests)
        else:
            self._by_bits(tests)
        self.every = (1 << len(self.witnesses)) - 1

    def _by_ranges(self, tests: list[Test]) -> None:
        """Tests of the whole word, or of a few of its highest bits, cut its values into ranges."""
        cuts = {0}
        coarse: dict[Test, Ranges] = {}
        for test in tests:
            _, mask, k, ordered = test
            if mask != U32:
                coarse[test] = spans = _spans_of(test)
                cuts.update(bound for first, last in spans for bound in (first, last + 1))
            elif ordered:
                cuts.add(k)
            else:
                cuts |= {k, k + 1}
        cuts.discard(U32 + 1)
        self.witnesses = sorted(cuts)
        place = {value: n for n, value in enumerate(self.witnesses)}
        end = place[U32 + 1] = len(place)
        every = (1 << end) - 1
        for test in tests:
            _, mask, k, ordered = test
            if mask != U32:
                self.sets[test] = sum((1 << place[last + 1]) - (1 << place[first]) for first, last in coarse[test])
            else:
                bit = 1 << place[k]
                self.sets[test] = every & -bit if ordered else bit

    def _by_bits(self, tests: list[Test]) -> None:
        """Read a value from its highest bit down, and keep of it what the tests need: which of them find the bits so far equal
        to theirs, and which smaller. At the end, values with the same memory are one class."""
        mask_at, k_at = [0] * 32, [0] * 32
        ordered = 0
        for n, (_, mask, k, of_order) in enumerate(tests):
            ordered |= of_order << n
            for bit in range(32):
                mask_at[bit] |= (mask >> bit & 1) << n
                k_at[bit] |= (k >> bit & 1) << n
        states: dict[_State, int] = {((1 << len(tests)) - 1, 0): 0}
        for bit in range(31, -1, -1):
            mask, k = mask_at[bit], k_at[bit]
            following: dict[_State, int] = {}
            layer: _Layer = {}
            for state, value in states.items():
                equal, less = state
                clear = equal & ~k, less | equal & k & ordered
                set_ = equal & ~(mask ^ k), less | equal & k & ~mask & ordered
                layer[state] = clear, set_
                for next_, prefix in ((clear, value), (set_, value | 1 << bit)):
                    if prefix < following.get(next_, U32 + 1):
                        following[next_] = prefix
            states = following
            self._layers.append(layer)
            if len(states) > MOST_CLASSES:
                raise Intricate
        kinds: dict[_State, int] = {}
        for (equal, less), value in sorted(states.items(), key=lambda item: item[1]):
            kinds.setdefault((equal & ~ordered, less), value)
        self.witnesses = list(kinds.values())
        places = {kind: place for place, kind in enumerate(kinds)}
        self._places = {state: places[state[0] & ~ordered, state[1]] for state in states}
        for n, test in enumerate(tests):
            self.sets[test] = sum(
                1 << place
                for place, (equal, less) in enumerate(kinds)
                if (not less >> n & 1 if test[3] else equal >> n & 1)
            )

    def within(self, ranges: Ranges, word: int) -> int:
        """The classes that make up some ranges of the word, whose bounds are among the tests (see :func:`bounds`)."""
        chosen = 0
        for first, last in ranges:
            least = self.sets[(word, U32, first, True)] if first else self.every
            beyond = self.sets[(word, U32, last + 1, True)] if last < U32 else 0
            chosen |= least & ~beyond
        return chosen

    def ranges(self, chosen: int) -> tuple[Ranges, bool]:
        """The values of a set of classes as ranges, and whether these are all (there are at most MOST_RANGES)."""
        found: list[tuple[int, int]] = []
        for first, last in self._spans(chosen) if self._layers else self._neighbours(chosen):
            if found and found[-1][1] + 1 == first:
                first = found.pop()[0]
            if len(found) == MOST_RANGES:
                return tuple(found), False
            found.append((first, last))
        return tuple(found), True

    def _neighbours(self, chosen: int) -> Iterator[tuple[int, int]]:
        ends = [value - 1 for value in self.witnesses[1:]] + [U32]
        for place, (first, last) in enumerate(zip(self.witnesses, ends, strict=True)):
            if chosen >> place & 1:
                yield first, last

    def _spans(self, chosen: int) -> Iterator[tuple[int, int]]:
        """The ranges of values, in order, whose every class is chosen: blocks of those that share their higher bits."""
        reach: list[dict[_State, int]] = [{state: 1 << place for state, place in self._places.items()}]
        for layer in reversed(self._layers):
            below = reach[-1]
            reach.append({state: below[clear] | below[set_] for state, (clear, set_) in layer.items()})
        reach.reverse()
        blocks = [(next(iter(self._layers[0])), 0, 0)]
        while blocks:
            state, value, depth = blocks.pop()
            classes, left = reach[depth][state], 32 - depth
            if not classes & ~chosen:
                yield value, value + (1 << left) - 1
            elif classes & chosen:
                clear, set_ = self._layers[depth][state]
                blocks += ((set_, value | 1 << left - 1, depth + 1), (clear, value, depth + 1))


def _blocks(mask: int) -> int:
    """How many values the bits from the mask's lowest one up can have."""
    return 1 << 32 - ((mask & -mask).bit_length() - 1)


def _spans_of(test: Test) -> Ranges:
    """Where a test of the highest bits holds."""
    _, mask, k, ordered = test
    step = mask & -mask
    held: list[tuple[int, int]] = []
    for first in range(0, U32 + 1, step):
        if first & mask >= k if ordered else first & mask == k:
            start = held.pop()[0] if held and held[-1][1] == first - 1 else first
            held.append((start, first + step - 1))
    return tuple(held)


def bounds(ranges: Ranges, word: int) -> Iterable[Test]:
    """The tests that a set of ranges of a word needs."""
    for first, last in ranges:
        if first:
            yield (word, U32, first, True)
        if last < U32:
            yield (word, U32, last + 1, True)
