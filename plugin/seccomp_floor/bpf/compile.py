"""From a profile to the program that a runtime gives the kernel for it.

What a filter does is decided here, not by the profile's text: the runtime leaves rules out, takes some apart, sets options of
libseccomp, and may put instructions of its own in front. So a profile is compiled as its runtime would: through the same library,
by the same steps.

Sources: runc's ``libcontainer/seccomp/seccomp_linux.go`` and ``SetupSeccomp`` in ``libcontainer/specconv/spec_linux.go``; crun's
``libcrun_generate_seccomp`` in ``src/libcrun/seccomp.c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from seccomp_floor.abi import ABIS, Abi
from seccomp_floor.bpf import opcodes as op
from seccomp_floor.bpf.libseccomp import SONAME, CompileError, library
from seccomp_floor.bpf.program import (
    HOST_LITTLE_ENDIAN,
    RET_ALLOW,
    RET_ERRNO,
    RET_KILL_PROCESS,
    RET_KILL_THREAD,
    RET_LOG,
    RET_TRACE,
    RET_TRAP,
    RET_USER_NOTIF,
    Program,
    decode,
)
from seccomp_floor.bpf.runc import highest_numbers, stub, wants_stub
from seccomp_floor.profile import Action, Arg, Profile

__all__ = [
    "CRUN",
    "RUNC",
    "RUNTIMES",
    "CompileError",
    "RuntimeModel",
    "abis_of_filter",
    "compile_profile",
    "conditions",
    "runc_model",
    "value_of",
]


@dataclass(frozen=True, slots=True)
class RuntimeModel:
    """What a runtime makes of a profile, as far as runtimes differ.

    ``name``: the runtime's. ``architectures``: those that it knows, by runtime-spec's names. ``tree_above``: with more names than
    this in the rules it has libseccomp order the program as a binary tree; None: never. ``stub``: whether it puts an ENOSYS stub
    in front; ``stub_native``: also for the native architecture where the profile does not list it (runc since 1.2);
    ``stub_s390_setup``: with ENOSYS for number 0 on s390 (since 1.1.3). ``listener``: whether NOTIFY is possible where the
    runtime itself needs the call or the default (runc refuses). ``most_args``: conditions of a rule that it reads.
    ``default_errno_anywhere``: whether errnos may stand beside actions that have none. ``library``: soname or path of the
    libseccomp that compiles for it; a runtime may carry its own, of another version.
    """

    name: str
    architectures: frozenset[str]
    tree_above: int | None = None
    stub: bool = False
    stub_native: bool = True
    stub_s390_setup: bool = True
    listener: bool = True
    most_args: int | None = None
    default_errno_anywhere: bool = True
    library: str = SONAME


_RUNC_ARCHITECTURES = frozenset(ABIS) - {
    f"SCMP_ARCH_{name}" for name in ("LOONGARCH64", "PARISC", "PARISC64", "M68K", "SH", "SHEB")
}

RUNC = RuntimeModel("runc", _RUNC_ARCHITECTURES, tree_above=32, stub=True, listener=False)
"""runc from 1.2 on."""


def runc_model(version: tuple[int, ...]) -> RuntimeModel:
    """runc as it was in that version: 1.1.3 gave s390 its rule, 1.2 brought the tree and the stub's native architecture, 1.5
    knows LoongArch."""
    model = RUNC
    if version < (1, 2):
        model = replace(model, tree_above=None, stub_native=False, stub_s390_setup=version >= (1, 1, 3))
    if version >= (1, 5):
        model = replace(model, architectures=model.architectures | {"SCMP_ARCH_LOONGARCH64"})
    return model


CRUN = RuntimeModel("crun", frozenset(ABIS), most_args=6, default_errno_anywhere=False)
"""crun up to 1.28: libseccomp's program as it is."""

RUNTIMES = {model.name: model for model in (RUNC, CRUN)}

_VALUES = {
    Action.KILL: RET_KILL_THREAD, Action.KILL_THREAD: RET_KILL_THREAD, Action.KILL_PROCESS: RET_KILL_PROCESS,
    Action.TRAP: RET_TRAP, Action.ERRNO: RET_ERRNO, Action.TRACE: RET_TRACE, Action.LOG: RET_LOG, Action.ALLOW: RET_ALLOW,
    Action.NOTIFY: RET_USER_NOTIF,
}  # fmt: skip
_EPERM = 1


def value_of(action: Action, errno_ret: int | None) -> int:
    """The return value that runtimes make of an action: EPERM where ERRNO or TRACE has no errno, and none beside others."""
    value = _VALUES[action]
    if action in (Action.ERRNO, Action.TRACE):
        return value | (_EPERM if errno_ret is None else errno_ret & 0xFFFF)
    return value


def abis_of_filter(profile: Profile, native: Abi) -> tuple[Abi, ...]:
    """The ABIs that a profile's filter knows: the native one always, first."""
    return tuple(dict.fromkeys((native, *(ABIS[name] for name in profile.architectures))))


def conditions(args: tuple[Arg, ...], most: int | None = None) -> Iterator[tuple[Arg, ...]]:
    """The conditions of a rule as runtimes hand them to libseccomp: all at once, or, where two are on one argument, each alone,
    so that any of them is enough."""
    read = args[:most]
    if len({arg.index for arg in read}) == len(read):
        yield read
    else:
        for arg in read:
            yield (arg,)


def compile_profile(profile: Profile, native: Abi, *, runtime: RuntimeModel = RUNC) -> Program:
    """The program that the kernel gets when this runtime starts a container with this profile.

    :param native: the machine's own ABI; for another machine than this one libseccomp makes what it would make there
    :raises CompileError: where the runtime would refuse the profile, or libseccomp does
    """
    _refuse(profile, runtime)
    scmp = library(runtime.library)
    default = value_of(profile.default_action, profile.default_errno_ret)
    abis = abis_of_filter(profile, native)
    with scmp.filter(default, abis) as filter_:
        if runtime.tree_above is not None and sum(len(rule.names) for rule in profile.syscalls) > runtime.tree_above:
            filter_.optimize(2)
        for rule in profile.syscalls:
            action = value_of(rule.action, rule.errno_ret)
            if action == default:
                continue
            alternatives = tuple(conditions(rule.args, runtime.most_args))
            for name in rule.names:
                number = scmp.known(name)
                if number is not None:
                    for args in alternatives:
                        filter_.add(action, number, args, name)
        exported = filter_.export()
    program = decode(exported, little_endian=native.little_endian)
    if native.little_endian != HOST_LITTLE_ENDIAN:
        program = _turned_back(
            program, {default, *(value_of(rule.action, rule.errno_ret) for rule in profile.syscalls)}
        )
    if runtime.stub and wants_stub(profile):
        listed = tuple(dict.fromkeys(ABIS[name] for name in profile.architectures))
        stubbed = tuple(dict.fromkeys((*listed, native))) if runtime.stub_native else listed
        names = (name for rule in profile.syscalls for name in rule.names)
        highest = highest_numbers(names, stubbed, scmp.resolve_on)
        program = stub(highest, s390_setup=runtime.stub_s390_setup) + program
    return program


def _turned_back(program: Program, values: set[int]) -> Program:
    """What a machine of the other byte order would have made.

    Where libseccomp repeats a return closer to a jump, it swaps the bytes of a value that has been swapped already
    (``_gen_bpf_build_jmp_ret`` in ``src/gen_bpf.c``), which shows only when it compiles for the other byte order.

    :param values: those that the filter can return, but for 0 on an unknown architecture
    """
    twice = {int.from_bytes(value.to_bytes(4, "big"), "little"): value for value in values}
    return tuple(
        line._replace(k=twice[line.k]) if line.code == op.RET_K and line.k in twice and line.k not in values else line
        for line in program
    )


def _refuse(profile: Profile, runtime: RuntimeModel) -> None:
    for name in profile.architectures:
        if name not in runtime.architectures:
            raise CompileError(f"{runtime.name} does not know the architecture {name}")
    if not runtime.listener:
        if profile.default_action is Action.NOTIFY:
            raise CompileError(f"{runtime.name} does not take SCMP_ACT_NOTIFY as the default action")
        for rule in profile.syscalls:
            if rule.action is Action.NOTIFY and "write" in rule.names:
                raise CompileError(f"{runtime.name} does not take SCMP_ACT_NOTIFY for write: it needs the call itself")
    if not runtime.default_errno_anywhere:
        for where, action, code in (
            ("defaultErrnoRet", profile.default_action, profile.default_errno_ret),
            *((f"syscalls[{n}].errnoRet", rule.action, rule.errno_ret) for n, rule in enumerate(profile.syscalls)),
        ):
            if code is not None and action not in (Action.ERRNO, Action.TRACE):
                raise CompileError(f"{runtime.name} does not take {where} {code} beside {action}")
