"""A seccomp agent that waves everything through, as a profile with SCMP_ACT_NOTIFY and a `listenerPath` needs one.

It answers each notification with "continue", which makes the kernel carry out the call: what such a profile leaves
to its agent is open, as seccomp_unotify(2) says ("not ... for implementing a security policy").
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

RECEIVE = 0xC0502100
"""SECCOMP_IOCTL_NOTIF_RECV, of a `struct seccomp_notif` of 80 bytes that begins with a 64-bit id."""
SEND = 0xC0182101
"""SECCOMP_IOCTL_NOTIF_SEND, of a `struct seccomp_notif_resp`: id, val, error, flags."""
CONTINUE = 1


class Agent:
    """Listens at `path`, which runc connects to when it creates a container; a context manager."""

    def __init__(self, path: Path) -> None:
        """Listen."""
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    _, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
                for descriptor in descriptors:
                    threading.Thread(target=self._answer, args=[descriptor], daemon=True).start()

    @staticmethod
    def _answer(descriptor: int) -> None:
        """Until the last process with the filter has gone."""
        with contextlib.suppress(OSError):
            while True:
                request = bytearray(80)  # the kernel wants it zeroed
                fcntl.ioctl(descriptor, RECEIVE, request)
                (number,) = struct.unpack_from("=Q", request)
                with contextlib.suppress(FileNotFoundError):  # the caller was killed while it waited
                    fcntl.ioctl(descriptor, SEND, struct.pack("=QqiI", number, 0, 0, CONTINUE))
        os.close(descriptor)

    def __enter__(self) -> Self:
        """It listens already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more; who has an agent keeps it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
