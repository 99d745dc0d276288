"""A unit's settings, and its system calls as a filter: what systemd would hold the service to, without systemd.

    python -m deploy.unit_file UNIT PROGRAM ARGUMENT...

runs the program under the filter that the unit's settings ask for, as far as they are about system calls (systemd.exec(5)).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from seccomp_floor.abi import this_machine
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.program import encode
from seccomp_floor.process import load_filter
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
DAEMON, READER = UNITS / "seccomp-floor.service", UNITS / "seccomp-floor-reader.service"
EPERM = 1
WRITE_EXECUTE, EXECUTE = 6, 4  # PROT_WRITE | PROT_EXEC


def settings(unit: Path, name: str) -> list[str]:
    """All values of a setting, in order."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def setting(unit: Path, name: str) -> str:
    """The value of a setting that is there once."""
    [value] = settings(unit, name)
    return value


def allowed_calls(unit: Path) -> set[str]:
    """What `SystemCallFilter=` leaves: its lines add, or with a tilde take away; empty where there is none."""
    allowed: set[str] = set()
    for line in settings(unit, "SystemCallFilter"):
        names = {call for word in line.removeprefix("~").split() for call in _calls(word)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _calls(word: str) -> Iterator[str]:
    if not word.startswith("@"):
        yield word
        return
    listing = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", word], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines()[1:]:
        call = line.strip()
        if call and not call.startswith("#"):
            yield from _calls(call)


def profile(unit: Path) -> Profile | None:
    """The settings as a profile; None where there are none, and so no filter."""
    allowed = allowed_calls(unit)
    if not allowed:
        return None
    rules = []
    if families := settings(unit, "RestrictAddressFamilies"):
        allowed.discard("socket")
        rules = [
            Syscall(names=("socket",), action=Action.ALLOW, args=(Arg(0, getattr(socket, family), Operator.EQ),))
            for family in families[0].split()
        ]
    if settings(unit, "MemoryDenyWriteExecute") == ["yes"]:
        allowed -= {"mmap", "mprotect", "pkey_mprotect"}
        for prot in range(WRITE_EXECUTE):  # any combination but the two together
            masked = Arg(2, 7, Operator.MASKED_EQ, prot)
            rules.append(Syscall(names=("mmap",), action=Action.ALLOW, args=(masked,)))
        rules.append(Syscall(names=("mprotect",), action=Action.ALLOW, args=(Arg(2, EXECUTE, Operator.MASKED_EQ, 0),)))
    rules.append(Syscall(names=tuple(sorted(allowed)), action=Action.ALLOW))
    return Profile(default_action=Action.ERRNO, default_errno_ret=EPERM, syscalls=tuple(rules))


def main() -> None:
    """Become the program."""
    if (filters := profile(Path(sys.argv[1]))) is not None:
        load_filter(encode(compile_profile(filters, this_machine())))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
