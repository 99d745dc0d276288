"""What the wrapper adds to each of runc's commands and to a container's life, beside runc alone in the same run."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from runtime.installation import install
from runtime.runtimes import bundle
from seccomp_floor.abi import this_machine
from seccomp_floor.profile import Action, Arg, Operator, Syscall, write_profile
from seccomp_floor.reconcile.hardened import hardened_profile
from testnode import Scratch, programs

pytestmark = pytest.mark.runtimes

ROUNDS = 40
COMMANDS = ("create", "start", "state", "list", "kill", "delete")
LIFE = ("create", "start", "state", "kill", "delete")

HARDENED = hardened_profile(this_machine())
BUT_ONE = Syscall(("socket",), Action.ALLOW, args=(Arg(0, 40, Operator.NE),))
SECTION = write_profile(replace(HARDENED, syscalls=(*HARDENED.syscalls, BUT_ONE)))
"""A profile of the size and shape of containerd's default one, with the doors open that it leaves open."""


@dataclass
class Way:
    """A way to call the runtime. ``bundle``: copied for each container; ``forget``: whether nothing was seen before."""

    name: str
    program: Path
    bundle: Path
    forget: bool = False
    seconds: dict[str, list[float]] = field(init=False)
    """Of each call, by command."""

    def __post_init__(self) -> None:
        """Nothing measured yet."""
        self.seconds = {command: [] for command in COMMANDS}


def live(way: Way, scratch: Scratch, copy: Path | None = None) -> None:
    """One container's life, each command timed. :param copy: where to put the bundle as the runtime found it"""
    path = scratch.path / "bench-bundle"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(way.bundle, path)
    cache = scratch.path / "bench-cache"
    if way.forget:
        shutil.rmtree(cache, ignore_errors=True)
    environment = {"PATH": f"{programs.runc().parent}:/usr/sbin:/usr/bin:/sbin:/bin", "XDG_CACHE_HOME": str(cache)}
    root = ["--root", str(scratch.path / "bench-state")]
    arguments = {"create": ["--bundle", str(path), "bench"], "kill": ["bench", "KILL"], "list": []}
    nowhere = os.open(os.devnull, os.O_RDWR)
    for command in COMMANDS:
        if command == "delete":
            wait_until_stopped(scratch)
        words = [str(way.program), *root, command, *arguments.get(command, ["bench"])]
        actions = [(os.POSIX_SPAWN_DUP2, nowhere, number) for number in (0, 1)]
        started = time.perf_counter()
        pid = os.posix_spawn(words[0], words, environment, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        way.seconds[command].append(time.perf_counter() - started)
        assert os.waitstatus_to_exitcode(status) == 0, words
    os.close(nowhere)
    if copy:
        shutil.copytree(path, copy)


def wait_until_stopped(scratch: Scratch) -> None:
    """A killed container takes a moment to go, and its deletion would wait for it."""
    command = [str(programs.runc()), "--root", str(scratch.path / "bench-state"), "state", "bench"]
    while b'"stopped"' not in subprocess.run(command, check=True, capture_output=True).stdout:
        time.sleep(0.002)


PHASES = """
import sys, time
clock = time.perf_counter
at = [clock()]
sys.path.append(sys.argv[1])
from seccomp_floor.runtime import wrapper
from seccomp_floor.runtime import bundle
from seccomp_floor.runtime.config import Config
at.append(clock())
text, status = bundle.read(sys.argv[2])
at.append(clock())
config = Config(text)
at.append(clock())
outcome = wrapper._outcome(config, sys.argv[3])
at.append(clock())
changed = config.with_section(outcome.section, outcome.mark)
bundle.replace(sys.argv[2], changed, status)
at.append(clock())
print(*(1e3 * (after - before) for before, after in zip(at, at[1:])))
"""
NAMES = (
    "our modules imported",
    "config.json read",
    "its parts found",
    "the outcome from the cache",
    "config.json written",
)


def milliseconds(command: list[str], environment: dict[str, str]) -> float:
    """The median of a command's whole run."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return 1e3 * statistics.median(seconds)


@pytest.fixture(scope="module")
def scratch() -> Iterator[Scratch]:
    """Gone at the end."""
    with Scratch() as scratch:
        yield scratch


def test_each_command(scratch: Scratch) -> None:
    """Prints medians and ratios; the ways take turns, so that a slow moment of the machine hits all of them.

    A floored section has more rules, which runc compiles: a column of its own tells that from what the wrapper takes.
    """
    launcher = install(scratch) / "seccomp-floor-runc"
    original = bundle(scratch, "original", section=SECTION)
    floored = scratch.path / "bench-floored"
    alone, same = (
        Way("runc alone", programs.runc(), original),
        Way("runc alone, floored section", programs.runc(), floored),
    )
    seen, unseen = (
        Way("wrapped, seen before", launcher, original),
        Way("wrapped, never seen", launcher, original, forget=True),
    )
    live(unseen, scratch, copy=floored)  # first times of everything
    unseen = replace(unseen)
    for number in range(ROUNDS):
        for way in (alone, same, seen):
            live(way, scratch)
        if number % 4 == 0:
            live(unseen, scratch)
    view = Table(title=f"runc {programs.RUNC}, milliseconds, medians of {ROUNDS}", title_justify="left")
    for column in ("", alone.name, same.name, seen.name, "ratio", "ratio, same section", unseen.name):
        view.add_column(column, justify="right" if column else "left")

    def life(way: Way) -> float:
        lives = zip(*(way.seconds[name] for name in LIFE), strict=True)
        return statistics.median(map(sum, lives))

    def median(command: str) -> Callable[[Way], float]:
        return lambda way: statistics.median(way.seconds[command])

    rows = {command: median(command) for command in COMMANDS} | {"a life: " + ", ".join(LIFE): life}
    for name, of in rows.items():
        first, second, third, last = (of(way) for way in (alone, same, seen, unseen))
        figures = [f"{1e3 * value:.1f}" for value in (first, second, third)]
        view.add_row(name, *figures, f"{third / first:.2f}", f"{third / second:.2f}", f"{1e3 * last:.1f}")
    Console(width=120).print(view)
    assert all(len(way.seconds[command]) == ROUNDS for way in (alone, same, seen) for command in COMMANDS)


def test_where_the_time_goes(scratch: Scratch) -> None:
    """Prints what a creation spends before runc has it, with a section seen before."""
    installed = install(scratch)
    path = bundle(scratch, "phases", section=SECTION)
    environment = {
        "PATH": f"{programs.runc().parent}:/usr/bin:/bin",
        "XDG_CACHE_HOME": str(scratch.path / "bench-cache"),
    }
    python = str(installed / "python3")
    package = next((installed.parent / "lib").glob("python3*/site-packages"))
    nothing = milliseconds(["/bin/true"], environment)
    shell = milliseconds(["/bin/sh", "-c", "exec /bin/true"], environment)
    interpreter = milliseconds([python, "-I", "-S", "-c", "0"], environment)
    config = path / "config.json"
    original = config.read_text()
    phases: list[tuple[float, ...]] = []
    for _ in range(ROUNDS):
        config.write_text(original)
        command = [python, "-I", "-S", "-c", PHASES, str(package), str(path), str(programs.runc())]
        output = subprocess.run(command, check=True, capture_output=True, env=environment, text=True).stdout
        phases.append(tuple(map(float, output.split())))
    view = Table(title="what the wrapper spends its time on, milliseconds, medians", title_justify="left")
    view.add_column("")
    view.add_column("ms", justify="right")
    view.add_row("a shell that becomes another program", f"{shell - nothing:.2f}")
    view.add_row("the interpreter's start and end", f"{interpreter - nothing:.2f}")
    for name, values in zip(NAMES, zip(*phases, strict=True), strict=True):
        view.add_row(name, f"{statistics.median(values):.2f}")
    Console(width=120).print(view)
    assert len(phases) == ROUNDS
