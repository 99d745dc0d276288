"""The text of a config.json: what is found in it, and that nothing but the section changes."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seccomp_floor.errors import InputError, SeccompFloorError
from seccomp_floor.runtime.config import MARK, Config, ConfigError

NEW = '{"defaultAction":"SCMP_ACT_ALLOW"}'


def test_the_section_is_found_as_it_stands() -> None:
    """With the blanks that its author gave it."""
    config = Config('{"ociVersion": "1.0", "linux": {"x": 1, "seccomp" : { "defaultAction": "SCMP_ACT_LOG" } }}')
    assert config.section == '{ "defaultAction": "SCMP_ACT_LOG" }'


@pytest.mark.parametrize("text", ['{"a":1}', '{"linux":null}', '{"linux":{}}', '{"linux":{"seccomp":null}}'])
def test_no_section(text: str) -> None:
    """Absent, and null, are none to runtimes as well."""
    assert Config(text).section is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.text(max_size=4).filter(
    lambda key: "\0" not in key and key.casefold() not in {"linux", "seccomp", "annotations"}
)


@given(
    rest=st.dictionaries(KEYS, JSON, min_size=1, max_size=4),
    linux=st.none() | st.dictionaries(KEYS, JSON, max_size=3),
    section=st.sampled_from(["absent", None, {"defaultAction": "SCMP_ACT_LOG"}]),
    annotations=st.none() | st.dictionaries(KEYS, st.text(), max_size=3),
    layout=st.sampled_from([None, 0, 1, "\t"]),
    ascii_only=st.booleans(),
)
def test_nothing_else_changes(
    rest: dict[str, Any],
    linux: dict[str, Any] | None,
    section: Any,
    annotations: dict[str, str] | None,
    layout: int | str | None,
    ascii_only: bool,
) -> None:
    """The new text means the old one with the section and the mark; what stood outside of them still stands, byte for byte."""
    spec: dict[str, Any] = dict(rest)
    if linux is not None:
        spec["linux"] = linux if section == "absent" else {**linux, "seccomp": section}
    if annotations is not None:
        spec["annotations"] = annotations
    text = json.dumps(spec, indent=layout, ensure_ascii=ascii_only)
    changed = Config(text).with_section(NEW, '"1"')

    expected = dict(spec)
    expected["linux"] = {**(linux or {}), "seccomp": json.loads(NEW)}
    expected["annotations"] = {**(annotations or {}), MARK: "1"}
    assert json.loads(changed) == expected
    again = Config(changed)
    assert again.section == NEW
    assert again.annotations[MARK] == "1"
    for key, value in rest.items():
        member = (
            f"{json.dumps(key, ensure_ascii=ascii_only)}: {json.dumps(value, indent=layout, ensure_ascii=ascii_only)}"
        )
        if layout is None:
            assert member in changed


def test_bytes_that_are_no_utf_8_survive() -> None:
    """Go reads them as U+FFFD; they are not ours to change."""
    data = b'{"process": {"env": ["A=\xff\xfe"]}, "linux": {}}'
    changed = Config(data.decode("utf-8", "surrogateescape")).with_section(NEW, '"1"')
    assert b'"A=\xff\xfe"' in changed.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "text",
    [
        '{"linux": {}, "linux": {"seccomp": {}}}',
        '{"linux": {"seccomp": {}, "seccomp": null}}',
        '{"linux": {"seccomp": {}, "s\\u0065ccomp": null}}',
        '{"linux": {}, "Linux": {"seccomp": null}}',
        '{"linux": {"seccomp": {}, "SECCOMP": null}}',
        '{"linux": {"\u017feccomp": null}}',
        '{"linux": {"\\u017feccomp": null}}',
        '{"annotations": {}, "annotations": {}}',
        '{"Annotations": {}}',
        '{"linux\\u0000": {}}',
        '{"linux": {"seccomp\\u0000x": {}}}',
        '{"annotations": {"run.oci.seccomp_bpf_data\\u0000": "x"}}',
        '{"annotations": {"a": "1", "a": "2"}}',
    ],
)
def test_ambiguous_keys_are_refused(text: str) -> None:
    """Given twice, in another case (as Go folds it: U+017F is an s), or cut at a NUL as C would."""
    with pytest.raises(ConfigError, match="key"):
        Config(text)


def test_annotations_may_differ_in_case_alone() -> None:
    """They are a map, whose keys runtimes take as they are."""
    assert Config('{"annotations": {"a": "1", "A": "2", "Linux": "3"}}').annotations == {
        "a": "1",
        "A": "2",
        "Linux": "3",
    }


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "nul", "null", "[]", "{}", '"text"', "{", '{"a"', '{"a":', '{"a":1', '{"a":1,}', '{"a" 1}', "{'a':1}", '{"a":1}}',
        '{"a":1} {"b":2}', '{"a":NaN}', '{"a":Infinity}', '{"a":01}', '{"a":"\t"}', '{"a":1} // comment', '\ufeff{"a":1}',
        '{"a":' + "1" * 5000 + "}", '{"linux":{"a"}}',
    ],
)  # fmt: skip
def test_what_is_no_configuration(text: str) -> None:
    """One clear line each."""
    with pytest.raises(ConfigError, match=r"^config\.json: expected an object in JSON: .") as caught:
        Config(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("place", ['{"a":%s}', '{"linux":{"a":%s}}', '{"annotations":{"a":%s}}', "%s"])
def test_deep_nesting(place: str) -> None:
    """No traceback, no crash of the interpreter, whichever part it is."""
    depth = sys.getrecursionlimit() * 100
    with pytest.raises(SeccompFloorError, match="nested too deeply"):
        Config(place % ("[" * depth + "]" * depth))


@pytest.mark.parametrize("text", ['{"linux":[]}', '{"linux":1}', '{"annotations":"x"}', '{"annotations":false}'])
def test_wrong_types(text: str) -> None:
    """What is not an object has no members to find."""
    with pytest.raises(InputError, match="expected an object"):
        Config(text)
