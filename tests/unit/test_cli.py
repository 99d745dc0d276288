"""The command line as a person meets it: one line for every wrong question, and its exit code. The real program, in a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seccomp_floor.commands.common import LARGEST_INPUT, parse_json, read_input
from seccomp_floor.errors import InputError

OPEN = json.dumps({"defaultAction": "SCMP_ACT_ALLOW"})
SHUT = json.dumps({"defaultAction": "SCMP_ACT_ERRNO"})


def seccomp_floor(*arguments: str | Path, stdin: str | None = "") -> subprocess.CompletedProcess[str]:
    """:param stdin: None: closed"""
    close = [] if stdin is not None else ["sh", "-c", 'exec "$@" <&-', "sh"]
    return subprocess.run(
        [*close, sys.executable, "-m", "seccomp_floor.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(*arguments: str | Path, stdin: str | None = "") -> str:
    """What a wrong question is told: exit code 2, nothing on stdout, one line on stderr."""
    done = seccomp_floor(*arguments, stdin=stdin)
    assert done.returncode == 2, done
    assert done.stdout == ""
    said = done.stderr.removesuffix("\n")
    assert said.isprintable()
    assert said.startswith("seccomp-floor: ")
    return said.removeprefix("seccomp-floor: ")


def test_exit_codes() -> None:
    """Good, no, and wrong."""
    assert seccomp_floor("prove", "-", stdin=SHUT).returncode == 0
    assert seccomp_floor("prove", "-", stdin=OPEN).returncode == 1
    assert seccomp_floor("prove", "-", stdin="{}").returncode == 2


@pytest.mark.parametrize("arguments", [("prvoe",), ("prove", "--bogus"), ("prove", "a", "b"), ("--bogus",)])
def test_usage(arguments: tuple[str, ...]) -> None:
    done = seccomp_floor(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_help_knows_every_command() -> None:
    done = seccomp_floor("--help")
    assert done.returncode == 0
    named = done.stdout[done.stdout.index("Commands:") :]
    assert [line.split()[0] for line in named.splitlines()[1:]] == [
        "run", "reconcile", "prove", "audit", "status", "doctor", "reader", "runc",
    ]  # fmt: skip


def test_version() -> None:
    done = seccomp_floor("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("seccomp-floor, version ")


def test_a_command_imports_what_it_needs_and_no_more() -> None:
    """Nothing of the daemon's for a question that needs no daemon."""
    code = (
        "import sys; sys.argv = ['seccomp-floor', 'prove', '--help']\n"
        "from seccomp_floor.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(done.stdout.split())
    assert "seccomp_floor.commands.prove" in loaded
    assert not loaded & {"grpc", "google.protobuf", "prometheus_client", "asyncio", "seccomp_floor.commands.run"}


def test_a_policy_that_is_named_must_be_there(tmp_path: Path) -> None:
    """Never the built-in one instead."""
    path = tmp_path / "policy.yaml"
    assert (
        refused("prove", "--config", path, stdin=SHUT) == f"{path}: cannot read the policy: No such file or directory"
    )


def test_a_policy_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("mode: enforced\n")
    assert refused("prove", "--config", path, stdin=SHUT) == (
        f"{path}: mode: expected one of enforce, log, report, got 'enforced'"
    )


def test_the_policy_counts(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("floor: {socketFamilies: {deny: []}}")
    assert seccomp_floor("prove", "--config", path, stdin=OPEN).returncode == 0


def test_an_architecture_that_there_is_not() -> None:
    assert refused("prove", "--arch", "vax", stdin=SHUT).startswith(
        "--arch: expected an architecture as runtime-spec names it"
    )


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    assert "a readable file (No such file or directory)" in refused("prove", tmp_path / "none.json")
    assert "a readable file (Is a directory)" in refused("prove", tmp_path)
    assert "a standard input" in refused("prove", "-", stdin=None)


def test_a_hostile_name(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\x1b[31m.json"
    path.write_text("{")
    assert r"a\nb\x1b[31m.json" in refused("prove", path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "stdin: line 1, column 1: expected JSON, got 'the end'"),
        ("{", "stdin: line 1, column 2: expected JSON"),
        ("[" * 200_000, "stdin: expected JSON of a sane depth"),
        ("[]", "stdin: expected a seccomp profile or an OCI config.json, got an empty array"),
        ('{"defaultAction": "ALLOW"}', "stdin: profile.defaultAction: expected one of SCMP_ACT_KILL"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "defaultAction": "SCMP_ACT_KILL"}',
            "stdin: expected each key once, got 'defaultAction'",
        ),
    ],
    ids=["empty", "half", "deep", "array", "action", "twice"],
)
def test_inputs_that_are_none(text: str, said: str) -> None:
    assert refused("prove", "-", stdin=text).startswith(said)


@pytest.mark.parametrize(
    "data",
    [b"\xff", b'"\xc3\x28"', b"9" * 10_000, b"nul", b"[1,]", b"{} {}", b"'a'", b"\0", b'{"a": {"b": 1, "b": 2}}'],
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(data, "here")
    assert caught.value.where.startswith("here")
    assert str(caught.value).isprintable()


def test_json_of_every_kind() -> None:
    text = '{"a": [1, 18446744073709551615, -1.5, true, null, "\\ud800\\u0000"], "": {}}'
    assert parse_json(text.encode(), "here") == {"a": [1, (1 << 64) - 1, -1.5, True, None, "\ud800\0"], "": {}}


def test_a_key_given_twice_among_very_many_is_found_at_once() -> None:
    """Not in a time that grows with their square."""
    keys = [*map(str, range(300_000)), "last", "last"]
    text = "{" + ",".join(f'"{key}":0' for key in keys) + "}"
    with pytest.raises(InputError, match="expected each key once, got 'last'"):
        parse_json(text.encode(), "here")


def test_an_input_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        os.truncate(file.fileno(), LARGEST_INPUT)
        assert len(read_input(str(path))) == LARGEST_INPUT
        os.truncate(file.fileno(), LARGEST_INPUT + 1)
    with pytest.raises(InputError, match=f"at most {LARGEST_INPUT} bytes"):
        read_input(str(path))
