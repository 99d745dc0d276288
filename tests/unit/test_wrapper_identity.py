"""What a runtime's own word makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from seccomp_floor.bpf.libseccomp import library
from seccomp_floor.errors import InputError
from seccomp_floor.runtime.identity import identify

OURS = ".".join(map(str, library().version))
RUNC = "runc version {}\nspec: 1.2.0\ngo: go1.24.2\nlibseccomp: {}\n"
CRUN = "crun version 1.8.1\ncommit: f8a096be\nrundir: /run/crun\nspec: 1.0.0\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +YAJL\n"


def runtime(directory: Path, says: str) -> str:
    """A program that says this, whatever it is asked."""
    program = directory / "runtime"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{says}END\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("says", "name", "stub_native"),
    [
        (RUNC.format("1.4.0", OURS), "runc", True),
        (RUNC.format("1.2.0-rc.1+dev", OURS), "runc", True),
        (RUNC.format("1.1.5+ds1", OURS), "runc", False),
        (RUNC.format("1.0.3", OURS), "runc", False),
        (CRUN, "crun", True),
    ],
)
def test_known_runtimes(tmp_path: Path, says: str, name: str, stub_native: bool) -> None:
    """By name and version, which decides about runc's stub."""
    model, warning = identify(runtime(tmp_path, says))
    assert (model.name, model.stub_native, warning) == (name, stub_native, None)


def test_another_libseccomp_is_said(tmp_path: Path) -> None:
    """The compiler proven would not be the compiler used."""
    _, warning = identify(runtime(tmp_path, RUNC.format("1.4.0", "2.9.9")))
    assert warning is not None
    assert "2.9.9" in warning
    assert OURS in warning


@pytest.mark.parametrize(
    "says",
    [
        "",
        "youki version 0.4.1\n",
        "runsc version release-20240101.0\n",
        "runc version 1.4.0\nspec: 1.3.0\ngo: go1.26.3\n",
        CRUN.replace("+SECCOMP ", ""),
        "\xff\n" * 1000,
    ],
)
def test_what_is_not_known(tmp_path: Path, says: str) -> None:
    """Other runtimes, and those that were built without seccomp."""
    with pytest.raises(InputError, match="runc or crun, with seccomp"):
        identify(runtime(tmp_path, says))
