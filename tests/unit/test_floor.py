"""A floor promises only what it can keep."""

from __future__ import annotations

import errno
import socket

import pytest

from seccomp_floor.errors import InputError
from seccomp_floor.floor import FAMILIES, PAIRED, Floor


def test_the_built_in_floor() -> None:
    floor = Floor()
    assert floor.numbers == (38, 40)
    assert floor.family_errno == errno.EAFNOSUPPORT
    assert not floor.denies_pairs


def test_numbers_come_in_the_owners_order_and_once() -> None:
    assert Floor(families=("AF_VSOCK", "AF_ALG", "AF_VSOCK")).numbers == (40, 38)
    assert Floor(families=()).numbers == ()


@pytest.mark.parametrize(
    ("families", "remedy"),
    [
        (("AF_INET",), "AF_INET6 to be denied as well: IPV6_ADDRFORM"),
        (("AF_PACKET",), "AF_INET to be denied as well.*CAP_NET_RAW"),
        (("AF_PACKET", "AF_INET6"), "AF_INET to be denied as well"),
        (("AF_PACKET", "AF_INET"), "AF_INET6 to be denied as well"),
        (("AF_SMC",), "AF_INET and AF_INET6 to be denied as well"),
        (("AF_SMC", "AF_INET6"), "AF_INET and AF_INET6"),
        (("AF_ALG", "AF_NONE"), "the name of a socket family"),
        (("af_alg",), "the name of a socket family"),
        (("AF_LOCAL",), "the name of a socket family"),
    ],
)
def test_a_family_that_could_still_be_had(families: tuple[str, ...], remedy: str) -> None:
    with pytest.raises(InputError, match=remedy) as caught:
        Floor(families=families)
    assert caught.value.where == "floor.socketFamilies.deny"


@pytest.mark.parametrize(
    "families",
    [
        ("AF_INET6",),
        ("AF_INET", "AF_INET6"),
        ("AF_INET6", "AF_PACKET", "AF_INET"),
        ("AF_SMC", "AF_INET", "AF_INET6"),
    ],
)
def test_a_family_denied_with_its_other_names(families: tuple[str, ...]) -> None:
    assert set(Floor(families=families).numbers) == {FAMILIES[name] for name in families}


@pytest.mark.parametrize(
    ("name", "multiplexer"),
    [
        ("socket", "socketcall"),
        ("socketpair", "socketcall"),
        ("connect", "socketcall"),
        ("accept4", "socketcall"),
        ("recvmmsg", "socketcall"),
        ("shmat", "ipc"),
        ("semtimedop", "ipc"),
        ("msgget", "ipc"),
    ],
)
def test_a_call_that_32_bit_programs_reach_through_another(name: str, multiplexer: str) -> None:
    with pytest.raises(InputError, match=f"{multiplexer} to be named as well") as caught:
        Floor(syscalls=((name, errno.EPERM),))
    assert caught.value.where == "floor.syscalls"
    both = ((name, errno.EPERM), (multiplexer, errno.EPERM))
    assert Floor(syscalls=both).syscalls == both


def test_other_calls_need_no_companion() -> None:
    """Among them those whose multiplexer takes no such call."""
    calls = tuple((name, errno.EPERM) for name in ("keyctl", "bpf", "socketcall", "ipc", "read"))
    assert Floor(syscalls=calls).syscalls == calls


def test_families_with_pairs() -> None:
    for name, number in FAMILIES.items():
        if name not in {"AF_INET", "AF_PACKET", "AF_SMC"}:
            assert Floor(families=(name,)).denies_pairs == (number in PAIRED)


def test_the_kernel_agrees_about_pairs() -> None:
    """For families that every kernel has loaded."""
    assert socket.AF_UNIX in PAIRED
    left, right = socket.socketpair(socket.AF_UNIX)
    left.close()
    right.close()
    for family in (socket.AF_INET, socket.AF_NETLINK):
        assert family not in PAIRED
        with pytest.raises(OSError, match="not supported"):
            socket.socketpair(family, socket.SOCK_DGRAM)
