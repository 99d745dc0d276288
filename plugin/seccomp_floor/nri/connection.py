"""Ways to the runtime: its socket, the descriptor that it leaves to a plugin it launches, and the way back after a loss."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from seccomp_floor.errors import InputError
from seccomp_floor.nri.errors import ConnectionLostError, NriError
from seccomp_floor.nri.handlers import Handlers
from seccomp_floor.nri.plugin import Identity, Session

__all__ = ["DEFAULT_SOCKET", "connect", "inherit", "inherited", "run_until", "serve"]

DEFAULT_SOCKET = Path("/var/run/nri/nri.sock")

NAME, INDEX, SOCKET = "NRI_PLUGIN_NAME", "NRI_PLUGIN_IDX", "NRI_PLUGIN_SOCKET"

FIRST_DELAY, LAST_DELAY = 0.1, 2.0
"""Seconds between attempts, doubling from the one to the other."""
LAST_DELAY_UNWANTED = 30.0
"""The longest wait after a session that a side ended on purpose: only an upgrade will change its mind."""

log = logging.getLogger(__name__)


async def connect(path: Path) -> tuple[StreamReader, StreamWriter]:
    """Connect to the runtime's NRI socket.

    :raises ConnectionLostError: if nobody listens there
    """
    try:
        return await asyncio.open_unix_connection(path)
    except OSError as error:
        raise ConnectionLostError(
            f"cannot connect to {path}: {error.strerror or error}; is the runtime up, with NRI enabled?"
        ) from error


def inherited(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the runtime has launched this process as a plugin."""
    return SOCKET in environment


async def inherit(environment: Mapping[str, str] = os.environ) -> tuple[Identity, StreamReader, StreamWriter]:
    """Take over the connection that the runtime has left to this process, and the identity that it gave it.

    :raises InputError: if the environment does not say what NRI says it does, or the descriptor is no such connection
    """
    identity = Identity(environment.get(NAME, ""), environment.get(INDEX, ""))
    number = environment.get(SOCKET, "")
    if not (number.isascii() and number.isdigit() and len(number) < 8):
        raise InputError(SOCKET, number, "the number of an open descriptor")
    try:
        connection = socket.socket(fileno=int(number))
    except OSError as error:
        raise InputError(SOCKET, number, f"a connected socket ({error.strerror})") from error
    if connection.family != socket.AF_UNIX or connection.type != socket.SOCK_STREAM:
        connection.detach()  # not ours to close
        raise InputError(SOCKET, number, "a unix stream socket")
    connection.set_inheritable(False)
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    return identity, reader, writer


async def serve(path: Path, handlers: Handlers, identity: Identity, stop: asyncio.Event) -> None:
    """Be a plugin of whatever runtime listens at ``path``, one session after another, until ``stop`` is set.

    A runtime that restarts makes its socket anew; each loss is followed by attempts at growing intervals. ``handlers.disconnected``
    hears of every session's end, the log of every new reason for one.
    """
    delay, told = FIRST_DELAY, ""
    while not stop.is_set():
        session = None
        try:
            session = Session(handlers, identity, *await connect(path))
            await run_until(session, stop)
        except NriError as error:
            if session and session.registered:
                delay, told = FIRST_DELAY, ""
            log.log(logging.DEBUG if str(error) == told else logging.WARNING, "%s", error)
            told = str(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            delay = min(delay * 2, LAST_DELAY if isinstance(error, ConnectionLostError) else LAST_DELAY_UNWANTED)


async def run_until(session: Session, stop: asyncio.Event) -> None:
    """Be that session's plugin until ``stop`` is set, or the session ends. :raises NriError: as :meth:`Session.run`"""

    async def stop_session() -> None:
        await stop.wait()
        session.stop()

    stopping = asyncio.create_task(stop_session())
    try:
        await session.run()
    finally:
        stopping.cancel()
