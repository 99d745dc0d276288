"""Killed at any moment, or in each other's way: a bundle is as it was, or under the floor, and never anything between."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from runtime.runtimes import Runtime, bundle, runtimes
from seccomp_floor.runtime.config import MARK
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes


@pytest.fixture(scope="module")
def wrapped(scratch: Scratch) -> Runtime:
    """The newest runc, behind the wrapper; the section of these tests has been seen before."""
    wrapped = runtimes(scratch)["runc v1.4.0"][1]
    wrapped.run("run", "--bundle", bundle(scratch, "seen", args=["/bin/true"]), "seen")
    return wrapped


def traced(wrapped: Runtime, path: Path, *options: str) -> list[str]:
    """Run the bundle under strace, which follows one process through its execs; the system calls, one a line."""
    trace = path / "trace"
    strace = ("strace", "-o", str(trace), *options)
    Runtime(wrapped.scratch, wrapped.name, wrapped.program, wrapped.path, strace).run(
        "run", "-b", path, path.name, check=False
    )
    return trace.read_text().splitlines()


def test_killed_at_every_system_call(scratch: Scratch, wrapped: Runtime) -> None:
    """From the one that opens the configuration to the one that becomes the runtime."""
    path = bundle(scratch, "killed", args=["/bin/true"])
    config = path / "config.json"
    before = config.read_bytes()
    calls = traced(wrapped, path)
    after = config.read_bytes()
    assert MARK.encode() in after
    opened = next(number for number, call in enumerate(calls) if "/config.json" in call)
    last_exec = max(number for number, call in enumerate(calls) if call.startswith("execve("))
    assert last_exec - opened > 20
    seen = []
    times = Counter({"execve": -1})  # the first is strace's own, and not counted
    for number, call in enumerate(calls[: last_exec + 1]):
        name = call.partition("(")[0]
        times[name] += 1
        if number >= opened - 2:
            config.write_bytes(before)
            end = traced(wrapped, path, "-e", f"inject={name}:signal=KILL:when={times[name]}")[-1]
            assert end.startswith("+++ killed by SIGKILL"), call
            seen.append(config.read_bytes())
    assert set(seen) == {before, after}
    assert seen == sorted(seen, key=lambda now: now == after)  # untouched, untouched, ..., complete, complete


def test_many_wrappers_on_one_bundle(scratch: Scratch, wrapped: Runtime) -> None:
    """All see it whole, and it ends as one of them would leave it; runc itself lets only some of them have the cgroup."""
    path = bundle(scratch, "many", args=["/bin/true"])
    root = str(scratch.path / "state-many")
    processes = [
        subprocess.Popen(
            [str(wrapped.program), "--root", root, "run", "--bundle", str(path), f"many-{number}"],
            env=wrapped.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    complaints = [process.communicate(timeout=60)[1] for process in processes]
    assert not any("seccomp-floor" in complaint for complaint in complaints)
    spec = json.loads((path / "config.json").read_text())
    assert MARK in spec["annotations"]
    assert spec["linux"]["seccomp"]["syscalls"]
    assert [file.name for file in path.iterdir()] == ["config.json"]


def test_the_second_time_nothing_is_written(scratch: Scratch, wrapped: Runtime) -> None:
    """The section is right already, whoever made it: the wrapper, or a plugin in containerd."""
    path = bundle(scratch, "twice", args=["/bin/true"])
    wrapped.run("run", "--bundle", path, "twice")
    before = (path / "config.json").stat()
    wrapped.run("run", "--bundle", path, "twice")
    after = (path / "config.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
