"""The node's own kernel as the judge: load a section into a throw-away process and knock at its doors.

Every knock is a call that the kernel refuses before it looks at the family (a ``type`` with flags that there are not: EINVAL,
net/socket.c; a null pointer: EFAULT), so that nothing is opened and no module loaded, and so that the filter's answer cannot be
mistaken for the kernel's.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from seccomp_floor.abi import Abi
from seccomp_floor.bpf.program import Program, encode
from seccomp_floor.doors import Door
from seccomp_floor.process import load_filter

__all__ = ["Knock", "knock"]

NO_SUCH_TYPE = 0x7FF0_0000
"""Flags in the type of a socket that no kernel has."""
HIGH_HALF = 1 << 32

_INT_80 = bytes.fromhex("53 89f8 89f3 87d1 cd80 5b 4898 c3")
"""``long f(int number, int a, int b, int c)``, which makes the call as 32-bit programs do (x86_64 machine code):
push rbx; mov eax,edi; mov ebx,esi; xchg ecx,edx; int 0x80; pop rbx; cdqe; ret."""


@dataclass(frozen=True, slots=True)
class Knock:
    """What a door answered. ``closed``: with the errno that the floor gives it and the kernel would not."""

    door: Door
    high: int
    got: int
    closed: bool

    def __str__(self) -> str:
        half = ", high half set" if self.high else ""
        return f"{self.door.abi.short} {self.door.name} ({self.door.opens}{half}): {errno.errorcode.get(self.got, self.got)}"


def knock(program: Program, doors: Iterable[Door], native: Abi) -> list[Knock]:
    """Load the program into a child and try every door that can be reached from it and that is safe to try.

    :raises OSError: the kernel does not take the program
    """
    chosen = [(door, high, call) for door in doors for high in (0, HIGH_HALF) if (call := _caller(door, native, high))]
    results, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            load_filter(encode(program))
            os.write(tell, bytes([0]) + bytes(min(call(door, high), 255) for door, high, call in chosen))
        os._exit(0)
    os.close(tell)
    with open(results, "rb") as pipe:  # noqa: PTH123 (a descriptor)
        answers = pipe.read()
    os.waitpid(child, 0)
    if not answers:
        raise OSError(errno.EINVAL, "the kernel does not take the filter")
    return [
        Knock(door, high, got, closed=got == door.errno)
        for (door, high, _), got in zip(chosen, answers[1:], strict=True)
    ]


Call = Callable[[Door, int], int]


def _caller(door: Door, native: Abi, high: int) -> Call | None:
    """How to make a call of that door's ABI from this process; None where that cannot be done, or should not be."""
    if not door.denied or not door.name.startswith(("socket", "io_uring_setup")):
        return None  # a system call that the owner named may do anything
    if door.value is None and high:
        return None
    if door.abi.audit_arch == native.audit_arch:
        return _native_call
    if native.short == "x86_64" and door.abi.short == "x86" and not high:
        return _int_80
    return None


def _arguments(door: Door, high: int) -> tuple[int, int, int]:
    if door.value is None:
        return 0, 0, 0
    if door.name.startswith("socketcall"):
        return door.value | high, 0, 0
    return door.value | high, NO_SUCH_TYPE, 0


def _native_call(door: Door, high: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    first, second, third = _arguments(door, high)
    long = ctypes.c_ulong
    answer = libc.syscall(ctypes.c_long(door.number), long(first), long(second), long(third), long(0))
    return ctypes.get_errno() if answer < 0 else 0


def _int_80(door: Door, high: int) -> int:
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_INT_80)
        start = ctypes.c_char.from_buffer(page)
        call = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_uint] * 4)(ctypes.addressof(start))
        answer: int = call(door.number, *_arguments(door, high))
        del call, start
    return -answer if answer < 0 else 0
