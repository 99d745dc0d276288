"""What every command shares: options, where answers go, and exit codes.

Exit 0: good. 1: the answer is no. 2: the question was wrong; one line on stderr says what, where, and what was expected.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from seccomp_floor.abi import Abi, abi_named, this_machine
from seccomp_floor.errors import InputError
from seccomp_floor.floor import Policy
from seccomp_floor.policy_file import load_policy

__all__ = [
    "LARGEST_INPUT",
    "answer_no",
    "arch_option",
    "config_option",
    "json_option",
    "parse_json",
    "print_json",
    "read_input",
]

LARGEST_INPUT = 64 << 20
"""Bytes that a command reads of one file or of stdin at the most."""

_F = TypeVar("_F", bound=Callable[..., Any])


def _policy(_context: click.Context, _option: click.Parameter, value: Path | None) -> Policy:
    return load_policy(value)


def _native(_context: click.Context, _option: click.Parameter, value: str | None) -> Abi:
    return this_machine() if value is None else abi_named(value, "--arch")


def config_option(function: _F) -> _F:
    """``--config FILE``: the command receives ``policy``, a :class:`~seccomp_floor.floor.Policy`."""
    return click.option(
        "--config",
        "policy",
        type=click.Path(path_type=Path),
        callback=_policy,
        metavar="FILE",
        help="The policy; default /etc/seccomp-floor/policy.yaml where it exists, else the built-in one.",
    )(function)


def arch_option(function: _F) -> _F:
    """``--arch ARCH``: the command receives ``native``, the :class:`~seccomp_floor.abi.Abi` of the node."""
    return click.option(
        "--arch",
        "native",
        callback=_native,
        metavar="ARCH",
        help="The node's architecture, as runtime-spec names it (x86_64, SCMP_ARCH_S390X); default: this machine's.",
    )(function)


def json_option(function: _F) -> _F:
    """``--json``: the command receives ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(function)


def read_input(source: str) -> bytes:
    """A file's bytes, or stdin's for ``-``. :raises InputError: unreadable, or larger than LARGEST_INPUT."""
    try:
        if source == "-":
            if sys.stdin is None:  # its descriptor was closed when we started
                raise InputError("input", source, "a standard input")
            data = sys.stdin.buffer.read(LARGEST_INPUT + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(LARGEST_INPUT + 1)
    except OSError as error:
        raise InputError("input", source, f"a readable file ({error.strerror})") from error
    if len(data) > LARGEST_INPUT:
        raise InputError("input", source, f"at most {LARGEST_INPUT} bytes")
    return data


def parse_json(data: bytes, name: str) -> object:
    """The value that a JSON document holds.

    :param name: how errors name the document
    :raises InputError: no JSON, too deeply nested, or a key given twice, of which runtimes take the first or the last
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(name, key, "each key once")
            found[key] = value
        return found

    try:
        value: object = json.loads(data, object_pairs_hook=once)
    except RecursionError:
        raise InputError(name, "deeply nested values", "JSON of a sane depth") from None
    except json.JSONDecodeError as error:
        where = f"{name}: line {error.lineno}, column {error.colno}"
        raise InputError(where, error.doc[error.pos : error.pos + 20] or "the end", "JSON") from None
    except ValueError:  # not UTF-8, or a number of thousands of digits
        raise InputError(name, data[:40], "JSON in UTF-8") from None
    return value


def print_json(value: object) -> None:
    """A JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))


def answer_no() -> NoReturn:
    """Leave with exit code 1: the question was right, and the answer is no."""
    raise SystemExit(1)
