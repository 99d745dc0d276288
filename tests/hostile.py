"""Work that does not behave, for tests of what confines it. A process of its own imports these functions by name."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from seccomp_floor.errors import InputError, SeccompFloorError


class StrangerError(SeccompFloorError):
    """An error of ours by descent, of a module that is not."""


def echo(*values: object) -> tuple[object, ...]:
    return values


def endless() -> NoReturn:
    while True:
        pass


def asleep(seconds: float) -> int:
    """:returns: the sleeper's process."""
    time.sleep(seconds)
    return os.getpid()


def deaf() -> NoReturn:
    """Heeds no signal that can be ignored, and hangs up at once."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    os.closerange(0, 1 << 16)
    endless()


def stopped() -> NoReturn:
    os.kill(os.getpid(), signal.SIGSTOP)
    endless()


def greedy() -> int:
    return len(bytearray(3 << 30))


def crashing() -> bytes:
    return ctypes.string_at(0)


def leaving() -> NoReturn:
    sys.exit(0)


def vanishing() -> NoReturn:
    os._exit(0)


def wrong() -> NoReturn:
    raise ZeroDivisionError("three by nothing")


def recursing() -> int:
    return recursing() + 1


def mistaken() -> NoReturn:
    raise InputError("linux.seccomp", 5, "an object")


def strange() -> NoReturn:
    raise StrangerError("who knows")


def unspeakable() -> object:
    return object()


def long_winded(size: int) -> bytes:
    return bytes(size)


def babbling() -> NoReturn:
    """Writes into every descriptor for ever."""
    descriptors = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 (no pathlib where a library may be hostile)
    while True:
        for descriptor in descriptors:
            with suppress(OSError):
                os.write(descriptor, b"x" * 65536)


def breeding() -> int:
    """:returns: a child that lives on."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    return child


def descriptors() -> tuple[str, ...]:
    """What this process has open, but for the descriptor that looks."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
        except FileNotFoundError:
            continue
    return tuple(found)


def status() -> dict[str, str]:
    """``/proc/self/status``, by key."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def attempts() -> dict[str, int]:
    """What whoever has taken the process over would try first, and the errno that each attempt got, 0 for none."""
    libc, found = ctypes.CDLL(None, use_errno=True), {}
    for name, number, arguments in (
        ("socket", 41, (40, 1, 0)),  # AF_VSOCK
        ("socket (netlink)", 41, (16, 3, 0)),
        ("kill", 62, (os.getpid(), 0)),  # which it may without a filter
        ("ptrace", 101, (0, 0, 0, 0)),  # PTRACE_TRACEME: likewise
        ("fork", 57, ()),
        ("io_uring_setup", 425, (1, 0)),
    ):
        outcome = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
        found[name] = ctypes.get_errno() if outcome < 0 else 0
    return found
