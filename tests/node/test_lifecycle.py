"""The daemon's ways of starting, containerd's of restarting, and runtimes that the daemon must not pretend on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testnode import RUNTIME_DEFAULT, UNCONFINED, Container, Node, Nri, programs
from testnode.probe import AF_VSOCK, doors
from testnode.waiting import until

pytestmark = pytest.mark.node


def open_doors(container: Container) -> list[str]:
    """Doors that give a socket."""
    return [door.name for door in doors(container.output, AF_VSOCK) if door.kind == "opened"]


def test_it_comes_back_when_containerd_restarts(new_node: Callable[..., Node]) -> None:
    """Running containers go on, the daemon reconnects to the new socket, new containers are under the floor."""
    node = new_node()
    with node.daemon() as daemon:
        old = node.run(UNCONFINED)
        for restart in (1, 2):
            node.containerd.restart()
            daemon.wait_for("registered", times=1 + restart)
            assert open_doors(node.run(UNCONFINED)) == []
        assert open_doors(old) == []


def test_it_waits_for_containerd(new_node: Callable[..., Node]) -> None:
    """Started first, it connects as soon as there is something to connect to."""
    node = new_node()
    node.containerd.stop()
    node.containerd.nri_socket.unlink(missing_ok=True)
    with node.daemon(wait=False) as daemon:
        assert daemon.process.poll() is None
        node.containerd.start()
        daemon.wait_for("registered")
        assert open_doors(node.run(RUNTIME_DEFAULT)) == []


def test_launched_by_containerd(new_node: Callable[..., Node], tmp_path: Path) -> None:
    """As an executable in NRI's plugin directory: a connected socket as descriptor 3, no PATH, no stderr."""
    launcher = tmp_path / "10-seccomp-floor"
    launcher.write_text(
        f"#!{sys.executable} -I\n"
        "import sys\n"
        "from seccomp_floor.cli import main\n"
        f"sys.argv = ['seccomp-floor', 'run', '--control-socket', '{tmp_path}/control.sock']\n"
        "main()\n"
    )
    launcher.chmod(0o755)
    node = new_node(nri=Nri(plugin_path=tmp_path, request_timeout="20s"))
    assert open_doors(node.run(UNCONFINED)) == []
    assert open_doors(node.run(RUNTIME_DEFAULT)) == []


def test_a_runtime_that_does_not_show_the_profile_is_refused(new_node: Callable[..., Node]) -> None:
    """containerd 2.2 would apply a section, in place of a profile that nobody has seen: no thanks, and the remedy."""
    node = new_node(version=programs.CONTAINERD_BEFORE)
    before = node.run(RUNTIME_DEFAULT).section()
    with node.daemon(wait=False) as daemon:
        daemon.wait_for("2.3")
        assert "containerd" in daemon.log
        assert "registered" not in daemon.log.splitlines()[-1]
        assert node.run(RUNTIME_DEFAULT).section() == before


def test_two_hundred_in_a_row(new_node: Callable[..., Node]) -> None:
    """Every one of them is looked at from inside."""
    node = new_node()
    with node.daemon() as daemon:
        pod = node.create_pod()
        unprotected = []
        for number in range(200):
            seccomp = UNCONFINED if number % 2 else RUNTIME_DEFAULT
            container = node.create_container(pod, seccomp=seccomp, name=f"c{number}")
            container.start()
            if open_doors(container):
                unprotected.append(number)
            container.remove()
        assert unprotected == []
        assert daemon.log.count("registered") == 1, "the session broke on the way"


@pytest.mark.parametrize(
    "policy",
    [
        "version: 2\n",
        "version: 1\nflor: {}\n",
        "[",
        "version: 1\napply: {runtimeHandlers: runc}\n",
        "\0",
        "!!python/none",
    ],
)
def test_an_invalid_policy_ends_it_with_one_clear_line(node: Node, policy: str) -> None:
    """Exit code 2, and never the built-in policy instead."""
    with node.daemon(policy, wait=False) as daemon:
        assert daemon.process.wait(30) == 2
        assert str(daemon.config) in daemon.log
        assert "Traceback" not in daemon.log


def test_a_policy_that_is_not_there_is_an_error(node: Node) -> None:
    """A lost mount must not change what is enforced."""
    with node.daemon(wait=False, arguments=["--config", "/nonexistent/policy.yaml"]) as daemon:
        assert daemon.process.wait(30) == 2
        assert "/nonexistent/policy.yaml" in daemon.log
        assert "Traceback" not in daemon.log


def capabilities(pid: int) -> int:
    """Those in effect."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("CapEff:")]
    return int(line.split()[1], 16)


def children(pid: int) -> list[int]:
    """Of the process' first thread."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_only_the_reader_keeps_the_privilege_to_read(new_node: Callable[..., Node]) -> None:
    """Without it the daemon ends, to be started anew: it cannot make another, since it has given up what that would take."""
    reads = 1 << 19 | 1 << 21  # CAP_SYS_PTRACE, CAP_SYS_ADMIN
    with new_node().daemon() as daemon:
        until(daemon, lambda status: status.node.ready)
        assert capabilities(daemon.process.pid).bit_count() <= 5
        assert not capabilities(daemon.process.pid) & reads
        readers = [pid for pid in children(daemon.process.pid) if capabilities(pid) == reads]
        assert len(readers) == 1
        assert len(children(daemon.process.pid)) == 2  # and the one that judges
        os.kill(readers[0], signal.SIGKILL)
        assert daemon.process.wait(10) == 1
        assert "the process that reads filters has ended" in daemon.log
