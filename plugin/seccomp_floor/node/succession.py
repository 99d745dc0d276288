"""Several daemons at one runtime, as in an upgrade: the new one registers before the old one leaves.

They may want different floors, and a runtime that gets two sections for one container refuses its creation. So one of them *leads*
and the others stand by: they answer every request, and set nothing. Who leads is said by a lock (flock(2)) on the directory of the
runtime's NRI socket, which they share by necessity and no container has: taken with a session and given up at its end, by the
kernel at the latest, for a daemon that dies.

A lock says who should act, not that it did: its holder may be stopped, and dropped by the runtime. What tells is the runtime's own
list of the plugins that it has asked about a creation, which comes with the request to validate it. If the leader is on it, it has
either answered, and judges the sum by its own floor as well, or it has not, and the creation fails for want of its judgement. If
it is not, nobody has set anything: the creation is judged like any other, and from the next one on the daemon acts by itself.

The trap is the moment after the leader has gone: the runtime still counts it among the validators until the next event or
registration, and the creation that comes first would fail for its silence (containerd/nri, ``removeClosedPlugins``). So whoever
succeeds it registers once more, under another name and for nothing, which makes the runtime look after its list.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from seccomp_floor.node.logs import event
from seccomp_floor.nri.connection import connect
from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.plugin import Identity, Session
from seccomp_floor.pb.nri_pb2 import PodSandbox

__all__ = ["Succession", "sweep"]

POLL_SECONDS = 0.1
"""How often a daemon that stands by looks whether the leader has gone, besides at each creation."""

log = logging.getLogger(__name__)


class Succession:
    """This daemon's place in the line.

    :param directory: of the runtime's NRI socket
    :param name: the plugin's, which all in the line share: the runtime's fail-closed setting asks for it
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._lock: int | None = None
        self._held = False
        self._waiting = False
        self._deserted = False

    def enter(self) -> None:
        """A session begins: lead, if nobody does, else stand by."""
        self.leave()
        try:
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            # Without a line to stand in there may be two that act; where they disagree, the runtime refuses the creation.
            event(log, logging.WARNING, f"cannot tell whether another daemon serves this runtime: {error}")
            self._held = True
            return
        if not self.leads:
            self._waiting = True
            event(
                log, logging.INFO, "another daemon serves this runtime as well, and leads until it leaves: standing by"
            )

    def leave(self) -> None:
        """The session has ended: whoever is next may lead."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self._held, self._waiting, self._deserted = None, False, False, False

    @property
    def leads(self) -> bool:
        """Whether this daemon acts. A leader that has gone is noticed by whoever asks."""
        if not self._held and self._lock is not None:
            with suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = True
        return self._held or self._deserted

    @property
    def standing_by(self) -> bool:
        """Whether another daemon acts in this one's place, as far as is known: for status, and from any thread."""
        return self._lock is not None and not (self._held or self._deserted)

    def leaves_to_leader(self, asked: Iterable[str]) -> bool:
        """Whether a creation is the leader's to judge, and not this daemon's.

        :param asked: the names of the plugins that the runtime has asked about it, as it says itself
        """
        if self.leads:
            return False
        if sum(name == self._name for name in asked) > 1:
            return True
        self._deserted = True
        event(log, logging.WARNING, "the daemon that leads is no longer registered: leading in its place")
        return False

    async def watch(self, succeeded: Callable[[], Awaitable[None]]) -> None:
        """Call ``succeeded`` whenever a leader has gone and this daemon has come after it, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._waiting and self.leads and self._held:
                self._waiting = False
                event(log, logging.INFO, "the other daemon has left: leading")
                await succeeded()


async def sweep(path: Path) -> None:
    """Register and leave, so that the runtime drops plugins that have gone from its lists."""
    done = asyncio.Event()
    with suppress(NriError):
        session = Session(_Passer(done), Identity("seccomp-floor-successor", "99"), *await connect(path))

        async def leave() -> None:
            await done.wait()
            session.stop()

        leaving = asyncio.create_task(leave())
        try:
            await session.run()
        finally:
            leaving.cancel()


class _Passer(Handlers):
    """Subscribes to the event that matters least, because an empty subscription means all of them."""

    def __init__(self, done: asyncio.Event) -> None:
        self._done = done

    def registered(self, runtime: Runtime) -> None:  # noqa: ARG002
        self._done.set()

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        pass
