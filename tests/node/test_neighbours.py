"""Other plugins on the node: the sum is judged, whoever made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from seccomp_floor.pb import nri_pb2 as nri
from testnode import UNCONFINED, Container, CriError, Daemon, Node
from testnode.neighbour import Neighbour
from testnode.probe import AF_VSOCK, doors
from testnode.waiting import standing

pytestmark = pytest.mark.node


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    """A daemon of this test's."""
    with node.daemon() as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def protects(node: Node, daemon: Daemon) -> Iterator[None]:
    """After whatever happened."""
    yield
    container = node.run(UNCONFINED)
    standing(daemon, container.id, "protected")
    container.pod.remove()


def is_open(container: Container) -> bool:
    """Whether any door gives a socket."""
    return any(door.kind == "opened" for door in doors(container.output, AF_VSOCK))


def section(message: nri.LinuxSeccomp) -> nri.ContainerAdjustment:
    """An adjustment that sets this section."""
    return nri.ContainerAdjustment(linux=nri.LinuxContainerAdjustment(seccomp_policy=message))


@pytest.mark.parametrize("index", ["10", "95"])
def test_an_open_section_of_another_plugin_is_not_let_through(node: Node, daemon: Daemon, index: str) -> None:
    """Before us, we would have to set it as well, after us the other does: the runtime takes one setter only."""
    allow = nri.LinuxSeccomp(default_action="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_X86_64"])
    with Neighbour(node.containerd.nri_socket, lambda _pod, _container: section(allow), index), pytest.raises(CriError):
        node.run(UNCONFINED)
    assert daemon.process.poll() is None


def test_a_closed_section_of_another_plugin_is_left_alone(node: Node, daemon: Daemon) -> None:
    """Right already: then there is nothing to set, and no conflict."""
    floored = node.run(UNCONFINED)
    learned: list[nri.LinuxSeccomp] = []

    def learn(_pod: nri.PodSandbox, container: nri.Container) -> None:
        learned.append(container.linux.seccomp_policy)

    with Neighbour(node.containerd.nri_socket, learn, "95"):
        node.run(UNCONFINED).pod.remove()
    assert learned[0].syscalls
    with Neighbour(node.containerd.nri_socket, lambda _pod, _container: section(learned[0]), "10"):
        container = node.run(UNCONFINED)
    assert not is_open(container)
    found = standing(daemon, container.id, "protected")
    assert found.changes == 0
    for each in (floored, container):
        each.pod.remove()


def test_an_annotation_of_another_plugin_that_replaces_the_section_is_refused(node: Node, daemon: Daemon) -> None:
    """It comes after our answer, and is seen when the sum is judged."""
    replaces = nri.ContainerAdjustment(annotations={"run.oci.seccomp_bpf_data": "AAAA"})
    refused = pytest.raises(CriError, match=r"run\.oci\.seccomp_bpf_data")
    with Neighbour(node.containerd.nri_socket, lambda _pod, _container: replaces, "95"), refused:
        node.run(UNCONFINED)
    daemon.wait_for("container refused")


def test_other_adjustments_are_none_of_our_business(node: Node) -> None:
    """Environment and annotations of another plugin arrive."""
    other = nri.ContainerAdjustment(env=[nri.KeyValue(key="GREETING", value="hello")])
    with Neighbour(node.containerd.nri_socket, lambda _pod, _container: other, "10"):
        container = node.run(UNCONFINED)
    assert "GREETING=hello" in container.info()["runtimeSpec"]["process"]["env"]
    assert not is_open(container)
    container.pod.remove()


def test_two_daemons_agree(new_node: Callable[..., Node]) -> None:
    """Both answer for every container; the second finds the section right already."""
    node = new_node()
    with node.daemon() as first, node.daemon() as second:
        container = node.run(UNCONFINED)
        assert not is_open(container)
        for daemon in (first, second):
            standing(daemon, container.id, "protected")
