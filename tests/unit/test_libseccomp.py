"""The binding to libseccomp."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from seccomp_floor.abi import ABIS, abi_named
from seccomp_floor.bpf.libseccomp import SONAME, CompileError, Library, library, name_of, resolve

X86_64, X86, X32, S390X = map(abi_named, ("x86_64", "x86", "x32", "s390x"))
KNOWN_SINCE_2_6 = {"loongarch64", "m68k", "sh", "sheb"}


def test_version_and_identity() -> None:
    assert library() is library(SONAME)
    assert library().version >= (2, 5, 0)


@pytest.mark.parametrize(
    "abi", [abi for abi in ABIS.values() if abi.short not in KNOWN_SINCE_2_6], ids=lambda a: a.short
)
def test_numbers_of_the_doors_are_libseccomps(abi: object) -> None:
    """The table of ABIs was written down by hand; libseccomp's was generated from the kernel's."""
    assert isinstance(abi, type(X86_64))
    assert resolve("socket", abi) == abi.socket
    assert resolve("socketpair", abi) == abi.socketpair
    assert resolve("socketcall", abi) == abi.socketcall
    names = ("io_uring_setup", "io_uring_enter", "io_uring_register")
    assert tuple(resolve(name, abi) for name in names) == abi.io_uring


def test_a_multiplexed_call_has_its_own_number() -> None:
    """libseccomp gives ``socket`` on x86 a negative one, for both ways at once."""
    assert library().resolve_on("socket", X86) < 0
    assert resolve("socket", X86) == 359
    assert resolve("semop", X86) is None  # 32-bit x86 has it behind ipc only


def test_calls_that_an_abi_lacks() -> None:
    assert resolve("socketcall", X86_64) is None
    assert resolve("no_such_call", X86_64) is None
    assert library().known("no_such_call") is None
    assert (library().known("socketcall") or 0) < 0  # elsewhere there is one


def test_names_of_numbers() -> None:
    assert name_of(41, X86_64) == "socket"
    assert name_of(X32.base + 41, X32) == "socket"
    assert name_of(102, S390X) == "socketcall"
    assert name_of(400_000, X86_64) is name_of(-1, X86_64) is name_of(0xFFFF_FFFF, X86_64) is None
    names = library().names(X86)
    assert names["socket"] == 359
    assert "socketcall" in names
    assert "no_such_call" not in names


def test_a_library_that_is_not_there() -> None:
    with pytest.raises(CompileError, match=r"cannot load /nowhere/libseccomp.so.2.*Install libseccomp 2.5 or newer"):
        Library("/nowhere/libseccomp.so.2")


def test_an_architecture_that_the_library_does_not_know() -> None:
    strange = ABIS["SCMP_ARCH_X86_64"]
    strange = type(strange)("SCMP_ARCH_STRANGE", 0x1234, 0x1234, True, 0, 1, 2, None)
    with (
        pytest.raises(CompileError, match="cannot add the architecture SCMP_ARCH_STRANGE"),
        library().filter(0, (X86_64, strange)),
    ):
        pass


def test_a_default_that_is_no_action() -> None:
    with pytest.raises(CompileError, match="0x12340000 as the default"), library().filter(0x1234_0000, (X86_64,)):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_node_whose_user_has_many_pipes(tmp_path: Path) -> None:
    """Each container has some. Beyond the user's share the kernel makes them small, and only who is privileged may enlarge one."""
    program = textwrap.dedent("""
        import os
        os.setresgid(60001, 60001, 60001)
        os.setgroups([])
        os.setresuid(60001, 60001, 60001)
        limit = int(open("/proc/sys/fs/pipe-user-pages-soft").read())
        pipes = [os.pipe() for _ in range(limit // 16 + 8)]
        from seccomp_floor.abi import this_machine
        from seccomp_floor.bpf.compile import compile_profile
        from seccomp_floor.reconcile.hardened import hardened_profile
        print(len(compile_profile(hardened_profile(this_machine()), this_machine())))
    """)
    command = [sys.executable, "-c", "import resource, seccomp_floor.reconcile.hardened, seccomp_floor.bpf.compile\n"
               "resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))\n" + program]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 300
