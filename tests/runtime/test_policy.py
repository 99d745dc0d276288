"""The node owner's word: /etc/seccomp-floor, laid over the host's in a mount namespace, and nothing that an environment says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.runtimes import ENTER, Runtime, bundle, laid_over_etc, runtimes
from seccomp_floor.runtime.config import MARK
from testnode import probe
from testnode.probe import AF_ALG, AF_VSOCK
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes

PAIRS = {"i386 socketcall socketpair", "i386 socketcall socketpair, high half"}
OPT_OUT = "opt-out.seccomp-floor.nri.io"
ABI_OF_NO_MACHINE = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PARISC"]}
"""A section that runc refuses, and that so cannot be proven for it."""

Under = Callable[[str], Runtime]


@pytest.fixture(scope="module")
def under(scratch: Scratch) -> Under:
    """The newest runc, behind the wrapper, on a node with this policy."""
    wrapped = runtimes(scratch)["runc v1.4.0"][1]
    etc = scratch.path / "etc-of-policies"
    (etc / "seccomp-floor").mkdir(parents=True)

    def under(policy: str) -> Runtime:
        (etc / "seccomp-floor" / "policy.yaml").write_text(policy)
        return replace(wrapped, before=(*ENTER, f'{laid_over_etc(etc)}; exec "$@"', "sh"))

    return under


@pytest.fixture
def make(scratch: Scratch, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Makes the bundle of a test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return lambda **options: bundle(scratch, name, args=["/probe", "doors", str(AF_ALG), str(AF_VSOCK)], **options)


def open_doors(output: str) -> set[str]:
    """Doors that the probe found leading to the kernel."""
    return {door.name for door in probe.doors(lambda _: output, AF_ALG, AF_VSOCK) if door.open} - PAIRS


def test_a_policy_holds_and_its_change_is_seen(under: Under, make: Callable[..., Path]) -> None:
    """The cache has an answer for each."""
    path = make()
    original = (path / "config.json").read_bytes()
    for policy, expected in (
        ("version: 1", set()),
        ("floor: {ioUring: allow}", {"x86_64 io_uring", "x86_64 io_uring, kernel thread", "i386 io_uring"}),
        ("floor: {socketcall: allow}", {"i386 socketcall socket", "i386 socketcall socket, high half"}),
        ("version: 1", set()),
    ):
        (path / "config.json").write_bytes(original)
        assert open_doors(under(policy).run("run", "-b", path, "one").stdout) == expected, policy


@pytest.mark.parametrize("policy", ["floor: [", "flor: {}", "mode: perhaps", "!!python/object:os.system {}"])
def test_a_bad_policy_makes_no_container(under: Under, make: Callable[..., Path], policy: str) -> None:
    """Not the built-in one instead."""
    path = make()
    before = (path / "config.json").read_bytes()
    done = under(policy).run("run", "-b", path, "one", check=False)
    assert done.returncode == 1
    assert "/etc/seccomp-floor/policy.yaml" in done.stderr
    assert done.stdout == ""
    assert (path / "config.json").read_bytes() == before


def test_report_changes_nothing_and_says_what_it_would(under: Under, make: Callable[..., Path]) -> None:
    """Each time, from the cache as well."""
    path = make()
    before = (path / "config.json").read_bytes()
    for _ in range(2):
        done = under("mode: report").run("run", "-b", path, "one")
        assert "level=warning" in done.stderr
        assert "NOT under the floor (mode: report)" in done.stderr
        assert open_doors(done.stdout)
        assert (path / "config.json").read_bytes() == before


def test_log_denies_nothing(under: Under, make: Callable[..., Path]) -> None:
    """The kernel writes the uses down; every door leads there."""
    path = make()
    output = under("mode: log").run("run", "-b", path, "one").stdout
    assert {"x86_64 socket", "i386 socketcall socket", "x86_64 io_uring"} <= open_doors(output)
    section = json.loads((path / "config.json").read_text())["linux"]["seccomp"]
    assert "SCMP_ACT_LOG" in {rule["action"] for rule in section["syscalls"]}


@pytest.mark.parametrize(
    ("word", "said"),
    [("reject", "does not know the architecture"), ("admit", "NOT under the floor (onUnprovable: admit)")],
)
def test_what_cannot_be_proven(under: Under, make: Callable[..., Path], word: str, said: str) -> None:
    """Rejected by the wrapper; or handed to the runtime as it is, loudly, which then refuses it itself."""
    path = make(section=ABI_OF_NO_MACHINE)
    before = (path / "config.json").read_bytes()
    done = under(f"onUnprovable: {word}").run("run", "-b", path, "one", check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert (path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("policy", "annotations", "out"),
    [
        ("version: 1", {OPT_OUT: "true"}, True),
        ("version: 1", {f"{OPT_OUT}/pod": "true"}, True),
        ("version: 1", {OPT_OUT: "false"}, False),
        ("optOut: {honour: false}", {OPT_OUT: "true"}, False),
        # as containerd and CRI-O say whose container it is
        ("version: 1", {OPT_OUT: "true", "io.kubernetes.cri.sandbox-namespace": "lab"}, False),
        ("optOut: {namespaces: [lab]}", {OPT_OUT: "true", "io.kubernetes.cri.sandbox-namespace": "lab"}, True),
        ("optOut: {namespaces: [lab]}", {OPT_OUT: "true", "io.kubernetes.pod.namespace": "shop"}, False),
        ("optOut: {namespaces: [lab]}", {OPT_OUT: "true", "io.kubernetes.cri.container-type": "container"}, False),
        (
            "optOut: {namespaces: [lab]}",
            {
                f"{OPT_OUT}/container.one": "true",
                "io.kubernetes.cri.container-name": "one",
                "io.kubernetes.cri.sandbox-namespace": "lab",
            },
            True,
        ),
        (
            "optOut: {namespaces: [lab]}",
            {
                f"{OPT_OUT}/container.one": "true",
                "io.kubernetes.cri.container-name": "two",
                "io.kubernetes.cri.sandbox-namespace": "lab",
            },
            False,
        ),
    ],
)
def test_opting_out(
    under: Under, make: Callable[..., Path], policy: str, annotations: dict[str, str], out: bool
) -> None:
    """By those who may; it is said in the log in either case, unless nobody asked."""
    path = make(annotations=annotations)
    done = under(policy).run("run", "-b", path, "one")
    assert bool(open_doors(done.stdout)) is out
    assert (MARK in json.loads((path / "config.json").read_text())["annotations"]) is not out
    assert ("not under the floor: opted out" in done.stderr) is out


def test_the_configured_runtime_comes_before_path(scratch: Scratch, under: Under) -> None:
    """/etc/seccomp-floor/runtimes/runc."""
    directory = scratch.path / "etc-of-policies" / "seccomp-floor" / "runtimes"
    directory.mkdir()
    (directory / "runc").symlink_to("/bin/echo")
    assert under("version: 1").run("state", "one").stdout.endswith("state one\n")
    (directory / "runc").unlink()
    (directory / "runc").symlink_to(under("version: 1").program)  # itself, by mistake
    done = under("version: 1").run("state", "one", check=False)
    assert done.returncode == 1
    assert "no runtime runc" in done.stderr
    (directory / "runc").unlink()


def test_a_hostile_environment(scratch: Scratch, make: Callable[..., Path]) -> None:
    """Whatever it says, the container is floored, and runc finds it as it was."""
    wrapped = runtimes(scratch)["runc v1.4.0"][1]
    traps = scratch.path / "traps"
    traps.mkdir()
    for name in ("seccomp_floor.py", "os.py", "sitecustomize.py", "usercustomize.py", "json.py", "site.py"):
        (traps / name).write_text(f"open('{traps}/sprung', 'w').close()\n")
    (traps / "python3").write_text(f"#!/bin/sh\ntouch {traps}/sprung\n")
    (traps / "python3").chmod(0o755)
    (traps / "readlink").symlink_to("python3")
    hostile = {
        "PYTHONPATH": traps,
        "PYTHONHOME": traps,
        "PYTHONSTARTUP": traps / "os.py",
        "PYTHONUSERBASE": traps,
        "PYTHONINSPECT": "1",
        "ENV": traps / "python3",
        "BASH_ENV": traps / "python3",
        "BASH_FUNC_exec%%": f"() {{ touch {traps}/sprung; }}",
        "BASH_FUNC_test%%": f"() {{ touch {traps}/sprung; }}",
        "IFS": "/",
        "CDPATH": traps,
    }
    words = [f"{name}={value}" for name, value in hostile.items()]
    runtime = replace(wrapped, path=f"{traps}:{wrapped.path}", before=("env", *words))
    path = make()
    assert open_doors(runtime.run("run", "-b", path, "one").stdout) == set()
    assert not (traps / "sprung").exists()
