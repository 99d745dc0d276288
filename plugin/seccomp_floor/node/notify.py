"""Word to systemd: sd_notify(3)'s protocol, one datagram to the socket that ``NOTIFY_SOCKET`` names."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["keep_alive", "notify"]


def notify(state: str) -> None:
    """Send a state (``READY=1``, ``STOPPING=1``, ``STATUS=...``); nothing happens where nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)


async def keep_alive() -> None:
    """Say for as long as the event loop turns that it does, where the service manager wants to hear it (``WATCHDOG_USEC``,
    sd_watchdog_enabled(3)): it starts a daemon anew that hangs."""
    import asyncio  # who only notifies needs none of it

    microseconds = os.environ.get("WATCHDOG_USEC", "")
    while microseconds.isdecimal() and int(microseconds):
        notify("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) / 3e6)
