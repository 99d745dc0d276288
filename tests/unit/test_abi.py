"""The tables that everything rests on, against those who know: libseccomp, the kernel's headers, the C library."""

from __future__ import annotations

import socket
import subprocess

import pytest

from seccomp_floor.abi import ABIS, BY_AUDIT_ARCH, X32_BIT, Abi, abi_named, abis_of_machine, this_machine
from seccomp_floor.bpf.libseccomp import library
from seccomp_floor.errors import InputError
from seccomp_floor.floor import FAMILIES

SINCE_2_6 = {"loongarch64", "m68k", "sh", "sheb"}
AUDIT_NAMES = {
    "X86": "I386", "X32": "X86_64", "MIPS64N32": "MIPS64N32", "MIPSEL64N32": "MIPSEL64N32", "SH": "SHEL", "SHEB": "SH",
}  # fmt: skip


def defined(header: str) -> dict[str, str]:
    """The macros that a header defines, by the compiler's account."""
    text = subprocess.run(
        ("gcc", "-E", "-dM", "-"),
        input=f"#include <{header}>\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    return {words[1]: words[2] for line in text.splitlines() if len(words := line.split(maxsplit=2)) == 3}


def evaluated(header: str, names: list[str]) -> list[int]:
    """The values of a header's constants, by the compiler's account."""
    program = f"#include <{header}>\n" + "\n".join(f"@{name}" for name in names)
    text = subprocess.run(
        ("gcc", "-E", "-P", "-"), input=program, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    expressions = [line[1:] for line in text.splitlines() if line.startswith("@")]
    assert len(expressions) == len(names)
    return [eval(expression, {"__builtins__": {}}) for expression in expressions]  # noqa: S307 (C's sums are Python's)


def known(abi: Abi) -> bool:
    """Whether the libseccomp at hand knows the ABI."""
    return library().resolve_on("read", abi) >= 0


def test_libseccomp_knows_every_abi_of_its_version() -> None:
    missing = {abi.short for abi in ABIS.values() if not known(abi)}
    assert missing == (set() if library().version >= (2, 6, 0) else SINCE_2_6)


@pytest.mark.parametrize("abi", [abi for abi in ABIS.values() if known(abi)], ids=lambda abi: abi.short)
def test_the_doors_numbers_are_libseccomps(abi: Abi) -> None:
    number = library().number
    assert number("socket", abi) == abi.socket
    assert number("socketpair", abi) == abi.socketpair
    assert number("socketcall", abi) == abi.socketcall
    assert tuple(number(f"io_uring_{name}", abi) for name in ("setup", "enter", "register")) == abi.io_uring
    assert abi.admits(abi.socket)


def test_audit_arch_values_are_the_kernels() -> None:
    names = [abi.name.removeprefix("SCMP_ARCH_") for abi in ABIS.values()]
    values = evaluated("linux/audit.h", [f"AUDIT_ARCH_{AUDIT_NAMES.get(name, name)}" for name in names])
    assert dict(zip(names, values, strict=True)) == dict(
        zip(names, (abi.audit_arch for abi in ABIS.values()), strict=True)
    )


def test_tokens_are_libseccomps() -> None:
    abis = [abi for abi in ABIS.values() if known(abi)]
    assert evaluated("seccomp.h", [abi.name for abi in abis]) == [abi.token for abi in abis]


def test_only_x86_64_and_x32_share_a_value() -> None:
    shared = [abis for abis in BY_AUDIT_ARCH.values() if len(abis) > 1]
    assert shared == [(abi_named("x86_64"), abi_named("x32"))]
    x86_64, x32 = shared[0]
    assert x86_64.admits(41)
    assert not x86_64.admits(41 | X32_BIT)
    assert x32.admits(41 | X32_BIT)
    assert not x32.admits(41)


def test_families_are_the_c_librarys() -> None:
    header = defined("sys/socket.h")
    for name, number in FAMILIES.items():
        value = header[f"PF_{name.removeprefix('AF_')}"]
        while value.startswith("PF_"):  # PF_UNIX is PF_LOCAL
            value = header[value]
        assert int(value) == number, name
    assert int(header["PF_MAX"]) == len(FAMILIES)


def test_families_are_pythons() -> None:
    named = {name: getattr(socket, name) for name in FAMILIES if hasattr(socket, name)}
    assert {"AF_ALG", "AF_VSOCK", "AF_UNIX", "AF_INET", "AF_NETLINK", "AF_TIPC", "AF_CAN"} <= named.keys()
    assert named == {name: FAMILIES[name] for name in named}


@pytest.mark.parametrize("text", ["s390x", "S390X", "SCMP_ARCH_S390X", "scmp_arch_s390x"])
def test_an_abi_by_any_of_its_names(text: str) -> None:
    assert abi_named(text) is ABIS["SCMP_ARCH_S390X"]


def test_an_abi_that_there_is_not() -> None:
    with pytest.raises(
        InputError, match=r"architecture: expected an architecture as runtime-spec names it .*, got 'vax'"
    ):
        abi_named("vax")


def test_a_machine_offers_its_own_abi_first() -> None:
    for native in ABIS.values():
        assert abis_of_machine(native)[0] is native
    assert [abi.short for abi in abis_of_machine(abi_named("x86_64"))] == ["x86_64", "x86", "x32"]
    assert this_machine() in ABIS.values()
