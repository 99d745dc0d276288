"""``seccomp-floor reconcile`` as it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWS_SOCKETS = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "syscalls": [{"names": ["read", "write", "openat2", "socket"], "action": "SCMP_ACT_ALLOW"}],
}


def called(*arguments: str, data: object = None, arch: str = "x86_64") -> subprocess.CompletedProcess[str]:
    """Call the command. :param data: goes to stdin as JSON, text as it is"""
    given = data if isinstance(data, str) else json.dumps(data)
    command = (sys.executable, "-m", "seccomp_floor.cli", "reconcile", "--arch", arch, *arguments)
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=120, text=True)


def proven(section: object) -> int:
    """The exit code of ``prove`` for a section."""
    command = (sys.executable, "-m", "seccomp_floor.cli", "prove", "--arch", "x86_64", "-")
    return subprocess.run(command, input=json.dumps(section).encode(), capture_output=True, check=False).returncode


def test_a_section_on_stdout(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(ALLOWS_SOCKETS))
    done = called(str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert proven(ALLOWS_SOCKETS) == 1
    assert proven(json.loads(done.stdout)) == 0
    assert called("-", data=ALLOWS_SOCKETS).stdout == done.stdout


def test_a_section_of_a_section_is_itself() -> None:
    once = called("-", data=ALLOWS_SOCKETS).stdout
    assert called("-", data=once).stdout == once


def test_a_container_without_a_profile() -> None:
    section = json.loads(called().stdout)
    assert section["defaultAction"] == "SCMP_ACT_ALLOW"
    assert section["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert proven(section) == 0


def test_the_policy_counts(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("floor: {socketFamilies: {deny: []}}\n")
    assert called("--config", str(policy)).stdout == "null\n"
    policy.write_text("apply: {noProfile: hardened}\n")
    assert json.loads(called("--config", str(policy)).stdout)["defaultAction"] == "SCMP_ACT_ERRNO"


def test_rules_before_and_after_with_the_reason() -> None:
    lines = called("--diff", "-", data=ALLOWS_SOCKETS).stdout.splitlines()
    assert any(line.startswith("socket: AF_ALG and AF_VSOCK are denied") for line in lines)
    words = " ".join(" ".join(lines).split())
    assert "socket: ALLOW" in words
    assert "0xffffffff == 0x1" in words
    unchanged = {**ALLOWS_SOCKETS, "syscalls": []}
    assert called("--diff", "-", data=unchanged).stdout == "the profile holds the floor already: it stays as it is\n"


def test_json_for_machines() -> None:
    answer = json.loads(called("--json", "-", data=ALLOWS_SOCKETS).stdout)
    assert answer["closed"] is answer["exact"] is True
    assert answer["differences"] == []
    assert answer["section"] == json.loads(called("-", data=ALLOWS_SOCKETS).stdout)
    assert {"reason", "before", "after"} == set(answer["changes"][0])


def test_what_differs_is_said() -> None:
    """The default's errno does not arrive through NRI, and numbers that no call has cannot be named."""
    given = {**ALLOWS_SOCKETS, "defaultErrnoRet": 38, "syscalls": [*ALLOWS_SOCKETS["syscalls"]]}
    done = called("--nri", "-", data=given)
    assert done.returncode == 0
    assert "seccomp-floor: not exact: x86_64 335 to 423" in done.stderr
    assert "expected ERRNO(ENOSYS), got ERRNO(EPERM)" in done.stderr


def test_other_machines_and_runtimes() -> None:
    section = json.loads(called(arch="SCMP_ARCH_S390X").stdout)
    assert section["architectures"] == ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]
    assert called("--runtime", "crun", "-", data=ALLOWS_SOCKETS).returncode == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "JSON"),
        ([], "an object"),
        ({"defaultAction": "ALLOW"}, "stdin.defaultAction: expected one of"),
        ({**ALLOWS_SOCKETS, "archMap": []}, "linux.seccomp of the container's config.json"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": [], "includes": {}}]}, "Docker's or Podman's own"),
        ({"ociVersion": "1.2.0"}, "its linux.seccomp alone"),
        ({**ALLOWS_SOCKETS, "architectures": ["SCMP_ARCH_PARISC"]}, "runc does not know the architecture"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "NOTIFY as the default action"),
    ],
)
def test_wrong_questions(data: object, message: str) -> None:
    """One line that says what is wrong, exit code 2, and nothing on stdout."""
    done = called("-", data=data)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_not_there() -> None:
    done = called("/nowhere/profile.json")
    assert done.returncode == 2
    assert "/nowhere/profile.json" in done.stderr
