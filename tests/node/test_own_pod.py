"""The daemon in a pod of its own: it must run without a filter, or it could not read any; and nobody else may say that he is it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seccomp_floor.node.control import ControlError, ask_status
from seccomp_floor.pb import control_pb2 as pb
from testnode import UNCONFINED, Container, Node
from testnode.daemon import COMMAND, Daemon
from testnode.waiting import row, standing, until

pytestmark = pytest.mark.node

NAMESPACE, NAME = "seccomp-floor-system", "daemon"


def in_a_pod(node: Node, control: Path, **options: Any) -> Container:
    """The daemon as the first process of a container, with the host's files: as an image would have them."""
    run = [str(COMMAND), "run", "--nri-socket", str(node.containerd.nri_socket), "--control-socket", str(control)]
    run += ["--containerd-socket", str(node.containerd.socket)]
    options = {"namespace": NAMESPACE, "host_pid": True, "privileged": True} | options
    pod = node.create_pod(**options)
    command = ["/bin/busybox", "nsenter", "-t", str(os.getpid()), "-m", "--", *run]
    container = node.create_container(pod, seccomp=UNCONFINED, name=NAME, command=command, privileged=True)
    container.start()
    return container


def filtered(container: Container) -> bool:
    """Whether its first process has a filter."""
    return "Seccomp:\t2" in Path(f"/proc/{container.info()['pid']}/status").read_text()


class InPod(Daemon):
    """What the waiting functions need of a daemon that runs in a pod."""

    def __init__(self, control: Path) -> None:
        """It has been started already."""
        self.control_socket = control

    @property
    def log(self) -> str:
        """Its container's output goes nowhere; what it says of itself serves."""
        try:
            return str(ask_status(self.control_socket).node)
        except ControlError as error:
            return str(error)


def test_the_daemon_and_its_successor_run_without_a_filter(new_node: Callable[..., Node]) -> None:
    """The first is created by nobody's leave; the second while the first answers, as in an upgrade."""
    node = new_node()
    first_socket, second_socket = node.scratch.path / "first.sock", node.scratch.path / "second.sock"
    first = in_a_pod(node, first_socket)
    daemon = InPod(first_socket)

    def own(status: pb.StatusResponse) -> pb.Container | None:
        return row(status, first.id) if status.node.ready else None

    found = until(daemon, own)
    assert (found.protection, found.reason) == ("exempt", "own-pod")
    assert not ask_status(first_socket).node.cannot_audit_because

    second = in_a_pod(node, second_socket)
    successor = InPod(second_socket)
    until(successor, lambda status: status.node.ready)
    assert not filtered(second)
    assert not ask_status(second_socket).node.cannot_audit_because
    assert standing(daemon, second.id, "exempt").reason == "own-pod"
    first.pod.remove()

    container = node.run(UNCONFINED)
    standing(successor, container.id, "protected")


@pytest.mark.parametrize(
    "options",
    [{"namespace": "default"}, {"host_pid": False}],
    ids=["another namespace", "a PID namespace of its own"],
)
def test_nobody_else_can_pass_for_it(new_node: Callable[..., Node], options: dict[str, Any]) -> None:
    """A container of the same name, elsewhere or otherwise, is under the floor like any other."""
    node = new_node()
    socket = node.scratch.path / "own.sock"
    in_a_pod(node, socket)
    daemon = InPod(socket)
    until(daemon, lambda status: status.node.ready)
    pod = node.create_pod(**{"namespace": NAMESPACE, "host_pid": True, "privileged": True} | options)
    impostor = node.create_container(pod, seccomp=UNCONFINED, name=NAME, privileged=True)
    impostor.start()
    standing(daemon, impostor.id, "protected")
    assert filtered(impostor)
