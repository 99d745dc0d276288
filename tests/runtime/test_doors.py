"""The promise, with plain runtimes: every door closed, and everything else as it was."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.runtimes import Runtime, bundle
from testnode import probe
from testnode.agent import Agent
from testnode.probe import AF_ALG, AF_VSOCK
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes

PROFILES = Path(__file__).parent.parent / "node" / "profiles"
SECTIONS: dict[str, dict[str, Any] | None] = {"none": None} | {
    path.stem: json.loads(path.read_text()) for path in sorted(PROFILES.glob("*.json"))
}
INEXACT = {"socket-greater", "type-and-protocol"}
"""Denied families are denied by these as well, but only for some values of the register, or of other arguments."""
IO_URING = {f"{abi} {number}" for abi in ("x86_64", "i386", "x32") for number in (425, 426, 427)}
PAIRS = {"i386 socketcall socketpair", "i386 socketcall socketpair, high half"}
"""No denied family makes pairs: this door hands nothing out, and AF_UNIX pairs of 32-bit programs go through it."""


def look(runtime: Runtime, path: Path) -> tuple[list[probe.Door], dict[str, str], str]:
    """What the probe sees as a container's own process, and what the runtime says."""
    said = []

    def run(command: Sequence[str]) -> str:
        config = path / "config.json"
        spec = json.loads(config.read_text())
        spec["process"]["args"] = list(command)
        config.write_text(json.dumps(spec))
        done: subprocess.CompletedProcess[str] = runtime.run("run", "--bundle", path, "one")
        said.append(done.stderr)
        return done.stdout

    return probe.doors(run, AF_ALG, AF_VSOCK), probe.unrelated(run), "".join(said)


@pytest.fixture(scope="module")
def agent(scratch: Scratch) -> Iterator[Agent]:
    """Somebody who listens, for sections that ask to be notified."""
    with Agent(scratch.path / "agent.sock") as agent:
        yield agent


@pytest.mark.parametrize("name", SECTIONS)
def test_doors(scratch: Scratch, pair: tuple[Runtime, Runtime], agent: Agent, name: str) -> None:
    """Open before, closed after; all else has the same answers, and the wrapper has nothing to say.

    Where a section cannot be exact, a closed door may answer with the floor's errno in place of the profile's; that is said.
    """
    section = SECTIONS[name]
    if section and "listenerPath" in section:
        section = {**section, "listenerPath": str(agent.path)}
    bare, wrapped = pair
    (was_doors, was, _), (now_doors, now, said) = (
        look(runtime, bundle(scratch, f"{bare.name}-{name}-{number}", section=section))
        for number, runtime in enumerate((bare, wrapped))
    )
    assert any(door.open for door in was_doors)
    for before, door in zip(was_doors, now_doors, strict=True):
        if door.name in PAIRS:
            assert door.kind != "opened", door
        else:
            assert door.kind in {"closed-by-filter", "abi-missing"}, door
        if before.kind == "closed-by-filter" and door.result != before.result:
            assert "level=warning" in said
            assert "not exact: " in said
            assert door.result == "EAFNOSUPPORT"
    changed = {call for call, result in was.items() if now[call] != result}
    assert changed <= IO_URING
    assert said == "" or name in INEXACT
    assert len(was) == len(now) > 1500


def test_exec_is_under_the_floor_as_well(scratch: Scratch, pair: tuple[Runtime, Runtime]) -> None:
    """Through the wrapper and past it, by a command line and by ``--process``: the filter is in the runtime's state."""
    bare, wrapped = pair
    path = bundle(scratch, f"{bare.name}-exec")
    wrapped.run("create", "--bundle", path, "two", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wrapped.run("start", "two")
    process = path / "process.json"
    ways: dict[str, Any] = {
        "wrapped": lambda command: wrapped.run("exec", "two", *command).stdout,
        "bare": lambda command: bare.run("exec", "two", *command).stdout,
    }

    def by_process(command: Sequence[str]) -> str:
        user = {"uid": 0, "gid": 0}
        process.write_text(json.dumps({"cwd": "/", "args": list(command), "env": [], "user": user}))
        done: subprocess.CompletedProcess[str] = wrapped.run("exec", "--process", process, "two")
        return done.stdout

    ways["--process"] = by_process
    for way, run in ways.items():
        doors = probe.doors(run, AF_ALG, AF_VSOCK)
        assert [door for door in doors if door.open and door.name not in PAIRS] == [], way
    wrapped.run("delete", "--force", "two")
