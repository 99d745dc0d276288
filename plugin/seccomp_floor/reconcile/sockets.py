"""``socket``, ``socketpair`` and ``socketcall``: rules that deny families, whatever libseccomp makes of them.

libseccomp merges the rules of a call into a tree, and what a rule does depends on the others. What these encodings rest on,
found in its ``src/db.c`` and ``src/gen_bpf.c`` and tried with 2.5.4 to 2.6.1; nothing is taken on trust, since every program is
proven afterwards:

- Rules that begin with argument 0 are asked in the order equality, then LT and LE, then GT and GE; among equalities on the same
  high half the one added first, or with the greater value, comes first. Rules without argument 0 are asked before all of these. So
  a denied family is an equality on the low half, added first, and what permits the rest begins with argument 0 and is no equality.
- On ABIs with ``socketcall``, each rule for ``socket`` adds one for ``socketcall`` with ``argument 0 == SYS_SOCKET`` in place of
  the family: its *companion*. Left alone, the companion of a permitted family opens them all, and the companion of a denied one
  closes them all.
- A companion is *absorbed* by a rule ``socketcall`` with ``argument 0 == call`` that is there already and has no other condition.
  With another answer than the companion's that is an error (EEXIST), unless the companion has further conditions: so rules get
  one that always holds.
- On 32-bit ABIs a companion is *dropped* where a rule on ``socketcall`` is there already that asks the same question of a later
  argument, whatever its answer: with ``argument 5 < 0``, which never holds, all companions with ``argument 5 >= 0`` vanish.
- Equality under a full mask is another question than plain equality, so a denied call does not collide with companions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from seccomp_floor.profile import Arg, Operator, Syscall
from seccomp_floor.reconcile.says import ANY, LOW, U64, Answer, Rule, Says, written

__all__ = ["Companions", "Encoded", "deny_calls", "deny_families", "everything_but"]

ALWAYS = ANY(5)
NEVER = Arg(5, 0, Operator.LT)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rules for one call: those that must come before the profile's others, and those that must come after them."""

    first: tuple[Syscall, ...]
    last: tuple[Syscall, ...]


@dataclass(frozen=True, slots=True)
class Companions:
    """What is to become of the companions of a call's rules. ``leaves``: the rules of the profile whose companions absorb others;
    ``drop``: none may come into being at all."""

    leaves: tuple[Rule, ...] = ()
    drop: bool = False

    def added(self, answer: Answer, args: Sequence[Arg]) -> tuple[Arg, ...]:
        """The conditions of a rule, with one more where its companion must be dropped, or absorbed by another answer."""
        if (self.drop or any(leaf.answer != answer for leaf in self.leaves)) and all(arg.index != 5 for arg in args):
            return (*args, ALWAYS)
        return tuple(args)


def _low_is(value: int, mask: int = LOW) -> Arg:
    return Arg(0, mask, Operator.MASKED_EQ, value)


def everything_but(values: Iterable[int]) -> Iterator[Arg]:
    """Conditions on the low half of argument 0 of which one holds exactly when it is none of the values: whole subtrees of the
    tree of all 32-bit numbers, bit by bit from the top."""
    left = sorted(set(values))

    def below(bit: int, prefix: int, inside: list[int]) -> Iterator[Arg]:
        if not inside:
            yield _low_is(prefix, LOW >> (bit + 1) << (bit + 1))
        elif bit >= 0:
            yield from below(bit - 1, prefix, [value for value in inside if not value >> bit & 1])
            yield from below(bit - 1, prefix | 1 << bit, [value for value in inside if value >> bit & 1])

    yield from below(31, 0, left)


def deny_families(
    name: str, rules: Sequence[Rule], default: Answer, families: Sequence[int], denial: Answer, companions: Companions
) -> Encoded:
    """Rules for ``socket`` or ``socketpair`` that answer as the profile's, but ``denial`` to these families, unless the profile
    denies them itself. :param rules: the profile's for the call"""
    says = Says.of(rules, default)
    kept: list[Syscall] = []  # denials of the profile's own
    first: list[Syscall] = []
    unseen: list[int] = []  # families that the default denies, and whose high halves get through

    def rule(args: Sequence[Arg], answer: Answer) -> Syscall:
        return written(name, companions.added(answer, args), answer)

    for family in families:
        exact = says.at(family)
        passes = any(answer.weaker_than(denial) for answer in exact)
        high_passes = any(answer.weaker_than(denial) for answer in says.above(family))
        if passes and denial != default:
            low = _low_is(family, LOW if high_passes else U64)
            values = says.values_of(family) if high_passes else [family]
            first += [rule([low, *others], denial) for others in _ways_through(rules, default, denial, values)]
        elif passes or (high_passes and exact == (default,)):
            unseen.append(family)
        elif high_passes:
            kept.append(rule([Arg(0, family, Operator.EQ)], exact[0]))
            if denial != default:
                first.append(rule([_low_is(family)], denial))
    first = kept + first
    if unseen:
        permitting = _uniform(says, families, denial)
        if permitting is not None:
            last = [rule([arg], permitting) for arg in everything_but(families)]
            if denial != default:
                last.append(rule([Arg(0, LOW, Operator.GT)], denial))
            return Encoded(tuple(first), tuple(last))
        if denial != default:
            first += [rule([_low_is(family)], denial) for family in unseen]
    behind = [rule(args, user.answer) for user in rules for args in _behind(user, families, denial)]
    # Longer rules first: after a shorter one that libseccomp takes to cover them, they would be dropped.
    last = sorted((one for one in behind if one not in first), key=lambda one: -len(one.args))
    return Encoded(tuple(first), tuple(last))


def _ways_through(
    rules: Sequence[Rule], default: Answer, denial: Answer, values: Iterable[int]
) -> list[tuple[Arg, ...]]:
    """The conditions on other arguments under which a call with one of these values of argument 0 is let through; one empty way
    where there is no such condition."""
    ways = {
        rule.but(0): None
        for rule in rules
        if rule.answer.weaker_than(denial) and any(rule.holds_on(0, value) for value in values)
    }
    if () in ways or default.weaker_than(denial):
        return [()]
    return list(ways)


def _uniform(says: Says, but: Sequence[int], denial: Answer) -> Answer | None:
    """The one answer that all values of argument 0 get whose low half is none of these; None where it is not one that the floor
    must take away, or where other arguments count."""
    if any(rule.but(0) or (first := rule.on(0)) is None or first.op is Operator.MASKED_EQ for rule in says.rules):
        return None
    marks = {0, LOW, *but} | {first.value for rule in says.rules if (first := rule.on(0))}
    values = {mark + step for mark in marks for step in (-1, 0, 1)}
    answers = {says.at(value) for value in values if 0 <= value <= U64 and value & LOW not in but}
    if len(answers) == 1:
        (answer,) = answers.pop()
        if answer.weaker_than(denial):
            return answer
    return None


def _behind(rule: Rule, denied: Sequence[int], denial: Answer) -> Iterator[tuple[Arg, ...]]:
    """A rule of the profile in a form that is asked after the denials; none where they cover it."""
    if not rule.answer.weaker_than(denial):
        yield rule.args
        return
    first, others = rule.on(0), rule.but(0)
    if first is None:
        yield (ANY(0), *others)
    elif first.op is Operator.NE:
        yield (Arg(0, first.value, Operator.LT), *others)
        yield (Arg(0, first.value, Operator.GT), *others)
    elif _one_low(first) in denied:
        return
    else:
        yield rule.args


def _one_low(arg: Arg) -> int | None:
    """The one low half for which a condition holds, None where there are others."""
    if arg.op is Operator.EQ:
        return arg.value & LOW
    if arg.op is Operator.MASKED_EQ and arg.value & LOW == LOW:
        return arg.value_two & LOW
    return None


def deny_calls(
    rules: Sequence[Rule],
    own: Sequence[Rule],
    default: Answer,
    denied: Sequence[int],
    denial: Answer,
    leaves: Sequence[Rule],
    *,
    wide: bool,
    drop: Answer | None,
) -> Encoded:
    """Rules for ``socketcall`` that answer as the profile's, but ``denial`` to these calls, unless the profile denies them itself.

    :param rules: all that the profile says of socketcall, companions included
    :param own: those in which it names socketcall itself
    :param leaves: companions of the profile's rules that are to absorb others
    :param wide: whether an ABI with socketcall compares all 64 bits
    :param drop: the answer of a rule that makes companions be dropped, not the default's; None: none need be
    """
    says = Says.of(rules, default)
    first: list[Syscall] = [] if drop is None else [_socketcall([NEVER], drop)]
    left_out: list[int] = []  # calls that get the default's answer, the same as the floor's, once nothing permits them
    for call in denied:
        exact = says.at(call)
        passes = any(answer.weaker_than(denial) for answer in exact)
        high_passes = not wide or any(answer.weaker_than(denial) for answer in says.above(call))
        low = _low_is(call, LOW if high_passes else U64)
        values = says.values_of(call) if wide and high_passes else [call]
        # Not the question that companions ask, where it can be told from the one above.
        exactly = _low_is(call, U64) if wide else Arg(0, call, Operator.EQ)
        if passes and denial == default:
            left_out.append(call)
        elif passes:
            asked = [rule for rule in rules if rule.holds_on(0, call)]
            if all(rule.but(0) for rule in asked):  # else one without further conditions has absorbed the others
                kept = [rule for rule in asked if not rule.answer.weaker_than(denial)]
                first += [_socketcall([exactly, *rule.but(0)], rule.answer) for rule in kept]
            first += [_socketcall([low, *others], denial) for others in _ways_through(rules, default, denial, values)]
        elif wide and high_passes:
            if exact[0] != default:
                first.append(_socketcall([Arg(0, call, Operator.EQ)], exact[0]))
            first.append(_socketcall([low], denial))
    first += [_socketcall(leaf.args, leaf.answer) for leaf in leaves]
    last = []
    for rule in own:
        for args in _behind(rule, denied, denial):
            ways: Iterable[tuple[Arg, ...]] = [args]
            if left_out and args and args[0] == ANY(0):
                ways = [(arg, *args[1:]) for arg in _around(left_out, wide)]
            last += [_socketcall(way, rule.answer) for way in ways]
    return Encoded(tuple(first), tuple(last))


def _socketcall(args: Sequence[Arg], answer: Answer) -> Syscall:
    return written("socketcall", args, answer)


def _around(out: Sequence[int], wide: bool) -> Iterator[Arg]:
    """Conditions on argument 0 of which one holds exactly when its low half is none of these calls."""
    if wide:
        yield from everything_but(out)
        return
    yield from (Arg(0, value, Operator.EQ) for value in range(max(out)) if value not in out)
    yield Arg(0, max(out), Operator.GT)
