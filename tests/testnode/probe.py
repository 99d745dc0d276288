"""The door probe: built from `tests/probe`, run anywhere, and its answers as values."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "probe"
AF_ALG, AF_VSOCK = 38, 40

OPEN_CLASSES = frozenset({"opened", "reached", "not-in-kernel", "refused-by-kernel"})
"""The call came through to the kernel. What it found there differs: on another kernel it may find a socket."""

Run = Callable[[Sequence[str]], str]
"""Runs a command where the probe is to look, and returns its standard output."""


@dataclass(frozen=True, slots=True)
class Door:
    """What the probe found at one door."""

    family: int
    name: str
    result: str
    """"ok", an errno's name or a signal's."""
    witness: str
    """The same of a call that the kernel is known to refuse with EINVAL before it looks at the family."""
    kind: str
    """`opened`, `reached`, `refused-by-kernel`, `not-in-kernel`, `closed-by-filter`, `abi-missing` or `ambiguous`."""

    @property
    def open(self) -> bool:
        """Whether calls come through this door to the kernel."""
        return self.kind in OPEN_CLASSES


def build(target: Path) -> None:
    """Compile the probe: static, so that it runs in any container."""
    sources = sorted(map(str, SOURCES.glob("*.c")))
    flags = ["-static", "-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", str(target), *sources], check=True)


def doors(run: Run, *families: int, program: str = "/probe") -> list[Door]:
    """Try every door to each family."""
    lines = run([program, "doors", *map(str, families)]).splitlines()
    return [
        Door(found["family"], found["door"], found["result"], found["witness"], found["class"])
        for found in map(json.loads, lines)
    ]


def unrelated(run: Run, program: str = "/probe") -> dict[str, str]:
    """What must be the same with and without the floor: each call's name and its result."""
    return {found["call"]: found["result"] for found in map(json.loads, run([program, "unrelated"]).splitlines())}


HIGH_HALF = 1 << 32
"""A bit of a register that the kernel does not look at where it takes an int, and that filters see."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of an attempt to have another process open a socket, and to take it."""

    step: str
    """The last that was tried: `attach`, `stop`, `open`, `fetch`; `taken`: all went well."""
    result: str
    """"ok", or an errno's name."""
    domain: int
    """The family of the socket that was taken, by the kernel's word; -1 where there is none."""
    refused: int = 0
    """Of an ambush: how often somebody was there, and could not be taken hold of."""
    unfiltered: int = 0
    """How many were taken hold of before they had a filter."""
    filtered: int = 0
    """And how many only after that."""


def take(run: Run, pid: int, family: int) -> Taken:
    """From a process, by its number where the probe runs."""
    return Taken(**json.loads(run(["/probe", "take", str(pid), str(family)])))


def ambush(run: Run, family: int, enough: str) -> Taken:
    """From whoever enters the PID namespace; ends with the first socket, or when there is a file `enough`."""
    return Taken(**json.loads(run(["/probe", "ambush", str(family), enough])))


def receive(run: Run, name: str) -> dict[str, int | str]:
    """A socket that is passed over an abstract unix socket: its `domain`, and what came of `bind`."""
    found: dict[str, int | str] = json.loads(run(["/probe", "receive", name]))
    return found
