"""The ``linux.seccomp`` section of an OCI spec as typed values: read strictly, written faithfully.

Names and meanings are those of runtime-spec, ``config-linux.md#seccomp``. Reading refuses what a runtime would misunderstand in
silence (an unknown key, a number that does not fit); what it accepts it writes back as it was, order and absent fields included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from seccomp_floor.abi import ABIS
from seccomp_floor.errors import InputError

__all__ = ["Action", "Arg", "Operator", "Profile", "Syscall", "as_nri_delivers", "parse_profile", "write_profile"]

EPERM = 1
U32, U64 = (1 << 32) - 1, (1 << 64) - 1


class Action(StrEnum):
    """What a filter answers (seccomp(2)). KILL is KILL_THREAD's older name."""

    KILL = "SCMP_ACT_KILL"
    KILL_PROCESS = "SCMP_ACT_KILL_PROCESS"
    KILL_THREAD = "SCMP_ACT_KILL_THREAD"
    TRAP = "SCMP_ACT_TRAP"
    ERRNO = "SCMP_ACT_ERRNO"
    TRACE = "SCMP_ACT_TRACE"
    ALLOW = "SCMP_ACT_ALLOW"
    LOG = "SCMP_ACT_LOG"
    NOTIFY = "SCMP_ACT_NOTIFY"

    @property
    def denies(self) -> bool:
        """Whether the call is not made. TRACE and NOTIFY can be answered with "continue": they do not deny."""
        return self in _DENYING


_DENYING = frozenset({Action.KILL, Action.KILL_PROCESS, Action.KILL_THREAD, Action.TRAP, Action.ERRNO})


class Operator(StrEnum):
    """How an argument is compared (seccomp_rule_add(3)); every comparison is unsigned, over 64 bits."""

    NE = "SCMP_CMP_NE"
    LT = "SCMP_CMP_LT"
    LE = "SCMP_CMP_LE"
    EQ = "SCMP_CMP_EQ"
    GE = "SCMP_CMP_GE"
    GT = "SCMP_CMP_GT"
    MASKED_EQ = "SCMP_CMP_MASKED_EQ"


@dataclass(frozen=True, slots=True)
class Arg:
    """A condition on one argument. For ``MASKED_EQ``, ``value`` is the mask and ``value_two`` what must remain."""

    index: int
    value: int
    op: Operator
    value_two: int = 0


@dataclass(frozen=True, slots=True)
class Syscall:
    """A rule: these names, under these conditions (all of them, or any where two share an argument), get this action."""

    names: tuple[str, ...]
    action: Action
    errno_ret: int | None = None
    args: tuple[Arg, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole section. ``flags`` None: absent, which runtimes read otherwise than an empty list."""

    default_action: Action
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] | None = None
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[Syscall, ...] = ()


def parse_profile(value: object, where: str = "linux.seccomp") -> Profile:
    """Read a section from decoded JSON.

    :param where: how errors name the section
    :raises InputError: naming the first value that is not what runtime-spec says
    """
    section = _object(value, where, _PROFILE_KEYS)
    if "defaultAction" not in section:
        raise InputError(f"{where}.defaultAction", None, "an action: the section has no default")
    return Profile(
        default_action=_enum(Action, section["defaultAction"], f"{where}.defaultAction"),
        default_errno_ret=_errno(section, "defaultErrnoRet", where),
        architectures=tuple(
            _architecture(name, f"{where}.architectures[{n}]")
            for n, name in enumerate(_array(section.get("architectures"), f"{where}.architectures"))
        ),
        flags=None
        if section.get("flags") is None
        else tuple(
            _string(flag, f"{where}.flags[{n}]") for n, flag in enumerate(_array(section["flags"], f"{where}.flags"))
        ),
        listener_path=_text(section, "listenerPath", where),
        listener_metadata=_text(section, "listenerMetadata", where),
        syscalls=tuple(
            _syscall(rule, f"{where}.syscalls[{n}]")
            for n, rule in enumerate(_array(section.get("syscalls"), f"{where}.syscalls"))
        ),
    )


def as_nri_delivers(profile: Profile) -> Profile:
    """What arrives in a container's spec of a section that goes there as an NRI adjustment.

    Up to NRI 0.12 the default errno does not (``AdjustSeccompPolicy`` in ``pkg/runtime-tools/generate``): the default becomes
    EPERM, and a rule that differed from the default by its errno alone may no longer differ. Nor does an empty list of flags,
    which is left out; OCI runtimes then add flags of their own.
    """
    return replace(profile, default_errno_ret=None, flags=profile.flags or None)


def write_profile(profile: Profile) -> dict[str, Any]:
    """The section as JSON values, in runtime-spec's order of keys; what was absent stays absent."""
    section: dict[str, Any] = {"defaultAction": str(profile.default_action)}
    if profile.default_errno_ret is not None:
        section["defaultErrnoRet"] = profile.default_errno_ret
    if profile.architectures:
        section["architectures"] = list(profile.architectures)
    if profile.flags is not None:
        section["flags"] = list(profile.flags)
    if profile.listener_path:
        section["listenerPath"] = profile.listener_path
    if profile.listener_metadata:
        section["listenerMetadata"] = profile.listener_metadata
    if profile.syscalls:
        section["syscalls"] = [_write_syscall(rule) for rule in profile.syscalls]
    return section


def _write_syscall(rule: Syscall) -> dict[str, Any]:
    written: dict[str, Any] = {"names": list(rule.names), "action": str(rule.action)}
    if rule.errno_ret is not None:
        written["errnoRet"] = rule.errno_ret
    if rule.args:
        written["args"] = [
            {"index": arg.index, "value": arg.value}
            | ({"valueTwo": arg.value_two} if arg.value_two else {})
            | {"op": str(arg.op)}
            for arg in rule.args
        ]
    return written


_PROFILE_KEYS = frozenset(
    {
        "defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls",
    }
)  # fmt: skip
_SYSCALL_KEYS = frozenset({"names", "action", "errnoRet", "args"})
_ARG_KEYS = frozenset({"index", "value", "valueTwo", "op"})


def _syscall(value: object, where: str) -> Syscall:
    rule = _object(value, where, _SYSCALL_KEYS)
    return Syscall(
        names=tuple(
            _name(name, f"{where}.names[{n}]") for n, name in enumerate(_array(rule.get("names"), f"{where}.names"))
        ),
        action=_enum(Action, rule.get("action"), f"{where}.action"),
        errno_ret=_errno(rule, "errnoRet", where),
        args=tuple(_arg(arg, f"{where}.args[{n}]") for n, arg in enumerate(_array(rule.get("args"), f"{where}.args"))),
    )


def _arg(value: object, where: str) -> Arg:
    arg = _object(value, where, _ARG_KEYS)
    return Arg(
        index=_integer(arg.get("index"), f"{where}.index", 5),
        value=_integer(arg.get("value", 0), f"{where}.value", U64),
        op=_enum(Operator, arg.get("op"), f"{where}.op"),
        value_two=_integer(arg.get("valueTwo", 0), f"{where}.valueTwo", U64),
    )


def _object(value: object, where: str, keys: frozenset[str]) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InputError(where, value, "an object")
    for key in value:
        if key not in keys:
            raise InputError(where, key, f"only the keys {', '.join(sorted(keys))} of runtime-spec")
    return value


def _array(value: object, where: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(where, value, "an array")
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(where, value, "a string")
    return value


def _text(holder: Mapping[str, object], key: str, where: str) -> str:
    value = holder.get(key)
    return "" if value is None else _string(value, f"{where}.{key}")


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value or not value.isascii():
        raise InputError(where, value, "the name of a system call")
    return value


_E = TypeVar("_E", Action, Operator)


def _enum(kind: type[_E], value: object, where: str) -> _E:
    if isinstance(value, str):
        member = kind._value2member_map_.get(value)
        if isinstance(member, kind):
            return member
    raise InputError(where, value, f"one of {', '.join(kind)}")


def _architecture(value: object, where: str) -> str:
    if not isinstance(value, str) or value not in ABIS:
        raise InputError(where, value, f"one of {', '.join(ABIS)}")
    return value


def _integer(value: object, where: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InputError(where, value, f"an integer from 0 to {most}")
    return value


def _errno(holder: Mapping[str, object], key: str, where: str) -> int | None:
    value = holder.get(key)
    return None if value is None else _integer(value, f"{where}.{key}", 0xFFFF)
