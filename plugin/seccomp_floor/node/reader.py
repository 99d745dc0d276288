"""Filters are read by a process of its own, the only one that needs the kernel's highest privileges.

The daemon takes what pods' authors have written and answers whoever asks it; to read the filters of others takes CAP_SYS_ADMIN and
CAP_SYS_PTRACE, and having no filter oneself (:mod:`~seccomp_floor.node.ptrace`). So the two are apart: the daemon has neither of
these capabilities and may well be under a filter, and the reader takes nothing but the numbers of threads.

A request is one datagram: a thread's number, and with it the end of a socket that the answer goes to. So requests come from any
thread of the daemon's, need no numbers, and none waits for another's answer. The reader ends when nobody can ask it any more.

Either the daemon forks its reader, or it is told where one listens: a service manager that starts both can then hold each to what
it needs. In both cases it gives up its own privileges then, before it has loaded the rest of itself; a child is the smaller for it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from seccomp_floor import plain
from seccomp_floor.confine import ConfinedError, error_answer, read_answer
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.node.audit import why_not_readable
from seccomp_floor.node.notify import notify
from seccomp_floor.node.ptrace import Filters, PtraceError, read_filters
from seccomp_floor.process import (
    CAP_AUDIT_READ,
    CAP_KILL,
    CAP_SETGID,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    CAP_SYSLOG,
    close_all_but,
    die_with,
    keep_only,
)

__all__ = ["Reader", "ReaderError", "begin", "serve"]

KEPT = CAP_SETUID, CAP_SETGID, CAP_KILL, CAP_AUDIT_READ, CAP_SYSLOG
"""Capabilities that the daemon keeps: to make nobodies of those who judge profiles, to end open containers, and to read what the
kernel logs (SYSLOG: of /dev/kmsg, where audit records are not to be had)."""

SECONDS = 2.0
"""How long an answer may take: a thread that does not stop is given up after a quarter of that."""

_REQUEST = struct.Struct("=I")
_SELF_TEST = 0  # where a thread's number would be: whether filters can be read at all


def begin(listening_at: Path | None) -> Reader:
    """A reader for this process, which from here on cannot read itself. For a process with one thread.

    :param listening_at: where one listens; None for a child
    :raises ReaderError: there is none
    """
    reader = Reader.forked() if listening_at is None else Reader.listening(listening_at)
    keep_only(*KEPT)
    return reader


class ReaderError(PtraceError):
    """The reader does not answer."""


class Reader:
    """The daemon's side; each method may be called from any thread.

    ``child``: the socket on which the end of a reader that was forked can be seen, None where it is a service of its own.
    """

    def __init__(
        self, requests: socket.socket, pid: int = 0, connect: Callable[[], socket.socket] | None = None
    ) -> None:
        """:param pid: of the child. :param connect: where there is none: to whoever listens by then"""
        self.child = requests if connect is None else None
        self._pid = pid
        self._connect = connect
        self._requests = requests
        self._connecting = Lock()

    @classmethod
    def forked(cls) -> Reader:
        """A child of this process, which must have one thread only.

        :raises ReaderError: there can be none
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            parent = os.getpid()
            gc.freeze()  # what is there already stays in pages that both have
            pid = os.fork()
        except OSError as error:
            raise ReaderError(f"cannot start the process that reads filters: {error.strerror}") from error
        if pid == 0:
            _live(theirs, parent)
        theirs.close()
        return cls(ours, pid)

    @classmethod
    def listening(cls, path: Path) -> Reader:
        """A service that listens there. :raises ReaderError: none does"""

        def connect() -> socket.socket:
            requests = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                requests.connect(str(path))
            except OSError as error:
                requests.close()
                raise ReaderError(
                    f"no reader of filters listens at {path}: {error.strerror or error}; is seccomp-floor reader up?"
                ) from error
            return requests

        return cls(connect(), connect=connect)

    def filters(self, tid: int) -> Filters:
        """What :func:`~seccomp_floor.node.ptrace.read_filters` says.

        :raises PtraceError: as there
        :raises ReaderError: there is no answer
        """
        filters: Filters = self._ask(tid)
        return filters

    def why_not(self) -> str:
        """Why filters cannot be read here; "" where they can. :raises ReaderError: there is no answer"""
        return str(self._ask(_SELF_TEST))

    def close(self) -> None:
        """Ask no more; a forked reader ends, and is waited for."""
        self._requests.close()
        if self._pid:
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _ask(self, number: int) -> Any:
        received = bytearray()
        try:
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    self._send(_REQUEST.pack(number), theirs)
                ours.settimeout(SECONDS)
                while data := ours.recv(1 << 18):
                    received += data
        except ConnectionError as error:
            raise ReaderError("the process that reads filters has ended") from error
        except OSError as error:
            raise ReaderError(f"the process that reads filters does not answer: {error}") from error
        if not received:
            raise ReaderError("the process that reads filters has ended")
        try:
            return read_answer(bytes(received))
        except ConfinedError as error:
            raise ReaderError("the process that reads filters has ended in the middle of its answer") from error

    def _send(self, request: bytes, answer: socket.socket) -> None:
        with self._connecting:
            try:
                socket.send_fds(self._requests, [request], [answer.fileno()])
            except OSError:
                if self._connect is None:  # there is no other; that it has ended, if it has, is seen at its socket
                    raise
                # It was started anew: once more, at the other end of another connection.
                self._requests.close()
                self._requests = self._connect()
                socket.send_fds(self._requests, [request], [answer.fileno()])


def serve(path: Path) -> None:
    """Be a reader that listens there, for root alone, until a signal ends the process.

    :raises SeccompFloorError: it cannot listen there
    """
    reason = why_not_readable()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            path.unlink(missing_ok=True)
            os.umask(0o177)
            listener.bind(str(path))
            listener.listen()
        except OSError as error:
            raise SeccompFloorError(f"cannot listen at {path}: {error.strerror or error}") from error
        notify("READY=1")
        while True:
            requests, _ = listener.accept()
            Thread(target=_answer_all, args=(requests, reason), daemon=True).start()


def _live(requests: socket.socket, parent: int) -> None:
    """The whole life of a forked reader: nothing of the daemon's may stay open in it, and signals to the daemon are not for it."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        close_all_but(requests.fileno())
        keep_only(CAP_SYS_PTRACE, CAP_SYS_ADMIN)
        die_with(parent)
        _answer_all(requests, why_not_readable())
    finally:
        os._exit(0)


def _answer_all(requests: socket.socket, reason: str) -> None:
    with requests, suppress(ConnectionError):
        while True:
            data, descriptors, *_ = socket.recv_fds(requests, _REQUEST.size, 1, socket.MSG_CMSG_CLOEXEC)
            if not descriptors:  # the end, or what no daemon sends
                return
            Thread(target=_answer, args=(data, descriptors[0], reason), daemon=True).start()


def _answer(request: bytes, descriptor: int, reason: str) -> None:
    with suppress(OSError), socket.socket(fileno=descriptor) as asker:
        asker.settimeout(SECONDS)
        try:
            (number,) = _REQUEST.unpack(request)
            answer = plain.dump((None, reason if number == _SELF_TEST else read_filters(number)))
        except SeccompFloorError as error:
            answer = error_answer(error)
        asker.sendall(answer)
