"""Sections of an OCI spec: what is accepted comes out as it went in, and everything else is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seccomp_floor.errors import InputError
from seccomp_floor.profile import Action, Arg, Operator, Profile, Syscall, parse_profile, write_profile

# All that a section can hold, in runtime-spec's order.
WHOLE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
    "listenerPath": "/run/agent.sock",
    "listenerMetadata": "pod=ü",
    "syscalls": [
        {"names": ["write", "read", "write"], "action": "SCMP_ACT_ALLOW"},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 0,
            "args": [
                {"index": 0, "value": 18446744073709551615, "valueTwo": 38, "op": "SCMP_CMP_MASKED_EQ"},
                {"index": 0, "value": 0, "op": "SCMP_CMP_GE"},
            ],
        },
        {"names": ["socket"], "action": "SCMP_ACT_NOTIFY"},
        {"names": [], "action": "SCMP_ACT_LOG"},
    ],
}


def test_a_whole_section() -> None:
    assert parse_profile(WHOLE) == Profile(
        default_action=Action.ERRNO,
        default_errno_ret=38,
        architectures=("SCMP_ARCH_X86", "SCMP_ARCH_X86_64"),
        flags=("SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"),
        listener_path="/run/agent.sock",
        listener_metadata="pod=ü",
        syscalls=(
            Syscall(("write", "read", "write"), Action.ALLOW),
            Syscall(
                ("socket",),
                Action.ERRNO,
                0,
                (Arg(0, (1 << 64) - 1, Operator.MASKED_EQ, 38), Arg(0, 0, Operator.GE)),
            ),
            Syscall(("socket",), Action.NOTIFY),
            Syscall((), Action.LOG),
        ),
    )


def test_it_is_written_as_it_was() -> None:
    """Rules, names, conditions and keys in their order."""
    assert json.dumps(write_profile(parse_profile(WHOLE))) == json.dumps(WHOLE)


def test_absent_flags_are_not_empty_flags() -> None:
    """Runtimes add a flag of theirs where there is no list."""
    absent, empty = ({"defaultAction": "SCMP_ACT_LOG"}, {"defaultAction": "SCMP_ACT_LOG", "flags": []})
    assert parse_profile(absent).flags is None
    assert parse_profile(empty).flags == ()
    assert write_profile(parse_profile(absent)) == absent
    assert write_profile(parse_profile(empty)) == empty


def test_null_is_absent() -> None:
    """As Go reads it, which writes an empty list so."""
    nulls = {key: None for key in WHOLE if key != "defaultAction"}
    assert parse_profile({"defaultAction": "SCMP_ACT_KILL", **nulls}) == Profile(Action.KILL)
    rule = {"names": None, "action": "SCMP_ACT_KILL", "errnoRet": None, "args": None}
    section = {"defaultAction": "SCMP_ACT_KILL", "syscalls": [rule]}
    assert parse_profile(section).syscalls == (Syscall((), Action.KILL),)


# config-linux.md#seccomp
ARCHITECTURES = """
X86 X86_64 X32 ARM AARCH64 LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X SH SHEB
PARISC PARISC64 RISCV64
"""
ACTIONS = "KILL KILL_PROCESS KILL_THREAD TRAP ERRNO TRACE ALLOW LOG NOTIFY"
OPERATORS = "NE LT LE EQ GE GT MASKED_EQ"


def test_every_word_of_runtime_spec() -> None:
    architectures = [f"SCMP_ARCH_{name}" for name in ARCHITECTURES.split()]
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": architectures,
        "syscalls": [
            {
                "names": ["socket"],
                "action": f"SCMP_ACT_{action}",
                "args": [{"index": 5, "value": 1, "op": f"SCMP_CMP_{operator}"} for operator in OPERATORS.split()],
            }
            for action in ACTIONS.split()
        ],
    }
    assert write_profile(parse_profile(section)) == section
    assert [str(action) for action in Action] == [f"SCMP_ACT_{action}" for action in ACTIONS.split()]
    assert [str(operator) for operator in Operator] == [f"SCMP_CMP_{operator}" for operator in OPERATORS.split()]


def test_what_denies() -> None:
    """What lets somebody else answer does not."""
    denying = {Action.KILL, Action.KILL_PROCESS, Action.KILL_THREAD, Action.TRAP, Action.ERRNO}
    assert {action for action in Action if action.denies} == denying


def rule(**changes: object) -> dict[str, object]:
    changed = {"names": ["socket"], "action": "SCMP_ACT_ALLOW"} | changes
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}, changed]}


def condition(**changes: object) -> dict[str, object]:
    return rule(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"} | changes])


@pytest.mark.parametrize(
    ("section", "where"),
    [
        (None, ""),
        ([], ""),
        ("SCMP_ACT_ALLOW", ""),
        ({}, ".defaultAction"),
        ({"defaultAction": None}, ".defaultAction"),
        ({"defaultAction": "SCMP_ACT_allow"}, ".defaultAction"),
        ({"defaultAction": ["SCMP_ACT_ALLOW"]}, ".defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultaction": "SCMP_ACT_KILL"}, ""),
        ({"defaultAction": "SCMP_ACT_ALLOW", "archMap": []}, ""),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": "EPERM"}, ".defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}, ".defaultErrnoRet"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "architectures": "SCMP_ARCH_X86"}, ".architectures"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "x86_64"]}, ".architectures[1]"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "architectures": [None]}, ".architectures[0]"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "flags": "SECCOMP_FILTER_FLAG_LOG"}, ".flags"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "flags": [1]}, ".flags[0]"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": 0}, ".listenerPath"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": False}, ".listenerPath"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "listenerMetadata": {}}, ".listenerMetadata"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}, ".syscalls"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [None]}, ".syscalls[0]"),
        (rule(name="read"), ".syscalls[1]"),
        (rule(names="socket"), ".syscalls[1].names"),
        (rule(names=["read", ""]), ".syscalls[1].names[1]"),
        (rule(names=["soc\0ket"]), ".syscalls[1].names[0]"),
        (rule(names=["sоcket"]), ".syscalls[1].names[0]"),  # noqa: RUF001 (a Cyrillic letter)
        (rule(names=[41]), ".syscalls[1].names[0]"),
        (rule(action=None), ".syscalls[1].action"),
        (rule(errnoRet=-1), ".syscalls[1].errnoRet"),
        (rule(errnoRet=True), ".syscalls[1].errnoRet"),
        (rule(errnoRet=1.0), ".syscalls[1].errnoRet"),
        (rule(args={}), ".syscalls[1].args"),
        (rule(args=[[]]), ".syscalls[1].args[0]"),
        (rule(args=[{}]), ".syscalls[1].args[0].index"),
        (condition(index=6), ".syscalls[1].args[0].index"),
        (condition(index=-1), ".syscalls[1].args[0].index"),
        (condition(index=False), ".syscalls[1].args[0].index"),
        (condition(value=1 << 64), ".syscalls[1].args[0].value"),
        (condition(value="1"), ".syscalls[1].args[0].value"),
        (condition(value=1.0), ".syscalls[1].args[0].value"),
        (condition(valueTwo=-1), ".syscalls[1].args[0].valueTwo"),
        (condition(valuetwo=1), ".syscalls[1].args[0]"),
        (condition(op="=="), ".syscalls[1].args[0].op"),
        (condition(op="SCMP_ACT_ALLOW"), ".syscalls[1].args[0].op"),
    ],
)
def test_what_is_wrong_is_named(section: object, where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_profile(section, "config.json: linux.seccomp")
    assert caught.value.where == "config.json: linux.seccomp" + where


def test_a_misspelt_key_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"expected only the keys action, args, errnoRet, names .*, got 'errnoret'"):
        parse_profile(rule(errnoret=1))
