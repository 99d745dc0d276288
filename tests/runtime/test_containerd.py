"""The promise, with containerd's generations: through a runtime handler of the documented settings, and ``ctr run``."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime import debian
from runtime.engines import documented
from runtime.installation import install
from seccomp_floor.runtime.config import MARK
from testnode import NONE, RUNTIME_DEFAULT, UNCONFINED, CriError, Node, Scratch, Seccomp, image, probe, programs
from testnode.containerd import Containerd, Handler
from testnode.cri import Client, Container, Pod
from testnode.probe import AF_ALG, AF_VSOCK

pytestmark = pytest.mark.runtimes

PAIRS = {"i386 socketcall socketpair", "i386 socketcall socketpair, high half"}
"""No denied family makes pairs: this door hands nothing out, and AF_UNIX pairs of 32-bit programs go through it."""
IO_URING = {f"{abi} {number}" for abi in ("x86_64", "i386", "x32") for number in (425, 426, 427)}
HANDLER = "seccomp-floor"


class DebianContainerd(Containerd):
    """Debian's containerd, of the generation before configuration format 3 and NRI."""

    @property
    def directory(self) -> Path:
        """Where its programs are."""
        return debian.directory() / "usr" / "bin"

    def answers(self) -> bool:
        """Whether clients can connect."""
        return self.ctr("plugins", "list", check=False).returncode == 0

    def configuration(self) -> dict[str, Any]:
        """Format 2."""
        path = self.scratch.path
        handlers = tomllib.loads(documented(self.scratch, "1.6 and 1.7", "toml"))
        runtimes = handlers["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
        runc = {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": str(debian.program("runc"))}}
        return {
            "version": 2,
            "root": str(path / "root"),
            "state": str(path / "state"),
            "grpc": {"address": str(self.socket)},
            "ttrpc": {"address": f"{self.socket}.ttrpc"},
            "plugins": {
                "io.containerd.grpc.v1.cri": {
                    "sandbox_image": image.NAME,
                    "restrict_oom_score_adj": True,
                    "containerd": {"default_runtime_name": "runc", "runtimes": {"runc": runc, **runtimes}},
                    "cni": {"bin_dir": str(path / "cni"), "conf_dir": str(path / "cni")},
                },
                "io.containerd.internal.v1.opt": {"path": str(path / "opt-containerd")},
            },
        }


class NewerContainerd(DebianContainerd):
    """That of Debian's next suite."""

    @property
    def directory(self) -> Path:
        """Where its programs are."""
        return debian.newer_containerd()


GENERATIONS: dict[str, tuple[type[Containerd], str]] = {
    programs.CONTAINERD: (Containerd, programs.CONTAINERD),
    programs.CONTAINERD_BEFORE: (Containerd, programs.CONTAINERD_BEFORE),
    "Debian's": (DebianContainerd, "of Debian"),
    f"Debian {debian.NEWER_SUITE}'s": (NewerContainerd, f"of Debian {debian.NEWER_SUITE}"),
}


class Generation:
    """A containerd with the handler."""

    def __init__(self, scratch: Scratch, kind: type[Containerd], version: str) -> None:
        """Start it."""
        self.scratch = scratch
        self.installed = install(scratch)
        scratch.environment["XDG_CACHE_HOME"] = str(scratch.path / "cache")
        drop_in = scratch.path / "seccomp-floor-runc.toml"
        drop_in.write_text(documented(scratch, "2.x", "toml"))
        self.containerd = kind(scratch=scratch, version=version, handlers=(Handler(),), imports=(drop_in,))
        self.containerd.start()
        archive, program = scratch.path / "image.tar", scratch.path / "probe"
        probe.build(program)
        image.write(archive, program, Path("/bin/busybox"))
        self.containerd.import_image(archive)
        self.cri = Client(self.containerd.socket)

    def run(self, seccomp: Seccomp, handler: str, **options: Any) -> Container:
        """A container that runs, in a pod of its own."""
        pod = Pod.create(self.cri, cgroup=self.scratch.cgroup, handler=handler, **options)
        container = Container.create(pod, seccomp=seccomp)
        container.start()
        return container


@pytest.fixture(scope="module", params=GENERATIONS)
def generation(able: None, request: pytest.FixtureRequest) -> Iterator[Generation]:  # noqa: ARG001
    """One after the other."""
    with Scratch() as scratch:
        generation = Generation(scratch, *GENERATIONS[request.param])
        yield generation
        generation.cri.close()


def open_doors(run: Callable[[Sequence[str]], str]) -> list[str]:
    """Doors that lead to the kernel, though the floor denies what is behind them."""
    return [door.name for door in probe.doors(run, AF_ALG, AF_VSOCK) if door.open and door.name not in PAIRS]


@pytest.mark.parametrize("seccomp", [NONE, UNCONFINED, RUNTIME_DEFAULT], ids=lambda seccomp: str(seccomp.kind))
def test_a_handler(generation: Generation, seccomp: Seccomp) -> None:
    """Every door is closed with it, some are open without; nothing else changes."""
    bare, floored = generation.run(seccomp, ""), generation.run(seccomp, HANDLER)
    assert open_doors(bare.output)
    assert open_doors(floored.output) == []
    was, now = probe.unrelated(bare.output), probe.unrelated(floored.output)
    assert {call for call, result in was.items() if now[call] != result} <= IO_URING
    for container in (bare, floored):
        container.pod.remove()


def test_a_privileged_pod(generation: Generation) -> None:
    """It comes without a profile, and is floored all the same."""
    pod = Pod.create(generation.cri, cgroup=generation.scratch.cgroup, handler=HANDLER, privileged=True)
    try:
        container = Container.create(pod, privileged=True)
        container.start()
        assert open_doors(container.output) == []
    finally:
        pod.remove()


def test_opting_out_is_for_those_whom_the_policy_names(generation: Generation) -> None:
    """The built-in policy names no namespace, and the pod's reaches the wrapper."""
    container = generation.run(NONE, HANDLER, annotations={"opt-out.seccomp-floor.nri.io/pod": "true"})
    assert open_doors(container.output) == []
    container.pod.remove()


def test_a_refusal_is_shown(generation: Generation) -> None:
    """As the reason that the kubelet puts into an event."""
    with pytest.raises(CriError, match=r'annotation opt-out\.seccomp-floor\.nri\.io/pod: expected "true" or "false"'):
        generation.run(NONE, HANDLER, annotations={"opt-out.seccomp-floor.nri.io/pod": "perhaps"})


def test_ctr(generation: Generation) -> None:
    """``ctr run --runc-binary``, which goes past CRI."""
    line = documented(generation.scratch, "ctr", "sh").split()
    assert line[:3] == ["ctr", "run", "--runc-binary"]
    ctr: list[str | Path] = [
        *generation.containerd.enter(),
        generation.containerd.directory / "ctr",
    ]  # where the FIFOs are
    ctr += ["--address", generation.containerd.socket, "--namespace", "k8s.io", *line[1:4]]
    ctr += ["--rm", "--runc-root", generation.scratch.path / "ctr", "--cgroup", f"/{generation.scratch.cgroup}/ctr"]

    def run(command: Sequence[str]) -> str:
        words = [*ctr, image.NAME, "ctr", *command]
        environment = generation.scratch.environment
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, env=environment, text=True)
        return done.stdout

    assert open_doors(run) == []


def test_together_with_the_daemon(able: None) -> None:  # noqa: ARG001
    """Both on one node: the section is made once, by the plugin, which comes first, and the wrapper leaves it alone."""
    with Scratch() as outside:  # for the installation, which the handler names
        drop_in = outside.path / "seccomp-floor-runc.toml"
        drop_in.write_text(documented(outside, "2.x", "toml"))
        with Node(imports=[drop_in]) as node, node.daemon():
            container = node.run(RUNTIME_DEFAULT, handler=HANDLER)
            assert open_doors(container.output) == []
            (config,) = node.scratch.path.glob(f"state/*/k8s.io/{container.id}/config.json")
            spec = json.loads(config.read_text())
            assert spec["linux"]["seccomp"] == container.section()
            assert MARK not in spec["annotations"]
            container.pod.remove()
