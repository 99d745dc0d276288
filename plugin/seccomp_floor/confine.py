"""Hostile input is worked on in a child process that can be killed.

libseccomp never returns from adding some pairs of rules, and whoever writes a profile can write those. So a profile is judged in a
child: it has a deadline, a limit on its memory, no descriptor but the way back, no privileges, and it dies with its parent.

A child that has been taken over can send back what it likes. Its answer is therefore text that holds values and nothing else
(:mod:`seccomp_floor.plain`).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

from seccomp_floor import plain
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.process import close_all_but, die_with, keep_only, load_filter

__all__ = ["Child", "ConfinedError", "TooSlow", "confined", "error_answer", "read_answer", "under"]

MOST_MEMORY = 1 << 30
"""Bytes of address space that a child may have."""
MOST_ANSWER = 8 << 20
"""Bytes that a child may answer. The section of containerd's default profile takes some 20 KB."""
NOBODY = 65534

R = TypeVar("R")


class TooSlow(SeccompFloorError):  # noqa: N818 (reads as what it says)
    """The work was not done in time, and was killed. ``burnt``: the seconds of a processor's time that it had until then."""

    def __init__(self, text: str, burnt: float = 0.0) -> None:
        super().__init__(text)
        self.burnt = burnt


class ConfinedError(SeccompFloorError):
    """The child could not be started, or ended without an answer: out of memory, a crash, or an answer that is none."""


_filter = b""


def under(program: bytes) -> None:
    """Have each child of this process live under a seccomp filter from now on: an array of ``struct sock_filter``."""
    global _filter
    _filter = program


def confined(work: Callable[..., R], *arguments: object, seconds: float) -> R:
    """What ``work(*arguments)`` returns or raises (of this project's errors), worked out in a child.

    For a process without other threads: it forks.

    :param seconds: how long the child may take
    :raises TooSlow: it took longer
    :raises ConfinedError: it did not start, or ended otherwise
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
    the deadline is past, then :meth:`reap`, then :meth:`answer`.

    :raises ConfinedError: it cannot be started
    """

    def __init__(self, work: Callable[..., object], arguments: tuple[object, ...], seconds: float) -> None:
        self.ended = False
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self._received = bytearray()
        self._burnt = 0.0
        parent = os.getpid()
        way_back = -1
        try:
            self._pipe, way_back = os.pipe()
            self.pid = os.fork()
        except OSError as error:
            if way_back >= 0:
                os.close(self._pipe)
                os.close(way_back)
            raise ConfinedError(f"cannot start the process that judges the profile: {error.strerror}") from error
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
        with suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored: the kernel has reaped it
            os.kill(self.pid, signal.SIGKILL)
            *_, usage = os.wait4(self.pid, 0)
            self._burnt = usage.ru_utime + usage.ru_stime

    def raw_answer(self) -> bytes:
        """The answer as :func:`read_answer` takes it. :raises TooSlow: there was none in time"""
        if not self.ended:
            text = f"not done after {self.seconds:g} s: the profile makes libseccomp, or the proof, too slow"
            raise TooSlow(text, self._burnt)
        return bytes(self._received[:MOST_ANSWER])

    def answer(self) -> Any:
        """What the work returned. :raises SeccompFloorError: what it raised, or that it did not end well"""
        return read_answer(self.raw_answer())


def error_answer(error: SeccompFloorError) -> bytes:
    """The answer of work that raised this error."""
    return plain.dump(((type(error), str(error), vars(error)), None))


def read_answer(data: bytes) -> Any:
    """What a child has sent. :raises SeccompFloorError: the error that it sent, or that it sent nothing that can be read"""
    try:
        error, value = plain.load(data)
        if error is None:
            return value
        kind, text, state = error
        raised = kind.__new__(kind)
        Exception.__init__(raised, text)  # whatever more its class would ask for is in its state
        vars(raised).update(state)
    except (AttributeError, TypeError, ValueError) as reason:
        raise ConfinedError("the process that judged the profile ended without an answer: out of memory?") from reason
    raise raised


def _live(
    work: Callable[..., object], arguments: tuple[object, ...], way_back: int, seconds: float, parent: int
) -> NoReturn:
    """The child's whole life."""
    try:
        try:
            _confine(way_back, seconds, parent)
            answer = plain.dump((None, work(*arguments)))
        except SeccompFloorError as error:
            answer = error_answer(error)
        except Exception as error:  # noqa: BLE001 (the parent must hear of it)
            answer = error_answer(ConfinedError(f"judging the profile failed: {type(error).__name__}: {error}"))
        data = memoryview(answer)
        while data:
            data = data[os.write(way_back, data) :]
    finally:
        os._exit(0)  # whatever happened: nothing of the parent's may run here


def _confine(way_back: int, seconds: float, parent: int) -> None:
    for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, signal.SIG_DFL)
    close_all_but(way_back)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 2, int(seconds) + 2))
    _become_nobody()
    keep_only()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No process left behind; root, if we still are, is not held to it.
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    die_with(parent)
    if _filter:
        load_filter(_filter)


def _become_nobody() -> None:
    """If we may (CAP_SETUID, CAP_SETGID; a user namespace has a nobody only where one is mapped)."""
    with suppress(OSError):
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
