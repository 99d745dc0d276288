"""What a floor denies, ABI by ABI, call by call."""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOSYS, EPERM

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seccomp_floor.abi import ABIS, Abi, abi_named
from seccomp_floor.doors import MODULE_LOAD, Door, doors, floor_answer, require_known
from seccomp_floor.errors import InputError
from seccomp_floor.floor import Floor

X86_64, X86, X32 = map(abi_named, ("x86_64", "x86", "x32"))
WORD = st.integers(0, (1 << 64) - 1)


def none(_name: str, _abi: Abi) -> int | None:
    return None


def shown(floor: Floor, abi: Abi) -> list[tuple[str, str, int, int | None, int, bool]]:
    return [
        (door.name, door.opens, door.number, door.value, door.errno, door.denied) for door in doors(floor, abi, none)
    ]


def test_the_doors_of_a_64_bit_abi() -> None:
    assert shown(Floor(), X86_64) == [
        ("socket", "AF_ALG", 41, 38, EAFNOSUPPORT, True),
        ("socketpair", "AF_ALG", 53, 38, EAFNOSUPPORT, True),
        ("socket", "AF_VSOCK", 41, 40, EAFNOSUPPORT, True),
        ("socketpair", "AF_VSOCK", 53, 40, EAFNOSUPPORT, True),
        ("io_uring_setup", "any socket", 425, None, ENOSYS, True),
        ("io_uring_enter", "any socket", 426, None, ENOSYS, True),
        ("io_uring_register", "any socket", 427, None, ENOSYS, True),
    ]


def test_x32_has_them_under_numbers_of_its_own() -> None:
    numbers = {door.number for door in doors(Floor(), X32, none)}
    assert numbers == {0x4000_0000 | number for number in (41, 53, 425, 426, 427)}


def test_a_multiplexing_abi_has_two_more() -> None:
    """Behind socketcall the family is out of sight."""
    assert [door for door in shown(Floor(), X86) if door[0].startswith("socketcall")] == [
        ("socketcall(SYS_SOCKET)", "any socket", 102, 1, ENOSYS, True),
        ("socketcall(SYS_SOCKETPAIR)", MODULE_LOAD, 102, 8, ENOSYS, False),
    ]


@pytest.mark.parametrize("abi", ABIS.values(), ids=lambda abi: abi.short)
def test_every_multiplexer_is_a_door(abi: Abi) -> None:
    numbers = [door.number for door in doors(Floor(), abi, none)]
    assert numbers.count(-1 if abi.socketcall is None else abi.socketcall) == (0 if abi.socketcall is None else 2)


@pytest.mark.parametrize("family", ["AF_UNIX", "AF_TIPC"])
def test_pairs_are_denied_behind_socketcall_where_the_family_hands_them_out(family: str) -> None:
    call = ("socketcall(SYS_SOCKETPAIR)", "any pair", 102, 8, ENOSYS)
    assert (*call, True) in shown(Floor(families=(family,)), X86)
    assert (*call, False) in shown(Floor(families=(family,), socketcall=False), X86)


def test_what_the_policy_leaves_open_is_a_door_that_answers_nothing() -> None:
    found = doors(Floor(socketcall=False, io_uring=False), X86, none)
    assert {door.name for door in found if not door.denied} == {
        "socketcall(SYS_SOCKET)", "socketcall(SYS_SOCKETPAIR)", "io_uring_setup", "io_uring_enter", "io_uring_register",
    }  # fmt: skip
    for number, args in ((102, (1, 0, 0, 0, 0, 0)), (425, (0,) * 6)):
        assert floor_answer(found, number, args) is None


def test_without_families_there_is_nothing_to_open() -> None:
    assert doors(Floor(families=()), X86, none) == ()


def test_further_calls_come_first_and_only_where_the_abi_has_them() -> None:
    def resolve(name: str, abi: Abi) -> int | None:
        return {"bpf": 357, "socketcall": 102, "socket": 359}.get(name) if abi is X86 else None

    floor = Floor(syscalls=(("bpf", ENOSYS), ("socket", EPERM), ("socketcall", EPERM)))
    assert doors(floor, X86_64, resolve) == doors(Floor(), X86_64, none)
    found = doors(floor, X86, resolve)
    assert [door.name for door in found[:3]] == ["bpf", "socket", "socketcall"]
    assert floor_answer(found, 357, (7,) * 6) == ENOSYS
    assert floor_answer(found, 359, (38, 0, 0, 0, 0, 0)) == EPERM
    assert floor_answer(found, 359, (2, 0, 0, 0, 0, 0)) == EPERM
    assert [floor_answer(found, 102, (call, 0, 0, 0, 0, 0)) for call in (1, 3, 8)] == [EPERM] * 3
    assert floor_answer(found, 360, (38, 0, 0, 0, 0, 0)) == EAFNOSUPPORT


def test_a_family_named_twice_is_one_door() -> None:
    assert shown(Floor(families=("AF_ALG", "AF_ALG")), X86_64) == shown(Floor(families=("AF_ALG",)), X86_64)


@given(
    family=st.sampled_from([1, 2, 37, 38, 39, 40, 41]) | st.integers(0, 0xFFFF_FFFF),
    high=st.integers(0, 0xFFFF_FFFF),
    rest=st.tuples(*[WORD] * 5),
)
@example(family=40, high=1, rest=(1, 0, 0, 0, 0))
def test_only_the_low_half_of_a_family_counts(family: int, high: int, rest: tuple[int, ...]) -> None:
    """The kernel takes an int, whatever stands above it in the register."""
    found = doors(Floor(), X86_64, none)
    expected = EAFNOSUPPORT if family in (38, 40) else None
    for number in (X86_64.socket, X86_64.socketpair):
        assert floor_answer(found, number, (high << 32 | family, *rest)) == expected
    assert floor_answer(found, X86_64.socket + 1, (high << 32 | family, *rest)) is None


@given(call=st.integers(0, 22), high=st.integers(0, 0xFFFF_FFFF), rest=st.tuples(*[WORD] * 5))
@example(call=1, high=0xFFFF_FFFF, rest=(0,) * 5)
def test_only_the_low_half_of_a_multiplexed_call_counts(call: int, high: int, rest: tuple[int, ...]) -> None:
    found = doors(Floor(), X86, none)
    assert floor_answer(found, 102, (high << 32 | call, *rest)) == (ENOSYS if call == 1 else None)


def test_the_first_door_answers() -> None:
    twice = [Door("a", "x", X86_64, 5, 1), Door("b", "x", X86_64, 5, 2, argument=3, value=7)]
    assert floor_answer(twice, 5, (0, 0, 0, 7, 0, 0)) == 1
    assert floor_answer(reversed(twice), 5, (0, 0, 0, 7, 0, 0)) == 2
    assert floor_answer(reversed(twice), 5, (7, 7, 7, 8, 7, 7)) == 1


def test_a_name_that_no_abi_has_would_deny_nothing_in_silence() -> None:
    def known(name: str, abi: Abi) -> int | None:
        return 26 if (name, abi) == ("s390_runtime_instr", abi_named("s390x")) else None

    require_known(Floor(syscalls=(("s390_runtime_instr", EPERM),)), known)
    with pytest.raises(InputError, match=r"floor\.syscalls: expected the name of a system call .*, got 'kyectl'"):
        require_known(Floor(syscalls=(("kyectl", EPERM),)), known)
