"""Two daemons at once, as in an upgrade: the new one registers before the old one leaves.

Both answer, and agree, since each leaves a section alone that is right already. The trap is the moment after the old one has
gone: the runtime still counts it among the validators of an adjustment until the next event or registration, and the creation
that comes first would fail for its silence (containerd/nri, ``removeClosedPlugins``). So whoever sees its predecessor go
registers once more, under another name and for nothing, which makes the runtime look after its list.

They know of each other by a lock (flock(2)) on the directory of the runtime's NRI socket, which they share by necessity. The
kernel gives it up for a daemon that dies, however it dies.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from seccomp_floor.node.logs import event
from seccomp_floor.nri.connection import connect
from seccomp_floor.nri.errors import NriError
from seccomp_floor.nri.handlers import Handlers, Runtime
from seccomp_floor.nri.plugin import Identity, Session
from seccomp_floor.pb.nri_pb2 import PodSandbox

__all__ = ["sweep", "take_over"]

POLL_SECONDS = 0.25

log = logging.getLogger(__name__)


async def take_over(directory: Path, gone: Callable[[], Awaitable[None]]) -> None:
    """Take the lock; if another had it, call ``gone`` when that one has left. Then keep it for as long as this process lives."""
    lock, waited = None, False
    for _ in itertools.count():
        lock = _open(directory) if lock is None else lock  # the runtime makes it
        if lock is not None and _try_lock(lock):
            break
        if lock is not None and not waited:
            event(log, logging.INFO, "another daemon serves this runtime as well: waiting for it to leave")
            waited = True
        await asyncio.sleep(POLL_SECONDS)
    if waited:
        event(log, logging.INFO, "the other daemon has left")
        await gone()


def _open(directory: Path) -> int | None:
    try:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def sweep(path: Path) -> None:
    """Register and leave, so that the runtime drops plugins that have gone from its lists."""
    done = asyncio.Event()
    session = Session(_Passer(done), Identity("seccomp-floor-successor", "99"), *await connect(path))

    async def leave() -> None:
        await done.wait()
        session.stop()

    leaving = asyncio.create_task(leave())
    with suppress(NriError):
        await session.run()
    leaving.cancel()


class _Passer(Handlers):
    """Subscribes to the event that matters least, because an empty subscription means all of them."""

    def __init__(self, done: asyncio.Event) -> None:
        self._done = done

    def registered(self, runtime: Runtime) -> None:  # noqa: ARG002
        self._done.set()

    async def remove_pod_sandbox(self, pod: PodSandbox) -> None:
        pass
