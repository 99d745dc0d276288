"""The filters that the kernel enforces on a thread, read with ptrace(2).

The thread is stopped for as long as it takes to copy its filters, some 200 µs. It may notice: a system call that sleeps with a
timeout returns EINTR (signal(7)). Nothing is noticed by a process that the OCI runtime holds before its ``execve``.

Whoever reads must have CAP_SYS_ADMIN and no filter itself (kernel/seccomp.c, ``seccomp_get_filter``), and the kernel
CONFIG_CHECKPOINT_RESTORE.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from seccomp_floor.errors import SeccompFloorError

__all__ = ["Filters", "GoneError", "PtraceError", "ThreadSeccomp", "proc_status", "read_filters", "thread_seccomp"]

# include/uapi/linux/ptrace.h
_SEIZE, _INTERRUPT, _DETACH, _GET_FILTER = 0x4206, 0x4207, 17, 0x420C
_EVENT_STOP = 128
_WALL = 0x4000_0000  # __WALL: wait for a thread that is not a child as well (wait(2))

LONGEST_FILTER = 4096 * 8
"""BPF_MAXINSNS instructions of eight bytes."""
MOST_FILTERS = 4096
"""More than the kernel takes: all filters of a thread together have at most 32768 instructions (MAX_INSNS_PER_PATH)."""
STOP_SECONDS = 0.5
"""How long a thread may take to stop. One that sleeps uninterruptibly (a hung NFS mount) does not, until it wakes."""

SPINS = 200
"""A running thread stops within microseconds: for about a tenth of a millisecond we only yield, since to sleep is to hold it
longer than need be."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class PtraceError(SeccompFloorError):
    """The filters could not be read; the text says why and, where it is ours to mend, what to do."""


class GoneError(PtraceError):
    """The thread has ended."""


@dataclass(frozen=True, slots=True)
class Filters:
    """A thread's filters as the kernel holds them, oldest first (kernel/seccomp.c, ``get_nth_filter``), each an array of ``struct
    sock_filter``; and the seconds that the thread stood still."""

    programs: tuple[bytes, ...]
    pause: float


@dataclass(frozen=True, slots=True)
class ThreadSeccomp:
    """What ``/proc/PID/task/TID/status`` says without touching the thread (proc(5)). ``mode``: 0 none, 1 strict, 2 filter."""

    mode: int
    filters: int
    no_new_privileges: bool
    state: str


def thread_seccomp(tid: int, pid: int | None = None) -> ThreadSeccomp:
    """:raises GoneError: there is no such thread. :raises PtraceError: as :func:`proc_status`"""
    path = f"/proc/{tid}/status" if pid is None else f"/proc/{pid}/task/{tid}/status"
    values = proc_status(path)
    return ThreadSeccomp(
        mode=int(values.get("Seccomp", "0")),
        filters=int(values.get("Seccomp_filters", "0")),
        no_new_privileges=values.get("NoNewPrivs", "0").strip() == "1",
        state=values.get("State", "").strip()[:1],
    )


def proc_status(path: str) -> dict[str, str]:
    """The fields of a status file of /proc. A process chooses its own name, the first of them; the kernel escapes in it only what
    ends a line.

    :raises GoneError: there is no such process or thread any more
    :raises PtraceError: it cannot be looked at for another reason
    """
    try:
        text = Path(path).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise GoneError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise PtraceError(f"{path}: {error.strerror}") from error
    return dict(line.partition(":")[::2] for line in text.split("\n"))


def read_filters(tid: int) -> Filters:
    """Read all filters of one thread, which stands still meanwhile.

    :raises GoneError: the thread has ended
    :raises PtraceError: it is being traced by another, cannot be stopped, or we may not read
    """
    status = thread_seccomp(tid)
    if status.state in ("Z", "X"):
        raise GoneError(f"process {tid} has ended")
    if status.mode != 2:  # GET_FILTER would say EINVAL, and who has none need not be stopped to be told
        return Filters((), 0.0)
    outcome: list[Filters | BaseException] = []

    def read() -> None:
        try:
            outcome.append(_read(tid))
        except BaseException as error:  # noqa: BLE001 (raised again by whoever waits for us)
            outcome.append(error)

    # The tracer is a thread, not a process, and when it ends the kernel lets go of whatever it held: so nothing that goes wrong
    # here can leave the process standing still.
    reader = threading.Thread(target=read, name="ptrace", daemon=True)
    reader.start()
    reader.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _read(tid: int) -> Filters:
    _ptrace(_SEIZE, tid, "attach to")
    begun = time.perf_counter()
    _ptrace(_INTERRUPT, tid, "stop")
    signal_to_pass = _wait_for_stop(tid)
    try:
        programs = _read_stopped(tid)
    finally:
        _libc.ptrace(_DETACH, tid, None, signal_to_pass)
    return Filters(programs, time.perf_counter() - begun)


def _read_stopped(tid: int) -> tuple[bytes, ...]:
    buffer = ctypes.create_string_buffer(LONGEST_FILTER)
    programs: list[bytes] = []
    while len(programs) < MOST_FILTERS:
        length = _libc.ptrace(_GET_FILTER, tid, len(programs), buffer)
        if length < 0:
            number = ctypes.get_errno()
            if number == errno.ENOENT:
                return tuple(programs)
            raise _error(tid, "read the filters of", number)
        programs.append(buffer.raw[: length * 8])
    raise PtraceError(f"process {tid}: more than {MOST_FILTERS} filters")


def _wait_for_stop(tid: int) -> int:
    """Wait until the thread has stopped; the signal that is to be delivered when it goes on, 0 for none.

    A signal that arrives first stops the thread as well (signal-delivery-stop), which is as good, but the signal is then in our
    hands.
    """
    deadline = time.monotonic() + STOP_SECONDS
    for tries in itertools.count():
        try:
            found, status = os.waitpid(tid, os.WNOHANG | _WALL)
        except ChildProcessError as error:
            raise GoneError(f"process {tid} has ended") from error
        if found == tid:
            if not os.WIFSTOPPED(status):
                raise GoneError(f"process {tid} has ended")
            return 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
        if time.monotonic() > deadline:
            raise PtraceError(f"process {tid} does not stop: it sleeps uninterruptibly")
        time.sleep(0 if tries < SPINS else 0.001)
    raise AssertionError("unreachable")


def _ptrace(request: int, tid: int, what: str) -> None:
    if _libc.ptrace(request, tid, None, None) < 0:
        raise _error(tid, what, ctypes.get_errno())


def _error(tid: int, what: str, number: int) -> PtraceError:
    if number == errno.ESRCH:
        return GoneError(f"process {tid} has ended")
    hint = {
        errno.EPERM: "it needs CAP_SYS_PTRACE, and another tracer may hold the process already",
        errno.EACCES: "the reader needs CAP_SYS_ADMIN and must itself run without any seccomp filter",
        errno.EIO: "the kernel lacks CONFIG_CHECKPOINT_RESTORE",
        errno.EINVAL: "the process has no filter",
        errno.EMEDIUMTYPE: "a filter is not classic BPF",
    }.get(number, "")
    return PtraceError(f"cannot {what} process {tid}: {os.strerror(number)}" + (f"; {hint}" if hint else ""))
