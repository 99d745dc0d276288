"""runc's own conventions: each of its commands through the wrapper, compared with its own answer."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from runtime.runtimes import Runtime, bundle
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes

STATELESS = [
    line.split()
    for line in (
        "", "--help", "-h", "--version", "-v", "help", "help create", "h", "features", "list", "list --format json",
        "state none", "start none",
        "kill none", "delete none", "delete --force none", "pause none", "resume none", "ps none", "events --stats none",
        "update none", "exec none true", "checkpoint none", "create --help", "run --help", "restore --help", "exec --help", "state",
        "state a b", "exec", "--log-format wrong list", "--log-format=json state none", "--debug --systemd-cgroup list",
        "list --no-such-option", "--rootless=true list",
    )
]  # fmt: skip


def told(text: str) -> str:
    """Without what differs between any two calls: times, process ids and the directory of the state."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+(Z|\+00:00)?", "TIME", text)
    text = re.sub(r"(/[\w./-]*/)?seccomp-floor-runc\b", "runc", text)
    return re.sub(r"\b\d{2,}\b", "N", text)


@pytest.mark.parametrize("arguments", STATELESS, ids=" ".join)
def test_every_command_answers_as_the_runtime_does(pair: tuple[Runtime, Runtime], arguments: list[str]) -> None:
    """Exit status, output and complaints."""
    bare, wrapped = (runtime.run(*arguments, check=False) for runtime in pair)
    assert (wrapped.returncode, told(wrapped.stdout), told(wrapped.stderr)) == (
        bare.returncode,
        told(bare.stdout),
        told(bare.stderr),
    )


def lives(scratch: Scratch, runtime: Runtime, name: str) -> list[tuple[str, int, str, str]]:
    """One container's life, command by command, with what each answered."""
    path = bundle(scratch, name)
    process = path / "process.json"
    process.write_text(
        json.dumps({"cwd": "/", "args": ["/bin/cat", "/proc/version"], "env": [], "user": {"uid": 0, "gid": 0}})
    )
    crun = "crun" in runtime.name
    story: list[tuple[str, int, str, str]] = []
    for line in (
        f"create --bundle {path} --pid-file {path}/pid ID",
        "list -q",
        "state ID",
        "start ID",
        "start ID",
        "exec ID /bin/cat /proc/version",
        f"exec --process {process} ID",
        "exec ID /bin/none",
        "exec ID /bin/sh -c 'exit 7'",
        "ps --format json ID",
        "update --pids-limit 50 ID",
        "pause ID",
        "resume ID",
        "" if crun else "events --stats ID",
        "checkpoint ID",
        "delete ID",
        "kill ID KILL",
        "delete --force ID",
        "state ID",
    ):
        if line:
            # Not captured: what a container inherits would stay open as long as it lives.
            files = [path / "stdout", path / "stderr"]
            with files[0].open("w") as stdout, files[1].open("w") as stderr:
                done = runtime.run(
                    *shlex.split(line.replace("ID", "one")),
                    check=False,
                    stdout=stdout,
                    stderr=stderr,
                )
            output, complaints = (told(file.read_text()).replace(name, "NAME") for file in files)
            story.append((line.partition(" ")[0], done.returncode, output, complaints))
    return story


def test_a_life(scratch: Scratch, pair: tuple[Runtime, Runtime]) -> None:
    """From create to delete and after; only the section and the wrapper's mark may show."""
    bare, wrapped = (lives(scratch, runtime, f"{runtime.name}-{number}") for number, runtime in enumerate(pair))
    assert next(code for command, code, _, _ in bare if command == "exec") == 0
    for was, now in zip(bare, wrapped, strict=True):
        assert unmarked(now) == unmarked(was)


def unmarked(step: tuple[str, int, str, str]) -> tuple[object, ...]:
    """``state`` shows annotations, and with them the mark; ``events`` shows figures."""
    command, code, stdout, stderr = step
    if command == "state" and code == 0:
        state = json.loads(stdout.replace("N", "0"))
        state.pop("annotations", None)
        return command, code, state, stderr
    if command == "events":
        return command, code, stderr
    return step
