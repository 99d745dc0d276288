"""What a person reads: one bounded, printable line, whatever was handed in."""

from __future__ import annotations

import pytest

from seccomp_floor.errors import InputError, SeccompFloorError, excerpt


def test_an_input_error_says_where_what_and_what_else() -> None:
    error = InputError("linux.seccomp.syscalls[3].action", "SCMP_ACT_ALOW", "one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO")
    assert isinstance(error, SeccompFloorError)
    assert str(error) == (
        "linux.seccomp.syscalls[3].action: expected one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, got 'SCMP_ACT_ALOW'"
    )
    assert (error.where, error.expected) == (
        "linux.seccomp.syscalls[3].action",
        "one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO",
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-(1 << 64), "-18446744073709551616"),
        (10**5000, "a very large number"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        ("", "''"),
        ("AF_ÄLG", r"'AF_\xc4LG'"),
        ("two\nlines\x1b[31m", r"'two\nlines\x1b[31m'"),
        ("\ud800", r"'\ud800'"),
        ("x" * 81, "'" + "x" * 80 + "'... (81 long)"),
        (b"\xff", r"b'\xff'"),
        ([], "an empty array"),
        ([1, [2]], "an array of 2 items"),
        ((), "an empty array"),
        ({}, "an empty object"),
        ({"a": 1}, "an object of 1 keys"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_excerpts(value: object, shown: str) -> None:
    assert excerpt(value) == shown


@pytest.mark.parametrize(
    "value",
    ["😀" * 10**6, "😀" * 80, "\0" * 79, b"\0" * 10**6, 10**10**5, [[]] * 10**6],
    ids=lambda value: type(value).__name__,
)
def test_no_excerpt_is_long(value: object) -> None:
    assert len(excerpt(value)) < 1000


def test_a_path_with_a_hostile_name_in_it() -> None:
    """A container's name is part of the path of its annotation."""
    error = InputError("annotation container.\n2026-01-01 all is well", "yes", "true")
    assert str(error).isprintable()
    assert error.where == r"'annotation container.\n2026-01-01 all is well'"
    assert len(str(InputError("a" * 10**6, 1, "b"))) < 1000
