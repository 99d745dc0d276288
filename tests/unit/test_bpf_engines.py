"""Both engines against the interpreter: their leaves are disjoint, cover everything, and say what the program returns."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.assembly import ALLOW, errno, jump, load, plain, program
from oracles.generate import CONSTANTS, anything, compiled_like, examples
from seccomp_floor.bpf import bits, boxes
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.bits import Bits
from seccomp_floor.bpf.boxes import Boxes
from seccomp_floor.bpf.classes import Classes
from seccomp_floor.bpf.decisions import Intricate, Test, unfold
from seccomp_floor.bpf.engines import views
from seccomp_floor.bpf.machine import SeccompData, run
from seccomp_floor.bpf.program import RET_ALLOW, RET_ERRNO, Program, effect
from seccomp_floor.bpf.space import EVERY, Ranges, complement

U32 = 0xFFFF_FFFF

Words = tuple[int, ...]
"""Sixteen of them: a point of the space."""


def point(random: Random) -> Words:
    """Sixteen words."""
    return tuple(random.choice(CONSTANTS) if random.random() < 0.8 else random.getrandbits(32) for _ in range(16))


def around(given_program: Program, words: Words) -> dict[int, Ranges]:
    """The slice of all points like this one, as far as the program looks."""
    seen = {k // 4 for code, _, _, k in given_program if code == op.LD_ABS}
    return {word: ((words[word], words[word]),) for word in seen}


def boxes_for(given_program: Program, points: list[Words]) -> Boxes:
    """A space that can tell the points."""
    return Boxes([given_program], [around(given_program, words) for words in points])


def check_leaves(space: Any, given_program: Program, points: list[Words]) -> None:
    """:param space: made for the program and these points"""
    leaves = space.leaves(0)
    for region, value in leaves:
        words = space.witness(region)
        assert effect(run(given_program, SeccompData.of_words(words))) == effect(value)
    for words in points:
        here = space.slice(around(given_program, words))
        assert here is not None
        there = [value for region, value in leaves if space.meet(region, here) is not None]
        assert len(there) == 1
        assert effect(there[0]) == effect(run(given_program, SeccompData.of_words(words)))


@examples(800)
@given(compiled_like, st.integers(0, 2**32))
def test_boxes(given_program: Program, seed: int) -> None:
    points = [point(Random(seed)) for _ in range(8)]
    check_leaves(boxes_for(given_program, points), given_program, points)


@examples(400)
@given(anything | compiled_like, st.integers(0, 2**32), st.booleans())
def test_bits(given_program: Program, seed: int, interleaved: bool) -> None:
    points = [point(Random(seed)) for _ in range(8)]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bits, "MOST_STEPS", 100_000)
            space = Bits([given_program], interleaved=interleaved, data=True)
            check_leaves(space, given_program, points)
    except Intricate:
        pass


@pytest.mark.parametrize("shift", [0, 24])
@pytest.mark.parametrize("code", [*sorted(op.ARITHMETIC), op.NEG], ids=lambda code: f"{code:#x}")
def test_arithmetic_of_functions(code: int, shift: int) -> None:
    """Each instruction on some bits of arguments, zero and shifts beyond 31 among them; its result comes back as errno."""
    operand = 5 if code in (op.LSH, op.RSH, op.DIV, op.MUL) else 0xFFFF_FF05
    filtered = program(
        load(1), jump(op.JEQ, 0xC000_003E, 0, 10),
        load(4), plain(op.AND, 0x23), plain(op.TAX), load(6), plain(op.AND, 0x8000_0031), plain(code, operand),
        plain(op.RSH, shift), plain(op.AND, 0xFF), plain(op.OR, RET_ERRNO), plain(op.RET_A), ALLOW,
    )  # fmt: skip
    values = [(a, x) for a in (0, 1, 0x30, 0x31, 0x8000_0001, U32) for x in (0, 1, 2, 3, 32, 33, 35, 64)]
    points: list[Words] = [(0, 0xC000_003E, 0, 0, x, 0, a, *(0,) * 9) for a, x in values]
    check_leaves(Bits([filtered], interleaved=True, data=True), filtered, points)


@pytest.mark.parametrize("engine", ["boxes", "bits"])
@pytest.mark.parametrize("code", [op.JEQ, op.JGT, op.JGE, op.JSET])
@pytest.mark.parametrize("mask", [U32, 0xF0, 0x8000_0001])
def test_comparisons(engine: str, code: int, mask: int) -> None:
    """Each comparison of a masked word, with constants inside and outside of the mask."""
    constants = (0, 1, 0x30, 0x31, 0xF0, 0xF1, 0x8000_0000, 0x8000_0001, U32)
    points: list[Words] = [
        (0, 0, 0, 0, value, *(0,) * 11) for k in constants for value in (max(k, 1) - 1, k, min(k, U32 - 1) + 1)
    ]
    for k in constants:
        filtered = program(load(4), plain(op.AND, mask), jump(code, k, 0, 1), errno(1), ALLOW)
        space: Any = Bits([filtered], interleaved=False, data=True)
        check_leaves(boxes_for(filtered, points) if engine == "boxes" else space, filtered, points)


def holds(test: Test, value: int) -> bool:
    """A test, asked."""
    _, mask, k, ordered = test
    return value & mask >= k if ordered else value & mask == k


constant = st.sampled_from(CONSTANTS) | st.integers(0, U32)
masks = st.just(U32) | constant.filter(bool)
tests_of_a_word = st.lists(st.tuples(st.just(0), masks, constant, st.booleans()), max_size=8)


@examples(1600)
@given(tests_of_a_word, st.lists(constant, max_size=20), st.integers(min_value=0))
def test_classes_are_what_the_tests_tell_apart(tests: list[Test], values: list[int], choice: int) -> None:
    classes = Classes(tests)
    assert classes.witnesses == sorted(set(classes.witnesses))
    for place, witness in enumerate(classes.witnesses):
        assert all(bool(classes.sets[test] >> place & 1) == holds(test, witness) for test in tests)
    chosen = choice & classes.every
    found, every = classes.ranges(chosen)
    assert all(first <= last for first, last in found)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(found))
    for value in values:
        kind = [holds(test, value) for test in tests]
        places = [n for n, witness in enumerate(classes.witnesses) if [holds(test, witness) for test in tests] == kind]
        assert places, "every value has a class"
        inside = any(first <= value <= last for first, last in found)
        if len(places) == 1:
            member = bool(chosen >> places[0] & 1)
            assert inside == member if every else inside <= member


def test_a_value_is_in_the_ranges_of_its_class_and_no_other() -> None:
    classes = Classes([(0, 0xF0, 0x30, False), (0, U32, 0x31, True)])
    ranges = [classes.ranges(1 << place) for place in range(len(classes.witnesses))]
    assert all(not every or found for found, every in ranges)
    few = classes.ranges(classes.sets[0, U32, 0x31, True])
    assert few == (((0x31, U32),), True)


def test_masks_of_the_highest_bits_make_ranges() -> None:
    """runc's stub asks for x32's bit in front of hundreds of comparisons: that must not cost."""
    classes = Classes([(0, 0x4000_0000, 0, False), *((0, U32, k, False) for k in range(0, 2000, 2))])
    assert classes.ranges(classes.sets[0, 0x4000_0000, 0, False]) == (
        ((0, 0x3FFF_FFFF), (0x8000_0000, 0xBFFF_FFFF)),
        True,
    )


def test_too_many_classes_are_refused() -> None:
    with pytest.raises(Intricate):
        Classes([(0, 1 << bit, 1 << bit, False) for bit in range(24)])


def test_shape_of_a_box() -> None:
    filtered = program(load(4), plain(op.AND, 0xFFF0), jump(op.JEQ, 0x20, 0, 1), errno(1), ALLOW)
    space = Boxes([filtered], ())
    ((region, _),) = [leaf for leaf in space.leaves(0) if leaf[1] != RET_ALLOW]
    shape, every = space.shape(region)
    assert not every  # 65536 ranges
    assert shape[4][0] == (0x20, 0x2F)
    assert shape[0] == ((0, U32),)


def test_boxes_that_differ_in_one_word_unite() -> None:
    filtered = program(
        load(0), jump(op.JEQ, 3, 4, 0), jump(op.JEQ, 4, 3, 0), load(4), jump(op.JEQ, 7, 1, 0), errno(1), ALLOW
    )
    space = Boxes([filtered], ())
    (united,) = space.unite(region for region, value in space.leaves(0) if value != RET_ALLOW)
    shape, every = space.shape(united)
    assert every
    assert shape[0] == ((0, 2), (5, U32))
    assert shape[4] == ((0, 6), (8, U32))


@pytest.mark.parametrize("interleaved", [False, True])
def test_shape_of_a_function(interleaved: bool) -> None:
    filtered = program(load(0), plain(op.ADD, 5), jump(op.JGT, 10, 1, 0), errno(1), ALLOW)
    space = Bits([filtered], interleaved=interleaved, data=False)
    ((region, _),) = [leaf for leaf in space.leaves(0) if leaf[1] != RET_ALLOW]
    shape, every = space.shape(region)
    assert every
    assert shape[0] == ((0, 5), (0xFFFF_FFFB, U32))
    assert set(shape[1:]) == {((0, U32),)}


def test_two_words_compared_need_the_other_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether two arguments are equal is a small function if their bits alternate, and beyond all budgets if they do not."""
    monkeypatch.setattr(bits, "MOST_STEPS", 50_000)
    filtered = program(load(4), plain(op.TAX), load(6), jump(op.JEQ | op.X, 0, 0, 1), errno(1), ALLOW)
    with pytest.raises(Intricate):
        Boxes([filtered], ())
    with pytest.raises(Intricate):
        Bits([filtered], interleaved=False, data=False).leaves(0)
    space = Bits([filtered], interleaved=True, data=False)
    ((region, _),) = [leaf for leaf in space.leaves(0) if leaf[1] != RET_ALLOW]
    assert not space.shape(region)[1]  # all pairs of equal values are no product of two sets
    (view,) = views([filtered], (), data=False)
    assert isinstance(view.space, Bits)


def test_ways_that_double_at_every_step() -> None:
    """One bit of each of twelve words, counted together: 2**12 ways, or a dozen functions."""
    counted = [plain(op.LDX_IMM, 0)]
    for word in range(4, 16):
        counted += [load(word), jump(op.JSET, 1, 0, 3), plain(op.TXA), plain(op.XOR, 1), plain(op.TAX)]
    filtered = program(*counted, plain(op.TXA), jump(op.JEQ, 1, 0, 1), errno(1), ALLOW)
    space = Bits([filtered], interleaved=False, data=False)
    leaves = {value: region for region, value in space.leaves(0)}
    odd = space.witness(leaves[min(leaves)])
    assert sum(word & 1 for word in odd) % 2 == 1
    assert len(unfold(filtered).nodes) < 100  # the parity is a register here, so the decisions stay few


def test_a_budget_bounds_the_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "MOST_MOVES", 10)
    filtered = program(
        *[jump(op.JEQ, 1, 0, 0)] * 3, load(0), *[jump(op.JEQ, k, 20 - k, 0) for k in range(20)], errno(1), ALLOW
    )
    with pytest.raises(Intricate):
        Boxes([filtered], ()).leaves(0)


def test_the_decisions_of_a_program_are_few() -> None:
    """Loads, masks, moves, constants and jumps are worked out; what is left are questions about words."""
    filtered = program(
        plain(op.LD_IMM, 3), plain(op.ST, 0), load(4), plain(op.AND, 0xFF), plain(op.TAX), plain(op.LD_MEM, 0), plain(op.ADD, 4),
        jump(op.JEQ, 7, 0, 3), plain(op.TXA), plain(op.JA, 0), jump(op.JGT, 0x0F, 0, 1), errno(1), ALLOW,
    )  # fmt: skip
    decisions = unfold(filtered)
    assert decisions.tests == [(4, 0xFF, 0x10, True)]
    assert [node[1] for node in decisions.nodes] == [0]


def test_everything_is_one_region() -> None:
    space = Boxes([program(ALLOW)], ())
    region = space.slice(EVERY)
    assert region is not None
    assert space.leaves(0) == [(region, RET_ALLOW)]
    assert space.shape(region) == ([((0, U32),)] * 16, True)


@given(st.lists(st.tuples(constant, constant).map(sorted), max_size=5))
def test_a_complement_is_all_the_rest(pairs: list[list[int]]) -> None:
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(pairs):
        if not ranges or ranges[-1][1] < first:
            ranges.append((first, last))
    rest = complement(tuple(ranges))
    assert sum(last - first + 1 for first, last in (*ranges, *rest)) == 1 << 32
    assert all(a[1] < b[0] for a, b in pairwise(sorted((*ranges, *rest))))
