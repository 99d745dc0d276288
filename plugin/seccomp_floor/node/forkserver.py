"""Confined work for the daemon: a small process that forks, since the daemon itself, once it has threads, must not.

The server is started before any thread, has one thread and little memory itself, and never looks at what it passes on. It ends when
the daemon does: its socket says so. If it dies before, whoever waits is told, and the next piece of work starts another.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from seccomp_floor.confine import Child, ConfinedError, TooSlow, error_answer, read_answer, under

__all__ = ["ForkServer"]

MOST_AT_ONCE = 2
"""Children at work at the same time: judging is all computing, and the node's cores are the workloads'."""

_GRACE = 0.25  # seconds in which the server's own word that time is up should arrive

_HEADER = struct.Struct("!II")  # number of the request, length of what follows

R = TypeVar("R")


class ForkServer:
    """The daemon's side, for one event loop."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ours: socket.socket | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._last = 0
        self._connecting: asyncio.Task[asyncio.StreamWriter] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the process, to be done before any thread is. :raises OSError: it cannot be started"""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "seccomp_floor.node.forkserver"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path)),
                )
            except OSError:
                ours.close()
                raise
        self._ours = ours

    async def confined(self, work: Callable[..., R], *arguments: object, seconds: float) -> R:
        """What ``work(*arguments)`` returns or raises, worked out in a child; see :func:`seccomp_floor.confine.confined`.

        :param work: a function of a module, which the server imports
        :param seconds: from now; time spent waiting for other work counts
        :raises TooSlow: it took longer, by itself
        :raises ConfinedError: it did not get that far: the server ended, or was busy with other work; or as there
        """
        request = pickle.dumps((work, arguments, seconds, time.monotonic() + seconds))
        self._last = number = (self._last + 1) & 0xFFFF_FFFF
        try:
            async with asyncio.timeout(seconds + _GRACE):
                writer = await self._connected()
                answered = self._waiting[number] = asyncio.get_running_loop().create_future()
                writer.write(_HEADER.pack(number, len(request)) + request)
                data = await answered
        except TimeoutError as error:
            # The server ends what is too slow. Where its word does not come, we were stopped or starved: no fault of the work's.
            raise ConfinedError(f"no judgement within {seconds:g} s: the daemon was held up") from error
        except OSError as error:
            raise ConfinedError(f"cannot start the process that judges profiles: {error.strerror}") from error
        finally:
            self._waiting.pop(number, None)
        answer: R = read_answer(data)
        return answer

    def stop(self) -> None:
        """End the process, and with it all work."""
        for task in (self._connecting, self._reading):
            if task:
                task.cancel()
        if self._writer:
            self._writer.close()
        elif self._ours:
            self._ours.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(ConfinedError("the process that judges profiles has ended"))
        self._process = self._ours = self._connecting = self._writer = self._reading = None

    async def _connected(self) -> asyncio.StreamWriter:
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self.start()
        if self._connecting is None:  # one attempt, whoever of its callers is cancelled
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> asyncio.StreamWriter:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._ours)
        self._reading = asyncio.create_task(self._read(reader))
        return self._writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                data = await reader.readexactly(length)
                answered = self._waiting.get(number)
                if answered and not answered.done():
                    answered.set_result(data)
        except (asyncio.IncompleteReadError, OSError):
            self.stop()  # the next piece of work starts another


class _Server:
    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.selector = selectors.DefaultSelector()
        self.buffer = bytearray()
        self.queue: list[tuple[int, bytes]] = []
        self.children: dict[Child, int] = {}

    def serve(self) -> None:
        """Until the other end is gone. :raises ConnectionError: it went in the middle of something"""
        self.selector.register(self.peer, selectors.EVENT_READ)
        try:
            while True:
                deadline = min((child.deadline for child in self.children), default=None)
                wait = None if deadline is None else max(0.0, deadline - time.monotonic())
                for key, _ in self.selector.select(wait):
                    if isinstance(key.fileobj, Child):
                        key.fileobj.receive()
                    elif not self._take():
                        return
                for child in [c for c in self.children if c.ended or c.deadline <= time.monotonic()]:
                    self._finish(child)
                while self.queue and len(self.children) < MOST_AT_ONCE:
                    self._begin(*self.queue.pop(0))
        finally:
            for child in self.children:
                child.reap()

    def _take(self) -> bool:
        data = self.peer.recv(1 << 20)
        self.buffer += data
        while len(self.buffer) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self.buffer)
            if len(self.buffer) < _HEADER.size + length:
                break
            self.queue.append((number, bytes(self.buffer[_HEADER.size : _HEADER.size + length])))
            del self.buffer[: _HEADER.size + length]
        return bool(data)

    def _begin(self, number: int, request: bytes) -> None:
        try:
            work, arguments, seconds, deadline = pickle.loads(request)  # noqa: S301 (the daemon's own words)
            left = deadline - time.monotonic()
            if left <= 0:
                raise ConfinedError(f"not begun within {seconds:g} s: other profiles were being judged")
            child = Child(work, arguments, left)
        except ConfinedError as error:
            self._send(number, error_answer(error))
            return
        self.children[child] = number
        self.selector.register(child, selectors.EVENT_READ)

    def _finish(self, child: Child) -> None:
        self.selector.unregister(child)
        number = self.children.pop(child)
        child.reap()
        try:
            data = child.raw_answer()
        except TooSlow as error:
            data = error_answer(error)
        self._send(number, data)

    def _send(self, number: int, data: bytes) -> None:
        self.peer.sendall(_HEADER.pack(number, len(data)) + data)


_NOT_FOR_JUDGES = (
    "accept accept4 bind connect listen recvmsg sendmsg sendmmsg sendto socket socketcall socketpair "
    "kill pidfd_getfd pidfd_open pidfd_send_signal process_vm_readv process_vm_writev ptrace rt_sigqueueinfo rt_tgsigqueueinfo "
    "tgkill tkill clone clone3 execve execveat fork vfork "
    "add_key bpf io_uring_enter io_uring_register io_uring_setup keyctl mount name_to_handle_at open_by_handle_at perf_event_open "
    "request_key setns unshare userfaultfd"
)
"""System calls that a child has no use for, and that whoever takes it over would begin with: it is nobody, as others on the host
are, and in the host's namespaces where the daemon is."""


def _judges_filter() -> bytes:
    from seccomp_floor.abi import this_machine
    from seccomp_floor.bpf.compile import compile_profile
    from seccomp_floor.bpf.program import encode
    from seccomp_floor.profile import Action, Profile, Syscall

    denied = Syscall(tuple(_NOT_FOR_JUDGES.split()), Action.ERRNO)
    return encode(compile_profile(Profile(Action.ALLOW, syscalls=(denied,)), this_machine()))


def main() -> None:
    """The server's process: its standard input is the socket."""
    # Signals to the daemon's whole group are the daemon's to heed: it may still be judging while it ends.
    for signal_ in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_, signal.SIG_IGN)

    import seccomp_floor.judge  # noqa: F401 (loaded once, here, and there in every child)

    under(_judges_filter())
    with suppress(ConnectionError):
        _Server(socket.socket(fileno=0)).serve()


if __name__ == "__main__":
    main()
