"""One line an event, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seccomp_floor.node.logs import event, printable, setup

HOSTILE = "a\nb\r\x1b[2J\x85\u2028\0\ud800\u202e" + "x" * 10_000

log = logging.getLogger("seccomp_floor.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the root logger as it was."""
    root, raising = logging.getLogger(), logging.raiseExceptions
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def said(as_json: bool, **fields: str | float | None) -> str:
    """What one event comes to."""
    stream = io.StringIO()
    setup(as_json, stream=stream)
    event(log, logging.WARNING, "container refused", **fields)
    return stream.getvalue()


@given(st.text(alphabet=st.characters(codec=None)))
def test_nothing_breaks_a_line(text: str) -> None:
    """No character that ends a line or moves a terminal gets through, in either form."""
    for as_json in (False, True):
        line = said(as_json, pod=text)
        assert line.count("\n") == 1
        assert line.endswith("\n")
        assert line[:-1].isprintable()


def test_a_value_cannot_look_like_another_field() -> None:
    """Quotes and equals signs are quoted."""
    line = said(False, pod='default/a" reason="selected', reason="opted-out")
    assert line.count(" reason=") == 2
    assert r'pod="default/a\" reason=\"selected"' in line
    assert line.endswith(" reason=opted-out\n")


def test_long_values_are_cut() -> None:
    """A megabyte of annotation is not a megabyte of log."""
    assert len(said(False, pod=HOSTILE)) < 600
    assert "(10013 characters)" in printable(HOSTILE)


def test_json() -> None:
    """A document a line, with the fields beside the message, and nothing for what is not known."""
    document = json.loads(said(True, pod="default/a", changes=3, pause=None))
    assert document["message"] == "container refused"
    assert document["level"] == "warning"
    assert (document["pod"], document["changes"]) == ("default/a", 3)
    assert "pause" not in document


def test_an_exception_is_one_line_too() -> None:
    """With its traceback, in a field."""
    stream = io.StringIO()
    setup(True, stream=stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("failed")
    assert stream.getvalue().count("\n") == 1
    assert "ValueError" in json.loads(stream.getvalue())["exception"]


def test_a_stream_that_fails_ends_nothing() -> None:
    """Standard error may be closed, or on a full disk."""

    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(28, "No space left on device")

    setup(False, stream=Full())
    event(log, logging.ERROR, "still here")
