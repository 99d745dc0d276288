"""Regions as boxes: for each word of ``seccomp_data``, the set of classes that it may be in.

Following all system calls at once through a program's decisions, sets of numbers at a time, shows what it answers to each; since
every decision looks at one word, boxes are all that can arise, and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.classes import Classes, bounds
from seccomp_floor.bpf.decisions import Intricate, Test, unfold
from seccomp_floor.bpf.program import Program
from seccomp_floor.bpf.space import ARCH, NR, Leaves, Ranges, Slice

__all__ = ["Box", "Boxes"]

MOST_MOVES = 2_000_000
"""Sets moved along an edge before a program counts as intricate: some second. Real programs need about one for each edge."""

MANY = 32
"""Boxes at one node from which on it may pay to look whether some of them are one."""

Box = tuple[int, ...]
"""For each word, a set of its classes, never 0."""


class Boxes:
    """The space of all system calls, in boxes, as some programs can tell them apart.

    :param slices: what :meth:`slice` will be asked for
    :raises Intricate: where a program does not fit
    """

    def __init__(self, programs: Sequence[Program], slices: Iterable[Slice]) -> None:
        self._decisions = [unfold(program) for program in programs]
        by_word: list[set[Test]] = [set() for _ in range(op.WORDS)]
        for decisions in self._decisions:
            for test in decisions.tests:
                by_word[test[0]].add(test)
        for ranges in slices:
            for word, values in ranges.items():
                by_word[word].update(bounds(values, word))
        self._words = [Classes(tests) for tests in by_word]
        self._every: Box = tuple(classes.every for classes in self._words)

    def leaves(self, program: int) -> Leaves[Box]:
        """See :class:`~seccomp_floor.bpf.space.Space`. :raises Intricate: where its ways are too many."""
        numbers, *others = self._every
        first, nodes, tests = self._decisions[program]
        asked = [(test[0], self._words[test[0]].sets[test]) for test in tests]
        flow = _Flow(tuple(others), len(nodes))
        flow.move(first, 0, numbers)
        for number, test, yes, no in nodes:
            arrived = flow.at(number)
            if test < 0:
                for rest, numbers in arrived.items():
                    flow.move(yes, rest, numbers)
                continue
            word, chosen = asked[test]
            if word == NR:
                for rest, numbers in arrived.items():
                    if taken := numbers & chosen:
                        flow.move(yes, rest, taken)
                    if left := numbers ^ taken:
                        flow.move(no, rest, left)
            else:
                for rest, numbers in arrived.items():
                    inside, outside = flow.split(rest, word, chosen)
                    if inside >= 0:
                        flow.move(yes, inside, numbers)
                    if outside >= 0:
                        flow.move(no, outside, numbers)
        return [
            ((numbers, *flow.rests[rest]), value)
            for value, arrived in flow.returned.items()
            for rest, numbers in arrived.items()
        ]

    def slice(self, ranges: Slice) -> Box | None:
        box = list(self._every)
        for word, values in ranges.items():
            box[word] = self._words[word].within(values, word)
            if not box[word]:
                return None
        return tuple(box)

    def meet(self, left: Box, right: Box) -> Box | None:
        if not (left[ARCH] & right[ARCH] and left[NR] & right[NR]):
            return None
        common = tuple([one & other for one, other in zip(left, right, strict=True)])
        return common if all(common) else None

    def witness(self, region: Box) -> tuple[int, ...]:
        return tuple(
            classes.witnesses[(chosen & -chosen).bit_length() - 1]
            for classes, chosen in zip(self._words, region, strict=True)
        )

    def shape(self, region: Box) -> tuple[Sequence[Ranges], bool]:
        found = [classes.ranges(chosen) for classes, chosen in zip(self._words, region, strict=True)]
        return [ranges for ranges, _ in found], all(every for _, every in found)

    def unite(self, regions: Iterable[Box]) -> list[Box]:
        return _united(regions)


def _united(regions: Iterable[Box]) -> list[Box]:
    """The same points in fewer boxes: those that differ in one word only become one."""
    boxes = list(dict.fromkeys(regions))
    before = 0
    while len(boxes) != before:
        before = len(boxes)
        for word in range(op.WORDS):
            alike: dict[Box, int] = {}
            for box in boxes:
                key = box[:word] + box[word + 1 :]
                alike[key] = alike.get(key, 0) | box[word]
            boxes = [(*key[:word], chosen, *key[word:]) for key, chosen in alike.items()]
    return boxes


class _Flow:
    """Sets of numbers on their way through the decisions, apart by the *rest*: what is known of the other fifteen words."""

    def __init__(self, rest: Box, nodes: int) -> None:
        self.rests: list[Box] = [rest]
        self._arrived: list[dict[int, int]] = [{} for _ in range(nodes)]
        self.returned: dict[int, dict[int, int]] = {}
        self._index = {rest: 0}
        self._splits: dict[tuple[int, int, int], tuple[int, int]] = {}
        self._moves = 0
        self._many = MANY

    def move(self, target: int, rest: int, numbers: int) -> None:
        self._moves += 1
        if self._moves > MOST_MOVES:
            raise Intricate
        there = self._arrived[target] if target >= 0 else self.returned.setdefault(~target, {})
        there[rest] = there.get(rest, 0) | numbers

    def at(self, node: int) -> dict[int, int]:
        """What arrived at a node: sets of numbers by their rest. Where it came by many ways, some of these may be one again."""
        arrived, self._arrived[node] = self._arrived[node], {}
        if len(arrived) > self._many:
            united = _united((numbers, *self.rests[rest]) for rest, numbers in arrived.items())
            if len(united) > self._many // 2:  # for nothing, or almost: the next time at twice as many
                self._many = 2 * len(united)
            arrived = {}
            for numbers, *rest in united:
                number = self._number(tuple(rest))
                arrived[number] = arrived.get(number, 0) | numbers
        return arrived

    def split(self, rest: int, word: int, chosen: int) -> tuple[int, int]:
        """The rest where a word is in a set, and where it is not; -1 for none."""
        key = (rest, word, chosen)
        found = self._splits.get(key)
        if found is None:
            words = self.rests[rest]
            inside = words[word - 1] & chosen
            found = self._splits[key] = (
                self._with(words, word, inside),
                self._with(words, word, words[word - 1] ^ inside),
            )
        return found

    def _with(self, words: Box, word: int, chosen: int) -> int:
        if not chosen:
            return -1
        return self._number((*words[: word - 1], chosen, *words[word:]))

    def _number(self, words: Box) -> int:
        number = self._index.setdefault(words, len(self.rests))
        if number == len(self.rests):
            self.rests.append(words)
        return number
