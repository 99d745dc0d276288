"""Hostile input is worked on in a child process that can be killed.

libseccomp never returns from adding some pairs of rules, and whoever writes a profile can write those. So a profile is judged in a
child: it has a deadline, a limit on its memory, no descriptor but the way back, no privileges, and it dies with its parent.

A child that has been taken over can send back what it likes. Its answer is therefore read by an unpickler that makes values of
this project's classes and nothing else.
"""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from seccomp_floor.errors import SeccompFloorError

__all__ = ["Child", "ConfinedError", "TooSlow", "confined"]

MOST_MEMORY = 1 << 30
"""Bytes of address space that a child may have."""
MOST_ANSWER = 64 << 20
"""Bytes that a child may answer."""
NOBODY = 65534
_PR_SET_PDEATHSIG = 1

R = TypeVar("R")


class TooSlow(SeccompFloorError):  # noqa: N818 (reads as what it says)
    """The work was not done in time, and was killed."""


class ConfinedError(SeccompFloorError):
    """The child ended without an answer: out of memory, a crash, or an answer that is none."""


def confined(work: Callable[..., R], *arguments: object, seconds: float) -> R:
    """What ``work(*arguments)`` returns or raises (of this project's errors), worked out in a child.

    For a process without other threads: it forks.

    :param seconds: how long the child may take
    :raises TooSlow: it took longer
    :raises ConfinedError: it ended otherwise
    """
    child = Child(work, arguments, seconds)
    try:
        poll = select.poll()
        poll.register(child, select.POLLIN)
        while not child.ended:
            left = child.deadline - time.monotonic()
            if left <= 0:
                break
            if poll.poll(left * 1000):
                child.receive()
    finally:
        child.reap()
    answer: R = child.answer()
    return answer


class Child:
    """One piece of work in a child of its own. Wait until its descriptor is readable, call :meth:`receive` until it has ended or
    the deadline is past, then :meth:`reap`, then :meth:`answer`."""

    def __init__(self, work: Callable[..., object], arguments: tuple[object, ...], seconds: float) -> None:
        self.ended = False
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self._received = bytearray()
        self._pipe, way_back = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _live(work, arguments, way_back, seconds, parent)
        os.close(way_back)
        os.set_blocking(self._pipe, False)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._pipe

    def receive(self) -> None:
        """Take what the child has sent so far."""
        try:
            data = os.read(self._pipe, 1 << 20)
        except BlockingIOError:
            return
        self._received += data
        self.ended = not data or len(self._received) > MOST_ANSWER

    def reap(self) -> None:
        """Kill the child, whatever it does, and forget it."""
        os.close(self._pipe)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def raw_answer(self) -> bytes:
        """The answer as :func:`read_answer` takes it. :raises TooSlow: there was none in time"""
        if not self.ended:
            raise TooSlow(f"not done after {self.seconds:g} s: the profile makes libseccomp, or the proof, too slow")
        return bytes(self._received)

    def answer(self) -> Any:
        """What the work returned. :raises SeccompFloorError: what it raised, or that it did not end well"""
        return read_answer(self.raw_answer())


def read_answer(data: bytes) -> Any:
    """What a child has sent. :raises SeccompFloorError: the error that it sent, or that it sent nothing that can be read"""
    try:
        error, value = _Unpickler(io.BytesIO(data)).load()
    except Exception as reason:
        raise ConfinedError("the process that judged the profile ended without an answer: out of memory?") from reason
    if error is None:
        return value
    kind, text, state = error
    if not (isinstance(kind, type) and issubclass(kind, SeccompFloorError)):
        raise ConfinedError(f"the process that judged the profile failed: {text}")
    raised = kind.__new__(kind)
    Exception.__init__(raised, text)
    vars(raised).update(state)
    raise raised


class _Unpickler(pickle.Unpickler):
    """Makes values of this package's classes only. Those are data: to make one does nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "seccomp_floor" or module.startswith("seccomp_floor."):
            import sys

            found = getattr(sys.modules.get(module), name, None)
            if isinstance(found, type):
                return found
        raise pickle.UnpicklingError(f"an answer with {module}.{name} in it")


def _live(
    work: Callable[..., object], arguments: tuple[object, ...], way_back: int, seconds: float, parent: int
) -> NoReturn:
    """The child's whole life."""
    try:
        _confine(way_back, seconds, parent)
        answer: tuple[object, object]
        try:
            answer = (None, work(*arguments))
        except SeccompFloorError as error:
            answer = ((type(error), str(error), vars(error)), None)
        except Exception as error:  # noqa: BLE001 (the parent must hear of it)
            answer = ((None, f"{type(error).__name__}: {error}", {}), None)
        data = memoryview(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        while data:
            data = data[os.write(way_back, data) :]
    finally:
        os._exit(0)  # whatever happened: nothing of the parent's may run here


def _confine(way_back: int, seconds: float, parent: int) -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before that
        os._exit(0)
    for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, signal.SIG_DFL)
    os.closerange(0, way_back)
    os.closerange(way_back + 1, 1 << 16)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 2, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # changing who one is clears it
