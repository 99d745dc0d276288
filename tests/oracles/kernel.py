"""The running kernel as a judge of filters, through the C program beside this file."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from seccomp_floor.bpf.program import Program, encode

SOURCE = Path(__file__).with_suffix(".c")


class Kind(IntEnum):
    """What became of a call; the value beside it: what it returned, or the data of the trap."""

    RETURNED = 0
    TRAPPED = 1
    KILLED_THREAD = 2
    KILLED_PROCESS = 3
    REFUSED = 4  # the kernel did not take the filter: errno
    UNKNOWN = 5


class Outcome(NamedTuple):
    """What the kernel did with one call."""

    kind: Kind
    value: int


@dataclass(frozen=True, slots=True)
class Call:
    """A system call to be made for real; ``compat``: through ``int $0x80``."""

    number: int
    args: tuple[int, int, int, int, int, int]
    compat: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """Filters to load into one task, oldest first, and calls to make there."""

    filters: tuple[Program, ...]
    calls: tuple[Call, ...]


class Kernel:
    """The built program. ``addresses``: what a filter sees as instruction pointer, for native and for compat calls."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "kernel"
        build = (
            "gcc",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-static",
            "-no-pie",
            "-pthread",
            str(SOURCE),
            "-o",
            str(self.path),
        )
        subprocess.run(build, check=True, timeout=120)
        native, compat = self._ask("addresses", b"").split()
        self.addresses = int(native), int(compat)

    def accepts(self, programs: Iterable[Program]) -> list[int]:
        """0 for each program that the kernel would take as a filter, else its errno."""
        return [errno for (errno,) in struct.iter_unpack("=I", self._ask("accept", b"".join(map(_program, programs))))]

    def run(self, cases: Sequence[Case]) -> Iterator[list[Outcome]]:
        """What became of each case's calls."""
        answer = self._ask("run", b"".join(map(_case, cases)))
        outcomes = [Outcome(Kind(kind), value) for kind, value in struct.iter_unpack("=Ii", answer)]
        start = 0
        for case in cases:
            yield outcomes[start : start + len(case.calls)]
            start += len(case.calls)
        assert start == len(outcomes)

    def _ask(self, what: str, data: bytes) -> bytes:
        return subprocess.run((self.path, what), input=data, stdout=subprocess.PIPE, check=True, timeout=250).stdout


def _program(program: Program) -> bytes:
    return struct.pack("=I", len(program)) + encode(program)


def _case(case: Case) -> bytes:
    parts = [struct.pack("=I", len(case.filters)), *map(_program, case.filters), struct.pack("=I", len(case.calls))]
    parts += [struct.pack("=II6Q", call.compat, call.number, *call.args) for call in case.calls]
    return b"".join(parts)
