"""Errors that a person reads: each says what was wrong, where, and what was expected or to be done."""

from __future__ import annotations

__all__ = ["InputError", "SeccompFloorError", "excerpt"]

LONGEST_PATH = 400


class SeccompFloorError(Exception):
    """Root of every error of this project. Its text is one line made for a person; it never carries a secret."""


class InputError(SeccompFloorError):
    """Something that was handed to us is not what it must be.

    :param where: the path of the value, as its author would look for it (``linux.seccomp.syscalls[3].action``); shortened and made
        printable where a name from outside is part of it
    :param got: the value found; shortened and made printable, since it may be hostile
    :param expected: what would have been right
    """

    def __init__(self, where: str, got: object, expected: str) -> None:
        self.where = where if where.isprintable() and len(where) <= LONGEST_PATH else excerpt(where)
        super().__init__(f"{self.where}: expected {expected}, got {excerpt(got)}")
        self.expected = expected


def excerpt(value: object, limit: int = 80) -> str:
    """A printable, bounded picture of a value from outside: no control characters, no megabytes, no recursion."""
    if isinstance(value, dict):
        return f"an object of {len(value)} keys" if value else "an empty object"
    if isinstance(value, (list, tuple)):
        return f"an array of {len(value)} items" if value else "an empty array"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 256:
        return "a very large number"
    if isinstance(value, (str, bytes)) and len(value) > limit:
        return f"{value[:limit]!a}... ({len(value)} long)"
    text = ascii(value)
    return text if len(text) <= limit * 2 else text[: limit * 2] + "..."
