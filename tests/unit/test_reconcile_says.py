"""What a profile says of a call, before any compiler: its rules taken apart, and conditions that leave values out."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from floored import allowed, arg, denied, profile, rule
from seccomp_floor.profile import Action, Operator
from seccomp_floor.reconcile.says import (
    Answer,
    Says,
    default_answer,
    holds,
    rules_for,
    socketcall_rules,
)
from seccomp_floor.reconcile.sockets import everything_but

HIGH = 1 << 32
ALLOW, EPERM = Answer.of(Action.ALLOW), Answer.of(Action.ERRNO)


def test_equal_answers_are_equal() -> None:
    assert Answer.of(Action.KILL) == Answer.of(Action.KILL_THREAD) == Answer.of(Action.KILL_THREAD, 5)
    assert Answer.of(Action.ERRNO) == Answer.of(Action.ERRNO, 1) != Answer.of(Action.ERRNO, 2)
    assert Answer.of(Action.ALLOW, 3) == ALLOW


def test_the_kernels_order() -> None:
    order = [
        Action.KILL_PROCESS, Action.KILL_THREAD, Action.TRAP, Action.ERRNO, Action.NOTIFY, Action.TRACE, Action.LOG, Action.ALLOW,
    ]  # fmt: skip
    for stricter, weaker in pairwise(order):
        assert Answer.of(weaker).weaker_than(Answer.of(stricter))
        assert not Answer.of(stricter).weaker_than(Answer.of(weaker))


def test_what_equals_the_default_says_nothing() -> None:
    given = profile(denied("socket", 1, arg(0, "EQ", 40)), allowed("socket", arg(0, "EQ", 2)))
    assert [rule.args for rule in rules_for(given, "socket")] == [(arg(0, "EQ", 2),)]


def test_an_unconditional_rule_is_alone() -> None:
    given = profile(allowed("socket", arg(0, "EQ", 2)), rule("socket", Action.LOG), allowed("socket"))
    assert [rule.answer.action for rule in rules_for(given, "socket")] == [Action.LOG]


def test_two_conditions_on_one_argument_are_two_rules() -> None:
    given = profile(allowed("socket", arg(0, "NE", 38), arg(0, "NE", 40)))
    assert [rule.args for rule in rules_for(given, "socket")] == [(arg(0, "NE", 38),), (arg(0, "NE", 40),)]


def test_a_mask_of_nothing_is_no_condition() -> None:
    given = profile(allowed("socket", arg(0, "MASKED_EQ", 0, 7), arg(1, "EQ", 1)))
    assert [rule.args for rule in rules_for(given, "socket")] == [(arg(1, "EQ", 1),)]


def test_socketcalls_companions() -> None:
    given = profile(allowed("socket", arg(0, "EQ", 2), arg(1, "EQ", 1)), allowed("connect read"), denied("bind", 13))
    found = {rule.args: rule.answer for rule in socketcall_rules(given)}
    assert found == {
        (arg(0, "EQ", 1), arg(1, "EQ", 1)): ALLOW,
        (arg(0, "EQ", 3),): ALLOW,
        (arg(0, "EQ", 2),): Answer.of(Action.ERRNO, 13),
    }


def test_answers_by_value() -> None:
    given = profile(allowed("socket", arg(0, "LT", 38)), allowed("socket", arg(0, "GT", 40)))
    says = Says.of(rules_for(given, "socket"), default_answer(given))
    assert [says.at(value) for value in (2, 38, 40, 41)] == [(ALLOW,), (EPERM,), (EPERM,), (ALLOW,)]
    assert says.above(40) == (ALLOW,)


def test_equality_is_asked_before_order() -> None:
    given = profile(allowed("socket", arg(0, "GE", 0)), denied("socket", 97, arg(0, "EQ", 40)), default=Action.KILL)
    says = Says.of(rules_for(given, "socket"), default_answer(given))
    assert says.at(40) == (Answer.of(Action.ERRNO, 97),)
    assert says.at(41) == (ALLOW,)


def test_other_arguments_leave_it_open() -> None:
    given = profile(allowed("socket", arg(0, "EQ", 2), arg(1, "EQ", 1)))
    says = Says.of(rules_for(given, "socket"), default_answer(given))
    assert says.at(2) == (ALLOW, EPERM)
    assert says.at(3) == (EPERM,)


@given(st.sampled_from(list(Operator)), st.integers(0, 64), st.integers(0, 64), st.integers(0, 64))
def test_conditions(op: Operator, value: int, mask: int, asked: int) -> None:
    condition = arg(0, op.name, mask if op is Operator.MASKED_EQ else value, value)
    expected = {
        "NE": asked != value, "EQ": asked == value, "LT": asked < value, "LE": asked <= value, "GT": asked > value,
        "GE": asked >= value, "MASKED_EQ": asked & mask == value & mask,
    }  # fmt: skip
    assert holds(condition, asked) is expected[op.name]


@given(
    st.sets(st.integers(0, 70) | st.integers(0, HIGH - 1), min_size=1, max_size=8),
    st.integers(0, HIGH - 1),
    st.integers(0, 9),
)
def test_everything_but_some_values(out: set[int], asked: int, high: int) -> None:
    """Of the conditions exactly one holds for every other value, whatever the high half; none for these."""
    conditions = list(everything_but(out))
    for value in (asked, *out, *(value ^ 1 for value in out)):
        assert sum(holds(one, high << 32 | value) for one in conditions) == (value not in out)
