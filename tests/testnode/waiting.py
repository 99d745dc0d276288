"""Waiting for what the daemon says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from seccomp_floor.node.control import ControlError, ask_status
from seccomp_floor.pb import control_pb2 as pb
from testnode.daemon import Daemon, DaemonError

WAIT_SECONDS = 30
T = TypeVar("T")


def status(daemon: Daemon) -> pb.StatusResponse:
    """How the node stands, by the daemon's control socket."""
    return ask_status(daemon.control_socket)


def until(daemon: Daemon, what: Callable[[pb.StatusResponse], T | None], seconds: float = WAIT_SECONDS) -> T:
    """The first answer that is not None, False or empty; `DaemonError` if there is none."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = status(daemon)
            if found := what(last):
                return found
        except ControlError as error:
            last = error
        time.sleep(0.05)
    raise DaemonError(f"not in {seconds} s; last: {last}\n{daemon.log}")


def row(status: pb.StatusResponse, identity: str) -> pb.Container | None:
    """What it says of one container."""
    return next((container for container in status.containers if container.id == identity), None)


def standing(daemon: Daemon, identity: str, *protections: str) -> pb.Container:
    """The container's row, once it stands so."""

    def reached(status: pb.StatusResponse) -> pb.Container | None:
        found = row(status, identity)
        return found if found is not None and found.protection in protections else None

    return until(daemon, reached)
