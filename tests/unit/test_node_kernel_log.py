"""The kernel's records, as it writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seccomp_floor.abi import ABIS
from seccomp_floor.node.kernel_log import LoggedCall, parse_record

RECORD = (
    'audit(1795492127.946:178836): auid=4294967295 uid=0 gid=0 ses=4294967295 pid={pid} comm={comm} exe="/probe" '
    "sig=0 arch={arch} syscall={number} compat=0 ip=0x7f458b4ca829 code={code}"
)


def record(**changes: object) -> str:
    """A record of `socket` from an x86_64 process."""
    fields = {"pid": 17153, "comm": '"probe"', "arch": "c000003e", "number": 41, "code": "0x7ffc0000"}
    return RECORD.format(**fields | changes)


@pytest.mark.parametrize(
    ("changes", "abi", "number"),
    [
        ({}, "X86_64", 41),
        ({"arch": "40000003", "number": 102}, "X86", 102),
        ({"number": 0x40000029}, "X32", 0x40000029),
        ({"arch": "c00000b7", "number": 198}, "AARCH64", 198),
    ],
)
def test_who_made_which_call(changes: dict[str, object], abi: str, number: int) -> None:
    """The ABI by arch, and x32 by a bit of the number."""
    assert parse_record(record(**changes)) == LoggedCall(17153, ABIS[f"SCMP_ARCH_{abi}"], number)


def test_a_line_of_the_kernel_s_log_is_read_as_well() -> None:
    """/dev/kmsg puts something in front."""
    assert parse_record(f"5,548,4915114162,-;audit: type=1326 {record()}\n") is not None


@pytest.mark.parametrize("code", ["0x0", "0x80000000", "0x50001", "0x7fff0000", "nonsense"])
def test_other_actions_are_not_uses(code: str) -> None:
    """What was killed or refused has not gone through."""
    assert parse_record(record(code=code)) is None


def test_a_name_with_spaces_is_one_word() -> None:
    """The kernel writes such a name in hexadecimal, so that a process cannot choose its other fields."""
    name = b"x pid=1 syscall=2".hex().upper()
    assert parse_record(record(comm=name)) == LoggedCall(17153, ABIS["SCMP_ARCH_X86_64"], 41)


@given(st.text())
def test_any_text_is_a_record_or_none(text: str) -> None:
    """Never an error."""
    parse_record(text)
    parse_record(record(pid=text, number=text))
