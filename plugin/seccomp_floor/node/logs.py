"""The daemon's log: one line an event, for people or as JSON, whatever a pod's author has put into a name.

What comes from a pod goes into fields, never into the message, and a field is bounded and has no control characters: a line of the
log is what we said, and nothing in it can look like another line.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import TextIO

__all__ = ["event", "printable", "setup"]

LONGEST = 256
"""Characters of a field's value; a sentence with a counterexample fits."""
LONGEST_MESSAGE = 4096

Field = str | int | float | bool | None

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@+,*()[]<>|")


def event(log: logging.Logger, level: int, message: str, **fields: Field) -> None:
    """Say what happened, to what. ``message`` is ours; ``fields`` may be hostile. None is left out."""
    if log.isEnabledFor(level):
        log.log(level, "%s", message, extra={"fields": {name: v for name, v in fields.items() if v is not None}})


def printable(text: str, limit: int = LONGEST) -> str:
    """The text without what would move a terminal or end a line, and not longer than ``limit`` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def setup(as_json: bool, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log to one stream, by default stderr."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if as_json else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.raiseExceptions = (
        False  # stderr may be closed, or a full disk: to lose a line is better than to lose the daemon
    )


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname} {_message(record)}"
        return line + "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(document | {"message": _message(record)} | _fields(record), ensure_ascii=True)


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _message(record: logging.LogRecord) -> str:
    return printable(record.getMessage(), LONGEST_MESSAGE)


def _fields(record: logging.LogRecord) -> dict[str, Field]:
    given: object = getattr(record, "fields", None)
    fields: dict[str, Field] = {}
    for name, value in (given if isinstance(given, Mapping) else {}).items():
        fields[name] = printable(value) if isinstance(value, str) else value
    if record.exc_info:
        fields["exception"] = printable(logging.Formatter().formatException(record.exc_info), LONGEST_MESSAGE)
    return fields


def _quoted(value: Field) -> str:
    """As it is where that is unmistakable, else in quotes with its own quotes escaped."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)
