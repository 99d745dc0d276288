"""Several daemons at one runtime, as in an upgrade: the new one registers before the old one leaves.

They may want different floors, and a runtime that gets two sections for one container refuses its creation. So whoever is asked
first decides, and puts a *mark* on the container, an annotation that names its policy; whoever finds the mark sets nothing. At the
validation each judges what it has decided itself. What another has decided is that one's to judge: it is asked as well, or, if it
has gone since, the runtime refuses the creation for want of its answer. A mark counts there only as part of the plugins'
adjustments, where nobody but a plugin can put one: what is not marked is judged by everybody.

So no one has to know who else is there, and none can be waited for in vain: one that hangs was asked, and has not marked anything.
Where a pod's author can put a mark on a container, all it does is that the container is refused.

A mark stays with the container, and tells whoever finds it later under which policy it was created.

The trap is the moment after one has gone: the runtime still counts it among the validators until the next event or registration,
and the creation that comes first would fail for its silence (containerd/nri, ``removeClosedPlugins``). So whoever sees that another
has gone registers once more, under another name and for nothing, which makes the runtime look after its list. That is seen by a
lock (flock(2)) on the directory of the runtime's NRI socket, taken with a session and given up at its end. It is a hint and no
more: nothing that is decided depends on who holds it.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from seccomp_floor.node.logs import event
from seccomp_floor.nri.connection import connect, run_until
from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.plugin import Identity, Session
from seccomp_floor.pb.nri_pb2 import PodSandbox

__all__ = ["MARK", "Succession", "sweep"]

MARK = "policy.seccomp-floor.nri.io"
"""The annotation that says that a daemon has decided about a container, and under which policy (its digest)."""

POLL_SECONDS = 0.1
"""How often it is looked whether another daemon has gone."""

log = logging.getLogger(__name__)


class Succession:
    """Whether there is another daemon, as far as the lock tells. :param directory: of the runtime's NRI socket"""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock: int | None = None
        self._alone = True
        self._deferred: bool | None = None

    def enter(self) -> None:
        """A session begins."""
        self.leave()
        try:
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            event(log, logging.WARNING, f"cannot tell whether another daemon serves this runtime: {error}")
            return
        self._alone = self._acquired()
        if not self._alone:
            event(log, logging.INFO, "another daemon serves this runtime as well")

    def leave(self) -> None:
        """The session has ended."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock, self._alone, self._deferred = None, True, None

    def decided(self, *, by_another: bool) -> None:
        """About a container, just now."""
        if self._deferred is not by_another and (by_another or self._deferred is not None):
            event(log, logging.INFO, f"{'another daemon' if by_another else 'this daemon'} decides about containers")
        self._deferred = by_another

    @property
    def accompanied(self) -> bool:
        """Whether there is another daemon that has come before."""
        return not self._alone

    @property
    def standing_by(self) -> bool:
        """Whether another daemon's policy is the one in force: as the last container has shown, or the lock before there is one."""
        return self.accompanied if self._deferred is None else self._deferred

    async def watch(self, succeeded: Callable[[], Awaitable[None]]) -> None:
        """Call ``succeeded`` whenever another daemon has gone, for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if not self._alone and self._acquired():
                self._alone, self._deferred = True, None
                event(log, logging.INFO, "the other daemon has left")
                await succeeded()

    def _acquired(self) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(self._lock or -1, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False


async def sweep(path: Path) -> None:
    """Register and leave, so that the runtime drops plugins that have gone from its lists."""
    done = asyncio.Event()
    with suppress(NriError):
        session = Session(_Passer(done), Identity("seccomp-floor-successor", "99"), *await connect(path))
        await run_until(session, done)


class _Passer(Handlers):
    """Subscribes to the event that matters least, because an empty subscription means all of them."""

    def __init__(self, done: asyncio.Event) -> None:
        self._done = done

    def registered(self, runtime: Runtime) -> None:  # noqa: ARG002
        self._done.set()

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        pass
