"""The few calls of libseccomp that a runtime makes, bound with ctypes.

The library is found by its soname, or by the path that a test or an owner names; never by ``ctypes.util.find_library``, which
starts a compiler. Signatures are those of ``seccomp.h``; the meaning of a call that failed is that of its manual page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_size_t,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
    create_string_buffer,
    string_at,
)
from errno import EACCES, EDOM, EEXIST, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP
from functools import cache

from seccomp_floor.abi import Abi
from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.profile import Arg, Operator

__all__ = ["SONAME", "CompileError", "Filter", "Library", "library", "name_of", "resolve"]

SONAME = "libseccomp.so.2"


class CompileError(SeccompFloorError):
    """A profile that the runtime, or libseccomp for it, refuses to make a filter of."""


class _Version(Structure):
    _fields_ = [("major", c_uint), ("minor", c_uint), ("micro", c_uint)]


class _Compare(Structure):  # struct scmp_arg_cmp
    _fields_ = [("arg", c_uint), ("op", c_int), ("datum_a", c_uint64), ("datum_b", c_uint64)]


_SIGNATURES = {
    "seccomp_version": (POINTER(_Version),),
    "seccomp_arch_native": (c_uint32,),
    "seccomp_syscall_resolve_name": (c_int, c_char_p),
    "seccomp_syscall_resolve_name_arch": (c_int, c_uint32, c_char_p),
    "seccomp_syscall_resolve_num_arch": (c_void_p, c_uint32, c_int),  # a string that the caller frees
    "seccomp_init": (c_void_p, c_uint32),
    "seccomp_release": (None, c_void_p),
    "seccomp_arch_add": (c_int, c_void_p, c_uint32),
    "seccomp_arch_remove": (c_int, c_void_p, c_uint32),
    "seccomp_attr_set": (c_int, c_void_p, c_int, c_uint32),
    "seccomp_rule_add_array": (c_int, c_void_p, c_uint32, c_int, c_uint, POINTER(_Compare)),
    "seccomp_export_bpf": (c_int, c_void_p, c_int),
}
_SINCE_2_6 = {"seccomp_export_bpf_mem": (c_int, c_void_p, c_void_p, POINTER(c_size_t))}

_OPERATORS = {op: number for number, op in enumerate(Operator, 1)}  # enum scmp_compare has the same order
_OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE
_UNKNOWN = -1  # __NR_SCMP_ERROR

_MEANINGS = {
    EACCES: "the action is the filter's default, or one that this version does not allow there",
    EDOM: "an architecture of the other byte order",
    EEXIST: "it is there already, or contradicts a rule on the same system call that is",
    EFAULT: "libseccomp failed in itself",
    EINVAL: "an argument that libseccomp does not accept",
    ENOMEM: "no memory",
    EOPNOTSUPP: "not supported by this version of libseccomp",
}


def _meaning(code: int) -> str:
    return f"{_MEANINGS.get(-code, os.strerror(-code))} ({code})"


class Library:
    """One loaded libseccomp. :param path: a soname or a path. :raises CompileError: where it cannot be loaded"""

    def __init__(self, path: str = SONAME) -> None:
        try:
            loaded = CDLL(path)
        except OSError as error:
            raise CompileError(f"cannot load {path}: {error}. Install libseccomp 2.5 or newer (libseccomp2)") from error
        self.path = path
        for name, (result, *parameters) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, parameters
        self.exports_to_memory = hasattr(loaded, "seccomp_export_bpf_mem")
        if self.exports_to_memory:
            for name, (result, *parameters) in _SINCE_2_6.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, parameters
        self.calls = loaded
        version = loaded.seccomp_version().contents
        self.version: tuple[int, int, int] = (version.major, version.minor, version.micro)
        if self.version < (2, 5, 0):
            raise CompileError(f"{path} is libseccomp {'.'.join(map(str, self.version))}: expected 2.5 or newer")
        free = CDLL(None).free
        free.restype, free.argtypes = None, [c_void_p]
        self._free = free
        self._numbers: dict[tuple[str, int], int] = {}
        self._names: dict[int, dict[str, int]] = {}

    def known(self, name: str) -> int | None:
        """What rules take for a name: this machine's number, or a negative stand-in where only other machines have the call;
        None for a name that no machine has."""
        number = self._resolved(name, 0)
        return None if number == _UNKNOWN else number

    def resolve_on(self, name: str, abi: Abi) -> int:
        """What ``seccomp_syscall_resolve_name_arch`` says: negative for a call that the ABI lacks **and** for one that it also
        has behind a multiplexer (``socket`` on x86), whatever its own number."""
        return self._resolved(name, abi.token)

    def number(self, name: str, abi: Abi) -> int | None:
        """The number of a call on an ABI, of its own where it is multiplexed as well; None where the ABI lacks it."""
        number = self.resolve_on(name, abi)
        if number >= 0:
            return number
        return None if number == _UNKNOWN else self.names(abi).get(name)

    def names(self, abi: Abi) -> dict[str, int]:
        """Every call of an ABI that rules can name, by that name."""
        found = self._names.get(abi.token)
        if found is None:
            numbers = [*range(abi.base, abi.base + _MOST_CALLS), *_PRIVATE.get(abi.short, ())]
            found = {
                name: number for number in numbers if (name := self._name(number, abi.token)) and self._nameable(name)
            }
            self._names[abi.token] = found
        return found

    def name_of(self, number: int, abi: Abi) -> str | None:
        """The name of a number on an ABI."""
        return self._name(number, abi.token) if 0 <= number < 1 << 31 else None

    def _resolved(self, name: str, token: int) -> int:
        key = name, token
        number = self._numbers.get(key)
        if number is None:
            if token:
                number = self.calls.seccomp_syscall_resolve_name_arch(token, name.encode())
            else:
                number = self.calls.seccomp_syscall_resolve_name(name.encode())
            if len(self._numbers) < _MOST_CACHED:  # names come from containers too
                self._numbers[key] = number
        return int(number)

    def _nameable(self, name: str) -> bool:
        # Rules are translated to other ABIs by the name that this machine's number, or stand-in, has; a few have none.
        number = self.known(name)
        return number is not None and self._name(number, self.calls.seccomp_arch_native()) == name

    def _name(self, number: int, token: int) -> str | None:
        text = self.calls.seccomp_syscall_resolve_num_arch(token, number)
        if not text:
            return None
        try:
            return string_at(text).decode()
        finally:
            self._free(text)

    @contextmanager
    def filter(self, default: int, abis: Sequence[Abi]) -> Iterator[Filter]:
        """A filter under construction. :param default: a return value. :param abis: the machine's own first, as it is there"""
        context = self.calls.seccomp_init(default)
        if not context:
            raise CompileError(f"libseccomp does not take {default:#010x} as the default action")
        try:
            yield Filter(self, context, abis)
        finally:
            self.calls.seccomp_release(context)


LARGEST_PROGRAM = 1 << 16  # bytes; the kernel takes half of that
_MOST_CALLS = 1024  # above every number that an ABI has beyond its base
_PRIVATE = {"arm": range(0x0F_0001, 0x0F_0006)}  # __ARM_NR_BASE
_MOST_CACHED = 20_000


class Filter:
    """A filter under construction; see :meth:`Library.filter`."""

    def __init__(self, of: Library, context: int, abis: Sequence[Abi]) -> None:
        self.library, self.context = of, context
        host = of.calls.seccomp_arch_native()
        if abis[0].token != host:  # as on another machine; removed first, since a filter has one byte order
            self._done(of.calls.seccomp_arch_remove(context, host), "cannot leave this machine's architecture out")
        for abi in abis:
            code = of.calls.seccomp_arch_add(context, abi.token)
            if code != -EEXIST:
                self._done(code, f"cannot add the architecture {abi.name}")

    def optimize(self, level: int) -> None:
        """Order the program as a binary tree (2) or by priority (1)."""
        self._done(self.library.calls.seccomp_attr_set(self.context, _OPTIMIZE, level), "cannot optimize")

    def add(self, action: int, number: int, args: Sequence[Arg], rule: str) -> None:
        """Add a rule. :param number: as :meth:`Library.known` gives it. :param rule: how errors name it"""
        conditions = (_Compare * len(args))(
            *(_Compare(arg.index, _OPERATORS[arg.op], arg.value, arg.value_two) for arg in args)
        )
        code = self.library.calls.seccomp_rule_add_array(self.context, action, number, len(args), conditions)
        if code:
            self._done(code, f"cannot add the rule for {rule}")

    def export(self) -> bytes:
        """The program, as an array of ``struct sock_filter`` in the byte order of the filter's architectures."""
        if self.library.exports_to_memory:
            size = c_size_t()
            self._done(self.library.calls.seccomp_export_bpf_mem(self.context, None, byref(size)), "cannot compile")
            memory = create_string_buffer(size.value)
            self._done(self.library.calls.seccomp_export_bpf_mem(self.context, memory, byref(size)), "cannot compile")
            return memory.raw[: size.value]
        # Into memory of our own: what a pipe holds is little on a node whose user has many of them (pipe(7), pipe-user-pages-soft).
        memory_file = os.memfd_create("program", os.MFD_CLOEXEC)
        try:
            self._done(self.library.calls.seccomp_export_bpf(self.context, memory_file), "cannot compile")
            return os.pread(memory_file, LARGEST_PROGRAM, 0)
        finally:
            os.close(memory_file)

    def _done(self, code: int, failed: str) -> None:
        if code:
            raise CompileError(f"libseccomp {'.'.join(map(str, self.library.version))} {failed}: {_meaning(code)}")


_loaded = cache(Library)


def library(path: str = SONAME) -> Library:
    """The library of that soname or path, loaded once. :raises CompileError: as :class:`Library`"""
    return _loaded(path)


def resolve(name: str, abi: Abi) -> int | None:
    """The number of a call on an ABI (a :data:`~seccomp_floor.doors.Resolve`). :raises CompileError: without libseccomp"""
    return library().number(name, abi)


def name_of(number: int, abi: Abi) -> str | None:
    """The name of a number on an ABI. :raises CompileError: without libseccomp"""
    return library().name_of(number, abi)
