"""Sections of every shape: read and written they stay what they were, and what is none is refused by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seccomp_floor import plain
from seccomp_floor.abi import ABIS
from seccomp_floor.errors import InputError
from seccomp_floor.profile import Action, Operator, Profile, parse_profile, write_profile

U64 = st.sampled_from([0, 1, 38, 40, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)
ERRNO = st.integers(0, 0xFFFF)
NAME = st.sampled_from(["socket", "socketcall", "io_uring_setup", "read"]) | st.text(
    st.characters(min_codepoint=1, max_codepoint=0x7F), min_size=1, max_size=8
)
TEXT = st.text(min_size=1, max_size=8)  # lone surrogates too: JSON can spell them


def section_of(required: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]]) -> Any:
    return st.fixed_dictionaries(required, optional=optional)


ARG = section_of(
    {"index": st.integers(0, 5), "value": U64, "op": st.sampled_from([str(operator) for operator in Operator])},
    {"valueTwo": U64.filter(bool)},
)
RULE = section_of(
    {"names": st.lists(NAME, max_size=3), "action": st.sampled_from([str(action) for action in Action])},
    {"errnoRet": ERRNO, "args": st.lists(ARG, min_size=1, max_size=3)},
)
SECTION = section_of(
    {"defaultAction": st.sampled_from([str(action) for action in Action])},
    {
        "defaultErrnoRet": ERRNO,
        "architectures": st.lists(st.sampled_from(sorted(ABIS)), min_size=1, max_size=3),
        "flags": st.lists(TEXT, max_size=2),
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "syscalls": st.lists(RULE, min_size=1, max_size=4),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(SECTION)
def test_a_section_is_written_as_it_was_read(section: dict[str, Any]) -> None:
    profile = parse_profile(section)
    written = write_profile(profile)
    assert written == section
    assert parse_profile(json.loads(json.dumps(written))) == profile
    assert hash(parse_profile(section)) == hash(profile)


@given(SECTION)
def test_a_section_comes_back_from_another_process(section: dict[str, Any]) -> None:
    profile = parse_profile(section)
    assert plain.load(plain.dump(profile)) == profile


SPARE: dict[str, tuple[Any, ...]] = {
    "defaultErrnoRet": (None,), "architectures": (None, []), "flags": (None,), "listenerPath": (None, ""),
    "listenerMetadata": (None, ""), "syscalls": (None, []),
}  # fmt: skip


@given(SECTION, st.data())
def test_what_is_empty_might_as_well_be_absent(section: dict[str, Any], data: st.DataObject) -> None:
    spared = {key: data.draw(st.sampled_from(values), label=key) for key, values in SPARE.items() if key not in section}
    assert parse_profile(spared | section) == parse_profile(section)


@given(JSON)
def test_any_value_is_a_section_or_is_refused(value: object) -> None:
    try:
        profile = parse_profile(value, "here")
    except InputError as error:
        refusal = error
    else:
        assert isinstance(profile, Profile)
        return
    assert refusal.where == "here" or refusal.where.startswith(("here.", "here["))
    assert str(refusal).startswith(f"{refusal.where}: expected ")
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 1000


def places(value: object, path: str = "") -> list[tuple[str, Any, Any]]:
    """Every place in a value: its path, and the container and key to reach it by."""
    found: list[tuple[str, Any, Any]] = []
    if isinstance(value, dict):
        steps = [(f"{path}.{key}", key) for key in value]
    else:
        steps = [(f"{path}[{n}]", n) for n in range(len(value))] if isinstance(value, list) else []
    for step, key in steps:
        found.append((step, value, key))
        found += places(value[key], step)  # type: ignore[index]
    return found


@given(SECTION, JSON, st.data())
def test_a_mistake_is_found_where_it_is(section: dict[str, Any], mistake: object, data: st.DataObject) -> None:
    """One value of a section that was right is replaced."""
    section = json.loads(json.dumps(section))
    path, holder, key = data.draw(st.sampled_from(places(section)))
    holder[key] = mistake
    try:
        parse_profile(section, "")
    except InputError as error:
        refusal = error
    else:
        assume(False)
    assert refusal.where.startswith(path)


@given(SECTION, st.text(max_size=12), JSON, st.data())
def test_a_key_too_many_is_found_where_it_is(
    section: dict[str, Any], key: str, value: object, data: st.DataObject
) -> None:
    section = json.loads(json.dumps(section))
    objects = [("here", section)]
    objects += [
        ("here" + path, holder[step]) for path, holder, step in places(section) if isinstance(holder[step], dict)
    ]
    path, holder = data.draw(st.sampled_from(objects))
    known = {
        "defaultAction",
        "defaultErrnoRet",
        "architectures",
        "flags",
        "listenerPath",
        "listenerMetadata",
        "syscalls",
    }
    assume(key not in known | {"names", "action", "errnoRet", "args", "index", "value", "valueTwo", "op"})
    holder[key] = value
    with pytest.raises(InputError, match="expected only the keys") as caught:
        parse_profile(section, "here")
    assert caught.value.where == path


def nested(depth: int) -> object:
    value: object = []
    for _ in range(depth):
        value = [value]
    return value


HUGE = {
    "deep": nested(100_000),
    "wide": [None] * 1_000_000,
    "long": "A" * 10_000_000,
    "big": 10**100_000,
    "many keys": {str(n): n for n in range(100_000)},
}


@pytest.mark.parametrize("size", HUGE)
def test_hostile_sizes_have_short_refusals(size: str) -> None:
    """Wherever they stand: no recursion, and nothing of their size in the answer."""
    arg = {"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}
    template: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86"],
        "flags": ["f"],
        "listenerPath": "p",
        "listenerMetadata": "m",
        "syscalls": [{"names": ["n"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1, "args": [arg]}],
    }
    refused = 0
    for path, _, _ in places(template):
        section = json.loads(json.dumps(template))
        _, holder, key = next(place for place in places(section) if place[0] == path)
        holder[key] = HUGE[size]
        try:
            parse_profile(section)
        except InputError as error:
            refused += 1
            assert len(str(error)) < 1000  # noqa: PT017
    texts = 4 if size == "long" else 0  # listener, flag and the name of a system call may be of any length
    assert refused == len(places(template)) - texts


def test_a_large_section_is_read() -> None:
    names = [f"call_{n}" for n in range(100_000)]
    rules = [{"names": names[n : n + 10], "action": "SCMP_ACT_ALLOW"} for n in range(0, len(names), 10)]
    section = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    assert write_profile(parse_profile(section)) == section
