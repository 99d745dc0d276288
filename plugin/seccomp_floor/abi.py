"""The syscall ABIs that seccomp can tell apart, and where each has the doors to a socket.

An ABI here is what runtime-spec calls an *architecture*: one calling convention with one table of syscall numbers. A machine
offers one or more of them at once (x86_64: its own, 32-bit compat, and x32 where the kernel has it), and a filter sees which one
was used in ``seccomp_data.arch``; x32 shares its value with x86_64 and differs by a bit of the number.

Sources: ``AUDIT_ARCH_*`` in the kernel's ``include/uapi/linux/audit.h``; ELF machine numbers in ``elf-em.h``; syscall
numbers in the kernel's ``arch/*/kernel/syscalls/*.tbl``; libseccomp's ``SCMP_ARCH_*`` tokens in its ``seccomp.h``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from seccomp_floor.errors import InputError

__all__ = ["ABIS", "BY_AUDIT_ARCH", "X32_BIT", "Abi", "abi_named", "abis_of_machine", "this_machine"]

X32_BIT = 0x4000_0000
"""``__X32_SYSCALL_BIT``: set in the number of every x32 call (arch/x86/include/uapi/asm/unistd.h)."""

LE, BITS64, N32 = (
    0x4000_0000,
    0x8000_0000,
    0x2000_0000,
)  # __AUDIT_ARCH_LE, __AUDIT_ARCH_64BIT, ..._CONVENTION_MIPS64_N32


@dataclass(frozen=True, slots=True)
class Abi:
    """One syscall ABI.

    ``name``: as runtime-spec spells it. ``token``: libseccomp's ``SCMP_ARCH_*`` value. ``audit_arch``: what the filter sees.
    ``little_endian``: which half of an argument comes first in ``seccomp_data``. ``base``: what this ABI adds to the numbers of
    syscalls that all architectures share. ``socketcall``: the multiplexer's number, None where the ABI has none.
    """

    name: str
    token: int
    audit_arch: int
    little_endian: bool
    base: int
    socket: int
    socketpair: int
    socketcall: int | None

    @property
    def short(self) -> str:
        """The name as people type it: ``x86_64``."""
        return self.name.removeprefix("SCMP_ARCH_").lower()

    @property
    def io_uring(self) -> tuple[int, int, int]:
        """Numbers of ``io_uring_setup``, ``io_uring_enter`` and ``io_uring_register``: 425 to 427 above the base, everywhere."""
        return self.base + 425, self.base + 426, self.base + 427

    def admits(self, number: int) -> bool:
        """Whether a call with this number belongs to this ABI, given that ``seccomp_data.arch`` is its ``audit_arch``.

        Only x86_64 and x32 share an AUDIT_ARCH value, and a bit of the number tells them apart.
        """
        if self.audit_arch != 0xC000_003E:
            return True
        return bool(number & X32_BIT) == (self.base == X32_BIT)


def _abi(
    name: str,
    machine: int,
    socket: int,
    socketpair: int,
    socketcall: int | None = None,
    *,
    base: int = 0,
    token: int | None = None,
) -> Abi:
    return Abi(
        name="SCMP_ARCH_" + name,
        token=machine if token is None else token,
        audit_arch=machine,
        little_endian=bool(machine & LE),
        base=base,
        socket=base + socket,
        socketpair=base + socketpair,
        socketcall=None if socketcall is None else base + socketcall,
    )


ABIS: dict[str, Abi] = {
    abi.name: abi
    for abi in (
        _abi("X86_64", 62 | LE | BITS64, 41, 53),
        _abi("X86", 3 | LE, 359, 360, 102),
        _abi("X32", 62 | LE | BITS64, 41, 53, base=X32_BIT, token=62 | LE),
        _abi("AARCH64", 183 | LE | BITS64, 198, 199),
        _abi("ARM", 40 | LE, 281, 288),
        _abi("MIPS", 8, 183, 184, 102, base=4000),
        _abi("MIPSEL", 8 | LE, 183, 184, 102, base=4000),
        _abi("MIPS64", 8 | BITS64, 40, 52, base=5000),
        _abi("MIPSEL64", 8 | BITS64 | LE, 40, 52, base=5000),
        _abi("MIPS64N32", 8 | BITS64 | N32, 40, 52, base=6000),
        _abi("MIPSEL64N32", 8 | BITS64 | N32 | LE, 40, 52, base=6000),
        _abi("PPC", 20, 326, 333, 102),
        _abi("PPC64", 21 | BITS64, 326, 333, 102),
        _abi("PPC64LE", 21 | BITS64 | LE, 326, 333, 102),
        _abi("S390", 22, 359, 360, 102),
        _abi("S390X", 22 | BITS64, 359, 360, 102),
        _abi("RISCV64", 243 | BITS64 | LE, 198, 199),
        _abi("LOONGARCH64", 258 | BITS64 | LE, 198, 199),
        _abi("PARISC", 15, 17, 56),
        _abi("PARISC64", 15 | BITS64, 17, 56),
        _abi("M68K", 4, 356, 357, 102),
        _abi("SH", 42 | LE, 340, 347, 102),
        _abi("SHEB", 42, 340, 347, 102),
    )
}
"""Every ABI that libseccomp and runtime-spec know, by runtime-spec's name."""

BY_AUDIT_ARCH: dict[int, tuple[Abi, ...]] = {
    value: tuple(abi for abi in ABIS.values() if abi.audit_arch == value)
    for value in dict.fromkeys(abi.audit_arch for abi in ABIS.values())
}

_MACHINES: dict[str, tuple[str, ...]] = {
    "X86_64": ("X86_64", "X86", "X32"),
    "AARCH64": ("AARCH64", "ARM"),
    "MIPS64": ("MIPS64", "MIPS", "MIPS64N32"),
    "MIPSEL64": ("MIPSEL64", "MIPSEL", "MIPSEL64N32"),
    "MIPS64N32": ("MIPS64N32", "MIPS", "MIPS64"),
    "MIPSEL64N32": ("MIPSEL64N32", "MIPSEL", "MIPSEL64"),
    "PPC64": ("PPC64", "PPC"),
    "S390X": ("S390X", "S390"),
    "PARISC64": ("PARISC64", "PARISC"),
}

_UNAME = {
    "x86_64": "X86_64", "i386": "X86", "i486": "X86", "i586": "X86", "i686": "X86", "aarch64": "AARCH64", "armv6l": "ARM",
    "armv7l": "ARM", "armv8l": "ARM", "ppc64le": "PPC64LE", "ppc64": "PPC64", "ppc": "PPC", "s390x": "S390X", "s390": "S390",
    "riscv64": "RISCV64", "loongarch64": "LOONGARCH64", "mips": "MIPS", "mips64": "MIPS64", "parisc": "PARISC",
    "parisc64": "PARISC64", "m68k": "M68K",
}  # fmt: skip


def abi_named(name: str, where: str = "architecture") -> Abi:
    """The ABI of that name; ``SCMP_ARCH_`` and case are optional. :raises InputError: where no ABI has it."""
    text = name.upper()
    abi = ABIS.get(text if text.startswith("SCMP_ARCH_") else "SCMP_ARCH_" + text)
    if abi is None:
        known = ", ".join(abi.short for abi in ABIS.values())
        raise InputError(where, name, f"an architecture as runtime-spec names it ({known})")
    return abi


def abis_of_machine(native: Abi) -> tuple[Abi, ...]:
    """Every ABI that a kernel of this native architecture can offer to a program, the native one first."""
    key = native.name.removeprefix("SCMP_ARCH_")
    return tuple(ABIS["SCMP_ARCH_" + name] for name in _MACHINES.get(key, (key,)))


def this_machine() -> Abi:
    """The native ABI of the running kernel. :raises InputError: on a machine that libseccomp does not know."""
    machine = os.uname().machine
    key = _UNAME.get(machine)
    if key in ("MIPS", "MIPS64") and sys.byteorder == "little":
        key = key.replace("MIPS", "MIPSEL")
    if key is None:
        raise InputError("this machine's architecture (uname -m)", machine, "one that libseccomp knows")
    return ABIS["SCMP_ARCH_" + key]
