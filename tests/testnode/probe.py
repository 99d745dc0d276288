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
