"""What the kernel enforces on a container, read and proven: the filters themselves, not what anybody has said of them.

A task's filters can only be added to, and a child starts with its parent's (seccomp(2)). So a process that the floor holds has no
descendant that it does not hold; what can differ is a process that the runtime has put beside it (``exec``), and, where the floor
has not held from the beginning, everything. Hence every thread of every process of a container is read.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seccomp_floor.abi import Abi
from seccomp_floor.floor import Floor
from seccomp_floor.node.processes import threads
from seccomp_floor.node.ptrace import Filters, GoneError, PtraceError, read_filters, thread_seccomp
from seccomp_floor.process import close_all_but, die_with, load_filter

if TYPE_CHECKING:
    from seccomp_floor.bpf.prove import Proof

__all__ = [
    "Finding",
    "Read",
    "Reading",
    "judge_filters",
    "read_process",
    "read_processes",
    "summary",
    "why_not_readable",
]

Read = Callable[[int], Filters]

PASSES = 5
"""How often threads, or processes, are listed anew because some have ended before they were read."""


MOST_STACKS = 64
"""Different stacks of filters that one container may have: whoever loads more wants the daemon to read them, 256 KiB each."""


class RestlessError(PtraceError):
    """What comes and goes too fast for anybody to say what it holds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The filters of a thread, oldest first, as bytes; ``pause``: how many seconds it stood still."""

    pid: int
    tid: int
    filters: tuple[bytes, ...]
    pause: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What a reading means for the floor. ``text`` says in one line what is wrong, or that nothing is.

    ``holds``: the filters do all that the floor asks. ``closed``: and that is to deny, so no door is open. ``open_doors``: the
    doors that the policy leaves open, by name.
    """

    holds: bool
    closed: bool
    text: str
    open_doors: tuple[str, ...] = ()


def read_process(pid: int, read: Read = read_filters) -> tuple[Reading, ...]:
    """Read every thread of a process: each has filters of its own, which their number does not tell apart.

    A process may live on without its first thread, and a thread may end while it is looked at: the others are read all the same.

    :param read: how a thread's filters are read
    :raises GoneError: there is no such process, or none of its threads is left
    :raises RestlessError: its threads end faster than they can be read
    :raises PtraceError: as :func:`~seccomp_floor.node.ptrace.read_filters`
    """
    readings: dict[int, Reading] = {}
    for _ in range(PASSES):
        missed = False
        for tid in threads(pid):
            try:
                if tid not in readings and thread_seccomp(tid, pid).state not in ("Z", "X"):
                    filters = read(tid)
                    readings[tid] = Reading(pid, tid, filters.programs, filters.pause)
            except GoneError:
                missed = True
        if not missed:
            break
    else:
        raise RestlessError(f"the threads of process {pid} end faster than they can be read")
    if not readings:
        raise GoneError(f"process {pid} has ended")
    return tuple(readings.values())


def read_processes(
    listed: Callable[[], Iterable[int]], read: Read = read_filters
) -> tuple[tuple[Reading, ...], PtraceError | None]:
    """Read all processes of a container, and say what kept one of them from being read, if anything did.

    :param listed: lists them; once more where some have ended before they could be read, since what they have started may live
    """
    readings: dict[int, tuple[Reading, ...]] = {}
    trouble: PtraceError | None = None
    stacks: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}

    def known(tid: int) -> Filters:
        filters = read(tid)
        if len(stacks) >= MOST_STACKS and filters.programs not in stacks:
            raise PtraceError(f"its threads have more than {MOST_STACKS} different stacks of filters")
        return replace(filters, programs=stacks.setdefault(filters.programs, filters.programs))

    for _ in range(PASSES):
        missed = False
        for pid in listed():
            if pid not in readings:
                try:
                    readings[pid] = read_process(pid, known)
                except GoneError:
                    missed = True
                except PtraceError as error:
                    readings[pid], trouble = (), error
        if not missed:
            break
    else:
        trouble = RestlessError("its processes end faster than they can be read")
    return tuple(reading for each in readings.values() for reading in each), trouble


def judge_filters(filters: Sequence[bytes], floor: Floor, native: Abi) -> Finding:
    """Prove what a task's filters, oldest first, do to the floor's doors.

    :raises SeccompFloorError: they cannot be judged
    """
    from seccomp_floor.bpf.libseccomp import resolve
    from seccomp_floor.bpf.program import decode
    from seccomp_floor.bpf.prove import prove

    return summary(prove([decode(data) for data in filters], floor, resolve, native=native))


def summary(proof: Proof) -> Finding:
    """A proof in words."""
    from seccomp_floor.bpf.prove import Status

    found = proof.counterexamples
    doors = dict.fromkeys(
        f"{verdict.door.abi.short} {verdict.door.name}"
        for verdict in proof.verdicts
        if verdict.status is Status.OPEN_BY_POLICY
    )
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    text = f"open: {found[0]}{more}" if found else "closed" if proof.closed else "watched"
    return Finding(proof.holds, proof.closed, text, tuple(doors))


def why_not_readable() -> str:
    """Try to read a filter, of a child that exists for that only; "" if it works, else why not.

    To be called while there is one thread: it forks.
    """
    own = thread_seccomp(os.getpid())
    if own.mode != 0:
        return "this process runs under a seccomp filter itself, and the kernel shows filters only to who has none"
    ready, tell = os.pipe()
    parent, child = os.getpid(), os.fork()
    if child == 0:
        with suppress(BaseException):
            close_all_but(tell)
            die_with(parent)
            load_filter(_ALLOW_ALL)
            os.write(tell, b"+")
            signal.pause()
        os._exit(1)
    os.close(tell)
    try:
        if os.read(ready, 1) != b"+":
            return "the kernel does not take a seccomp filter (CONFIG_SECCOMP_FILTER)"
        return (
            "" if read_filters(child).programs == (_ALLOW_ALL,) else "the kernel shows another filter than was loaded"
        )
    except PtraceError as error:
        return str(error)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


_ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
