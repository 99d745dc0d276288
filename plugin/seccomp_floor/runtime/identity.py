"""Which runtime is behind the wrapper, and so what it makes of a section: its own word (``--version``) is asked."""

from __future__ import annotations

import subprocess

from seccomp_floor.bpf.compile import CRUN, RuntimeModel, runc_model
from seccomp_floor.bpf.libseccomp import library
from seccomp_floor.errors import InputError

__all__ = ["identify"]

SECONDS = 10


def identify(runtime: str) -> tuple[RuntimeModel, str | None]:
    """The model of a runtime, and a warning where what it compiles with is not what the proof compiles with.

    :param runtime: path of the real runtime
    :raises InputError: not runc or crun, or one that was built without seccomp
    """
    try:
        done = subprocess.run([runtime, "--version"], capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{runtime} --version", str(error), "the runtime's name and version") from error
    answer = done.stdout.decode(errors="replace")
    lines = answer.splitlines() or [""]
    name, _, version = lines[0].partition(" version ")
    if name == "crun" and "+SECCOMP" in answer:
        return CRUN, None
    if name == "runc":
        seccomp = next((line.partition(":")[2].strip() for line in lines if line.startswith("libseccomp:")), None)
        if seccomp is not None:
            ours = ".".join(map(str, library().version))
            warning = (
                None if seccomp == ours else f"{runtime} has libseccomp {seccomp}; the section was proven with {ours}"
            )
            return runc_model(_numbers(version)), warning
    raise InputError(
        f"{runtime} --version", answer, "runc or crun, with seccomp: of another runtime it is not known what it loads"
    )


def _numbers(version: str) -> tuple[int, ...]:
    """``1.1.5+ds1`` as ``(1, 1, 5)``: its parts as far as they begin with numbers."""
    found: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)
