"""``seccomp-floor prove`` as it is called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seccomp_floor.abi import abi_named
from seccomp_floor.bpf.compile import compile_profile
from seccomp_floor.bpf.program import encode
from seccomp_floor.profile import parse_profile

CLOSED = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "syscalls": [{"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"}],
}
OPEN = {
    **CLOSED,
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
    ],
}


def called(*arguments: str, data: bytes | object = b"") -> subprocess.CompletedProcess[str]:
    """Call the command for x86_64. :param data: stdin; values go as JSON"""
    given = data if isinstance(data, bytes) else json.dumps(data).encode()
    command = (sys.executable, "-m", "seccomp_floor.cli", "prove", "--arch", "x86_64", *arguments)
    done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=120)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_closed_profile(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(CLOSED))
    done = called(str(file))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["door", "opens", "x86_64", "x86", "x32"]
    assert ["socket", "AF_VSOCK", "closed", "closed", "closed"] in [line.split() for line in lines]
    assert lines[-1] == "closed"


def test_an_open_profile() -> None:
    done = called("-", data=OPEN)
    assert (done.returncode, done.stderr) == (1, "")
    assert ["socket", "AF_ALG", "OPEN", "closed", "OPEN"] in [line.split() for line in done.stdout.splitlines()]
    assert (
        "open: x86_64 socket: number 41 with (0x100000028, 0, 0, 0, 0, 0) gets ALLOW, opens AF_VSOCK"
        in done.stdout.splitlines()
    )


def test_json_for_machines() -> None:
    document = json.loads(called("--json", data=OPEN).stdout)
    assert document["holds"] is document["closed"] is False
    (socket,) = [
        door
        for door in document["doors"]
        if (door["architecture"], door["door"], door["opens"]) == ("SCMP_ARCH_X86_64", "socket", "AF_VSOCK")
    ]
    assert (socket["status"], socket["number"]) == ("breached", 41)
    assert socket["counterexample"]["args"] == ["0x100000028", "0x0", "0x0", "0x0", "0x0", "0x0"]
    assert json.loads(called("--json", data=CLOSED).stdout)["closed"] is True


def test_a_configuration() -> None:
    assert called(data={"ociVersion": "1.2.0", "linux": {"seccomp": CLOSED}}).returncode == 0
    assert called(data={"ociVersion": "1.2.0", "linux": {"seccomp": OPEN}}).returncode == 1


@pytest.mark.parametrize("linux", [{}, {"linux": None}, {"linux": {}}, {"linux": {"seccomp": None}}])
def test_a_configuration_without_a_section_is_unconfined(linux: dict[str, object]) -> None:
    done = called(data={"ociVersion": "1.2.0", **linux})
    assert done.returncode == 1
    assert ["io_uring_setup", "any", "socket", "OPEN", "OPEN", "OPEN"] in [
        line.split() for line in done.stdout.splitlines()
    ]


def test_crun_may_load_something_else() -> None:
    done = called(
        data={"ociVersion": "1.2.0", "linux": {"seccomp": CLOSED}, "annotations": {"run.oci.seccomp_bpf_data": "AA=="}}
    )
    assert done.returncode == 0
    assert "crun loads annotation run.oci.seccomp_bpf_data instead of the section judged here" in done.stderr


def test_a_program() -> None:
    for section, code in ((CLOSED, 0), (OPEN, 1)):
        program = compile_profile(parse_profile(section), abi_named("x86_64"))
        assert called("--bpf", data=encode(program, little_endian=True)).returncode == code


def test_a_policy_that_leaves_a_door_open_shows_it(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("floor: {socketFamilies: {deny: []}}\n")
    assert called("--config", str(policy), data=OPEN).returncode == 0
    policy.write_text("floor: {ioUring: allow, socketcall: allow}\n")
    done = called("--config", str(policy), data={"ociVersion": "1.2.0"})
    assert ["io_uring_enter", "any", "socket", *["open", "by", "policy"] * 3] in [
        line.split() for line in done.stdout.splitlines()
    ]


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        ((), b"", "stdin: line 1, column 1: expected JSON, got 'the end'"),
        ((), b"[]", "stdin: expected a seccomp profile or an OCI config.json, got an empty array"),
        ((), b'{"defaultAction": 1}', "stdin: profile.defaultAction: expected one of"),
        ((), b'{"linux": []}', "stdin: linux: expected an object"),
        ((), b'{"a": 1, "a": 2}', "stdin: expected each key once, got 'a'"),
        ((), b"[" * 100_000, "stdin: expected JSON of a sane depth"),
        ((), b'"\xff"', "stdin: expected JSON in UTF-8"),
        (("--bpf",), bytes(12), "offset 8: expected 8 bytes of an instruction, got 4"),
        (("--bpf",), bytes(8), "instruction 0: the last instruction must return"),
        (
            ("/nowhere/at/all",),
            b"",
            "input: expected a readable file (No such file or directory), got '/nowhere/at/all'",
        ),
        (("--config", "/nowhere/at/all"), b"", "cannot read the policy"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: tuple[str, ...], data: bytes, message: str) -> None:
    done = called(*arguments, data=data)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_cannot_be_judged_is_not_proven() -> None:
    """A product of two arguments: an answer would be a guess."""
    words = [
        (0x20, 0, 0, 16),
        (0x07, 0, 0, 0),
        (0x20, 0, 0, 24),
        (0x2C, 0, 0, 0),
        (0x15, 0, 1, 0x7F4A7C15),
        (6, 0, 0, 0x7FFF0000),
        (6, 0, 0, 0),
    ]
    data = b"".join(code.to_bytes(2, "little") + bytes((jt, jf)) + k.to_bytes(4, "little") for code, jt, jf, k in words)
    done = called("--bpf", data=data)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "seccomp-floor: stdin: not proven: the filter computes more than can be judged exactly\n"
