"""The doors: every way through the syscall interface to a thing that the floor denies, ABI by ABI.

A door is a set of calls that seccomp can tell apart: a number and, at most, one argument of which **only the low 32 bits
count**, because the kernel reads it as an ``int`` and drops the rest (net/socket.c: ``socket(int family, ...)``,
``socketcall(int call, ...)``) while seccomp compares all 64. That one fact is why most published rules leave a door open.

The doors are the meaning of a floor. The proof shows them closed, the exactness check takes the floor's answer from them, and
nothing else in the project says what the floor denies.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from seccomp_floor.abi import ABIS, Abi
from seccomp_floor.errors import InputError
from seccomp_floor.floor import FAMILIES, Floor

__all__ = ["MODULE_LOAD", "SYS_SOCKET", "SYS_SOCKETPAIR", "Door", "Resolve", "doors", "floor_answer", "require_known"]

SYS_SOCKET, SYS_SOCKETPAIR = 1, 8  # include/uapi/linux/net.h
LOW = 0xFFFF_FFFF

MODULE_LOAD = "module load only"
"""What is behind a door that hands out nothing: the kernel may load the module of a family before it answers."""

Resolve = Callable[[str, Abi], int | None]
"""The number of a system call on an ABI, None where the ABI lacks it."""


@dataclass(frozen=True, slots=True)
class Door:
    """One door on one ABI.

    ``name``: for people (``socket``, ``socketcall``). ``opens``: what is behind it (``AF_ALG``, ``any socket``). ``value``: what
    the low 32 bits of argument ``argument`` must be, None for every call of this number. ``errno``: the floor's answer.
    ``denied``: False for a door that the policy leaves open, or that hands out nothing but can load a module.
    """

    name: str
    opens: str
    abi: Abi
    number: int
    errno: int
    argument: int = 0
    value: int | None = None
    denied: bool = True

    def matches(self, number: int, args: tuple[int, ...]) -> bool:
        """Whether a call of this ABI goes through this door."""
        return number == self.number and (self.value is None or args[self.argument] & LOW == self.value)


def doors(floor: Floor, abi: Abi, resolve: Resolve) -> tuple[Door, ...]:
    """Every door of the floor on one ABI. Where two of them match a call, the first gives the answer.

    :param resolve: numbers of the floor's further system calls
    """
    found = [
        Door(name, name, abi, number, code)
        for name, code in floor.syscalls
        if (number := resolve(name, abi)) is not None
    ]
    for family in dict.fromkeys(floor.families):
        for name, number in (("socket", abi.socket), ("socketpair", abi.socketpair)):
            found.append(Door(name, family, abi, number, floor.family_errno, value=FAMILIES[family]))
    if abi.socketcall is not None and floor.families:
        found.append(
            Door(
                "socketcall(SYS_SOCKET)",
                "any socket",
                abi,
                abi.socketcall,
                errno.ENOSYS,
                value=SYS_SOCKET,
                denied=floor.socketcall,
            )
        )
        found.append(
            Door(
                "socketcall(SYS_SOCKETPAIR)",
                "any pair" if floor.denies_pairs else MODULE_LOAD,
                abi,
                abi.socketcall,
                errno.ENOSYS,
                value=SYS_SOCKETPAIR,
                denied=floor.socketcall and floor.denies_pairs,
            )
        )
    if floor.families:
        for name, number in zip(("io_uring_setup", "io_uring_enter", "io_uring_register"), abi.io_uring, strict=True):
            found.append(Door(name, "any socket", abi, number, errno.ENOSYS, denied=floor.io_uring))
    return tuple(found)


def require_known(floor: Floor, resolve: Resolve) -> None:
    """A name that no ABI has is a slip of the pen, and would deny nothing in silence. :raises InputError: for such a name"""
    for name, _ in floor.syscalls:
        if all(resolve(name, abi) is None for abi in ABIS.values()):
            raise InputError("floor.syscalls", name, "the name of a system call that libseccomp knows")


def floor_answer(denied: Iterable[Door], number: int, args: tuple[int, ...]) -> int | None:
    """The errno that the floor gives to a call of the doors' ABI, None where it lets it pass."""
    return next((door.errno for door in denied if door.denied and door.matches(number, args)), None)
