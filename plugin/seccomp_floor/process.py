"""What a process does to itself when it knows what it needs: it gives up privileges, descriptors, and a life of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

__all__ = [
    "CAP_AUDIT_READ",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "close_all_but",
    "die_with",
    "keep_only",
    "load_filter",
]

# include/uapi/linux/capability.h
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYSLOG, CAP_AUDIT_READ = 5, 6, 7, 19, 21, 34, 37
_VERSION_3 = 0x2008_0522
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38  # include/uapi/linux/prctl.h
_SECCOMP_MODE_FILTER = 2

_libc = ctypes.CDLL(None, use_errno=True)


def keep_only(*capabilities: int) -> None:
    """Keep of these capabilities those that this process has, and no other; neither it nor what it starts gets one again, since
    it has no new privileges from then on (prctl(2), PR_SET_NO_NEW_PRIVS). For a process with one thread.

    :raises OSError: the kernel refuses
    """
    header, has = struct.pack("=Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    _check(_libc.capget(header, has), "capget")
    _, low, _, _, high, _ = struct.unpack("=6I", has.raw)  # effective, permitted, inheritable of each half
    kept = (low | high << 32) & sum(1 << capability for capability in capabilities)
    low, high = kept & 0xFFFF_FFFF, kept >> 32
    _check(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def close_all_but(*descriptors: int) -> None:
    """Close every other descriptor of this process."""
    first = 0
    for descriptor in sorted(descriptors):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, max(os.sysconf("SC_OPEN_MAX"), 1 << 16))


def die_with(parent: int) -> None:
    """Be killed when the parent ends, now if it has; to be said last, since to change who one is takes it back (prctl(2)).

    :raises OSError: the kernel refuses
    """
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(0)


def load_filter(program: bytes) -> None:
    """Be under a seccomp filter from here on: an array of ``struct sock_filter`` (seccomp(2)).

    :raises OSError: the kernel does not take it
    """
    code = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described, 0, 0), "prctl(PR_SET_SECCOMP)")


def _check(outcome: int, what: str) -> None:
    if outcome:
        raise OSError(ctypes.get_errno(), what)
