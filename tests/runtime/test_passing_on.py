"""The real runtime, and the container, find everything as it would have been without the wrapper."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.installation import install
from runtime.runtimes import Runtime, bundle, runtimes
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes


@pytest.fixture
def make(scratch: Scratch, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Makes bundles of a test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return lambda number, *args: bundle(scratch, f"{name}-{number}", args=args)


def test_signals(pair: tuple[Runtime, Runtime], make: Callable[..., Path]) -> None:
    """Those that a container's process ignores or blocks: an interpreter ignores SIGPIPE, and exec keeps that."""
    seen = []
    for number, runtime in enumerate(pair):
        output = runtime.run("run", "--bundle", make(number, "/bin/cat", "/proc/self/status"), "one").stdout
        seen.append(re.findall(r"^Sig(?:Ign|Blk|Cgt):.*$", output, flags=re.MULTILINE))
    assert len(seen[0]) == 3
    assert seen[0] == seen[1]


def test_descriptors_and_standard_input(
    scratch: Scratch, pair: tuple[Runtime, Runtime], make: Callable[..., Path]
) -> None:
    """Also the tenth, which some shells take for themselves."""
    file = scratch.path / "handed-on"
    file.write_text("handed on\n")
    numbers = range(3, 11)
    opened = " ".join(f"{number}<{file}" for number in numbers)
    enter = ("bash", "-c", f'exec {opened} <{file}; exec "$@"', "bash")
    for number, runtime in enumerate(pair):
        path = make(number, "/bin/sh", "-c", "for n in 0 3 9 10; do cat <&$n; done")
        handed = replace(runtime, before=(*runtime.before, *enter))
        done = handed.run("run", "--preserve-fds", str(len(numbers)), "--bundle", path, "one")
        assert done.stdout == "handed on\n" * 4


@pytest.mark.parametrize("code", [0, 7, 255])
def test_exit_codes(pair: tuple[Runtime, Runtime], make: Callable[..., Path], code: int) -> None:
    """The container's own."""
    for number, runtime in enumerate(pair):
        done = runtime.run("run", "--bundle", make(number, "/bin/sh", "-c", f"exit {code}"), "one", check=False)
        assert done.returncode == code


OF_SHELLS = {"PWD", "OLDPWD", "SHLVL", "_"}
"""What a shell adds to the environment."""


def test_environment_and_arguments(scratch: Scratch, make: Callable[..., Path]) -> None:
    """To the byte: an interpreter's locale must not add to it."""
    wrapped = runtimes(scratch)["runc v1.4.0"][1]
    path = make(0, "/bin/true")
    trace = path / "trace"
    environment = (f"PATH={wrapped.path}", f"XDG_CACHE_HOME={scratch.path}/cache", "ODD=\udcff=\n", "EMPTY=")
    strace = ("strace", "-v", "-xx", "-s", "4096", "-e", "trace=execve", "-o", str(trace))
    replace(wrapped, before=("env", "-i", *environment, *strace)).run("run", "--bundle", path, "one")
    first, *_, last = (line for line in trace.read_text().splitlines() if line.startswith("execve("))
    was, now = calls(first), calls(last)
    assert now[0][1:] == was[0][1:]
    assert {pair for pair in now[1] if pair.partition(b"=")[0].decode() not in OF_SHELLS} == set(was[1])
    assert len(was[1]) == len(environment)


def calls(line: str) -> list[list[bytes]]:
    """The arguments and the environment of an execve in strace's words."""
    lists = re.findall(r"\[(.*?)\]", line)
    return [[bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"(.*?)"', found)] for found in lists]


def test_the_command_is_the_launcher_under_another_name(scratch: Scratch, make: Callable[..., Path]) -> None:
    """``seccomp-floor runc``."""
    wrapped = runtimes(scratch)["runc v1.4.0"][1]
    program = install(scratch) / "seccomp-floor"
    command = [str(program), "runc", "--root", str(scratch.path / "state-command"), "run", "--bundle"]
    path = make(0, "/bin/cat", "/proc/self/status")
    done = subprocess.run(
        [*command, str(path), "one"], check=True, capture_output=True, env=wrapped.environment, text=True, timeout=60
    )
    assert "Seccomp:\t2" in done.stdout


def test_a_link_to_the_launcher_is_the_runtime_itself(scratch: Scratch, make: Callable[..., Path]) -> None:
    """As a drop-in replacement: a link called runc, before the real one on PATH."""
    wrapped = runtimes(scratch)["runc v1.4.0"][1]
    links = scratch.path / "drop-in"
    links.mkdir()
    (links / "runc").symlink_to(wrapped.program)
    replacement = replace(wrapped, program=Path("/usr/bin/env"), path=f"{links}:{wrapped.path}")
    command = [
        "runc",
        "--root",
        scratch.path / "state-drop-in",
        "run",
        "--bundle",
        make(0, "/bin/cat", "/proc/self/status"),
        "one",
    ]
    done = subprocess.run(
        list(map(str, command)), check=True, capture_output=True, env=replacement.environment, text=True, timeout=60
    )
    assert "Seccomp:\t2" in done.stdout
