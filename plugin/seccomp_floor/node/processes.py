"""Which processes make up a container, and what /proc says of them: read-only, and nothing that a process can notice.

A process belongs to the container whose id its cgroup's path names. That is the runtime's own mark: a process cannot leave the
cgroup that it was put into without rights over cgroups of the host, and the ids of containers are long and random. Both cgroup
versions, both of containerd's drivers (``/kubepods/.../<id>``, ``.../cri-containerd-<id>.scope``), and paths that a cgroup
namespace shows from elsewhere (``/../..``) have it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterable
from pathlib import Path

from seccomp_floor.node.ptrace import GoneError, PtraceError, proc_status

__all__ = ["by_container", "container_of", "in_own_namespace", "limits", "threads"]

_CAP_SYS_ADMIN, _CAP_SYS_PTRACE = 21, 19  # include/uapi/linux/capability.h


def by_container(containers: Iterable[str]) -> dict[str, list[int]]:
    """The processes (thread groups) of each of these containers, in one pass over /proc; the smallest pid first.

    A container inside another counts as the outer one, whose id comes first in the path.
    """
    wanted = set(containers)
    found: dict[str, list[int]] = defaultdict(list)
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):  # noqa: PTH208 (names only, of many)
        if (container := container_of(pid, wanted)) is not None:
            found[container].append(pid)
    return dict(found)


def container_of(pid: int, containers: Container[str]) -> str | None:
    """Which of these containers the process belongs to."""
    for line in _cgroups(pid).split("\n"):
        for part in filter(None, line.rpartition(":")[2].split("/")):
            identity = part.removesuffix(".scope").rpartition("-")[2]
            if identity in containers:
                return identity
            if part in containers:
                return part
    return None


def threads(pid: int) -> list[int]:
    """The threads of a process, its first one first. :raises GoneError: it has ended. :raises PtraceError: nobody can tell"""
    try:
        found = [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
        return sorted(found, key=lambda tid: (tid != pid, tid))  # numbers begin anew when they have come to their end
    except (FileNotFoundError, ProcessLookupError) as error:
        raise GoneError(f"process {pid} has ended") from error
    except OSError as error:
        raise PtraceError(f"process {pid}: {error.strerror}") from error


def limits(pid: int) -> tuple[str, ...]:
    """What the process may do that no filter of its own can keep the floor from: the words are for people."""
    try:
        values = proc_status(f"/proc/{pid}/status")
    except PtraceError:
        return ()
    bounding = int(values.get("CapBnd", "0"), 16)
    found = []
    if bounding >> _CAP_SYS_ADMIN & 1:
        found.append("CAP_SYS_ADMIN: can act on the host")
    if bounding >> _CAP_SYS_PTRACE & 1:
        found.append("CAP_SYS_PTRACE: can take over what enters its PID namespace before that is filtered")
    return tuple(found)


def in_own_namespace(path: str) -> bool:
    """Whether the PID namespace at that path is the one that this process, and its /proc, are in.

    What the runtime names is some process' ``/proc/PID/ns/pid``, which only who may trace that process can look at. That process'
    status says the same to everyone: it has a number for each namespace that it is in, beginning with that of /proc (proc(5),
    NSpid).
    """
    pid = path.removeprefix("/proc/").removesuffix("/ns/pid")
    try:
        if pid.isdecimal():
            return proc_status(f"/proc/{pid}/status").get("NSpid", "").split() == [pid]
        return Path(path).stat().st_ino == Path("/proc/self/ns/pid").stat().st_ino
    except (OSError, PtraceError):
        return False


def _cgroups(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(errors="replace")
    except OSError:
        return ""
