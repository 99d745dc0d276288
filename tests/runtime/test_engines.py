"""The promise, with engines that have no NRI: every door closed, by the settings that the document shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from runtime.engines import Docker, EngineError, Podman
from testnode import probe
from testnode.probe import AF_ALG, AF_VSOCK
from testnode.scratch import Scratch

pytestmark = pytest.mark.runtimes

PAIRS = {"i386 socketcall socketpair", "i386 socketcall socketpair, high half"}
"""No denied family makes pairs: this door hands nothing out, and AF_UNIX pairs of 32-bit programs go through it."""
IO_URING = {f"{abi} {number}" for abi in ("x86_64", "i386", "x32") for number in (425, 426, 427)}

Run = Callable[[Sequence[str]], str]


def open_doors(run: Run) -> list[str]:
    """Doors that lead to the kernel, though the floor denies what is behind them."""
    doors = probe.doors(run, AF_ALG, AF_VSOCK)
    assert len(doors) > 30
    return [door.name for door in doors if door.open and door.name not in PAIRS]


def assert_floored(bare: Run, wrapped: Run) -> None:
    """Open doors without the wrapper, none with it, and no other change."""
    assert open_doors(bare)
    assert open_doors(wrapped) == []
    was, now = probe.unrelated(bare), probe.unrelated(wrapped)
    assert {call for call, result in was.items() if now[call] != result} <= IO_URING


@pytest.fixture(scope="module", params=["runc", "crun"])
def kind(request: pytest.FixtureRequest) -> str:
    """The runtime behind the wrapper."""
    kind: str = request.param
    return kind


@pytest.fixture(scope="module", params=["root", "rootless"])
def podman(scratch: Scratch, kind: str, request: pytest.FixtureRequest) -> Iterator[Podman]:
    """Podman for containers of this runtime."""
    rootless = request.param == "rootless"
    podman = Podman(scratch, f"{kind}{'-u' * rootless}", rootless=rootless, hides_unified=kind == "crun")
    yield podman
    podman.run("system", "migrate", check=False)  # ends the process that holds a user's namespaces


@pytest.mark.parametrize(
    "confinement",
    [(), ("--security-opt", "seccomp=unconfined"), ("--privileged",)],
    ids=["default", "unconfined", "privileged"],
)
def test_podman(podman: Podman, kind: str, confinement: Sequence[str]) -> None:
    """By ``--runtime``, with each confinement that Podman knows."""
    if podman.rootless and "--privileged" in confinement:
        confinement = (*confinement, "--pid=private")
    assert_floored(
        lambda command: podman.container(command, *confinement, runtime=kind),
        lambda command: podman.container(command, *confinement, runtime=f"seccomp-floor-{kind}"),
    )


def test_podman_s_default_runtime(scratch: Scratch) -> None:
    """As configured: no option names it."""
    podman = Podman(scratch, "podman", hides_unified=True)
    assert open_doors(podman.container) == []


def test_podman_s_exec(podman: Podman, kind: str) -> None:
    """Under the floor as well."""
    runtime = f"seccomp-floor-{kind}"
    podman.container(["/probe", "sleep"], "--detach", "--name", "lasting", runtime=runtime)
    assert open_doors(lambda command: podman.run("--runtime", runtime, "exec", "lasting", *command).stdout) == []
    podman.run("--runtime", runtime, "rm", "--force", "--time", "0", "lasting")


def test_podman_s_opt_out(podman: Podman, kind: str) -> None:
    """By annotation; what it may not be is said where Podman shows it."""
    runtime = f"seccomp-floor-{kind}"
    annotation = "--annotation=opt-out.seccomp-floor.nri.io"
    assert open_doors(lambda command: podman.container(command, f"{annotation}=true", runtime=runtime))
    with pytest.raises(EngineError, match='expected "true" or "false"'):
        podman.container(["/probe", "sleep"], f"{annotation}=maybe", runtime=runtime)


@pytest.fixture(scope="module", params=["added", "default"])
def docker(scratch: Scratch, request: pytest.FixtureRequest) -> Iterator[tuple[Docker, list[str], list[str]]]:
    """Docker, and the options for a runtime without and with the floor."""
    default = request.param == "default"
    docker = Docker(scratch, f"docker-{request.param}", default=default)
    yield docker, ["--runtime=runc"], [] if default else ["--runtime=seccomp-floor"]
    docker.stop()


@pytest.mark.parametrize("confinement", [[], ["--security-opt=seccomp=unconfined"]], ids=["default", "unconfined"])
def test_docker(docker: tuple[Docker, list[str], list[str]], confinement: list[str]) -> None:
    """As an added runtime and as the default one."""
    engine, bare, wrapped = docker
    assert_floored(
        lambda command: engine.container(command, *bare, *confinement),
        lambda command: engine.container(command, *wrapped, *confinement),
    )


def test_docker_s_exec_and_restart(docker: tuple[Docker, list[str], list[str]]) -> None:
    """Under the floor as well, also after a restart."""
    engine, _, wrapped = docker
    engine.container(["/probe", "sleep"], *wrapped, "--detach", "--name", "lasting")
    assert open_doors(lambda command: engine.run("exec", "lasting", *command).stdout) == []
    engine.run("restart", "--time", "0", "lasting")
    assert open_doors(lambda command: engine.run("exec", "lasting", *command).stdout) == []
    engine.run("rm", "--force", "lasting")


def test_docker_shows_the_wrapper_s_errors(docker: tuple[Docker, list[str], list[str]], scratch: Scratch) -> None:
    """As it shows runc's."""
    engine, _, wrapped = docker
    profile = scratch.path / "hostile.json"
    # A filter that would have to be proven, of a kind that runtimes refuse: NOTIFY as the default.
    profile.write_text('{"defaultAction": "SCMP_ACT_NOTIFY"}')
    done = engine.run(
        "run",
        "--rm",
        *wrapped,
        f"--security-opt=seccomp={profile}",
        "localhost/probe:1",
        "/probe",
        "sleep",
        check=False,
    )
    assert done.returncode != 0
    assert "seccomp-floor: " in done.stderr
