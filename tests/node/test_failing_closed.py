"""What containerd does when the daemon is not there, dies or is late: as it comes, and as it can be set up.

NRI lets containers through when a plugin is gone. Two things together close that: the daemon is a validator, so
that the creation during which it ends fails; and containerd's built-in validator, told to require the daemon, fails
every later one. The first comes with the daemon, the second is a setting of containerd's.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from testnode import UNCONFINED, Container, CriError, Daemon, Node, Nri
from testnode.probe import AF_VSOCK, doors

pytestmark = pytest.mark.node

FAIL_CLOSED = Nri(
    validator=True, required_plugins=("seccomp-floor",), tolerate_annotation="seccomp-floor.nri.io/tolerate-absence"
)
"""The settings that the deployment's drop-in makes; the request timeout is containerd's default."""


@pytest.fixture(scope="module")
def node(new_node: Callable[..., Node]) -> Node:
    """A node with containerd's own settings."""
    return new_node(nri=Nri())


@pytest.fixture(scope="module")
def closed_node(new_node: Callable[..., Node]) -> Node:
    """A node that fails closed."""
    return new_node(nri=FAIL_CLOSED)


@pytest.fixture
def creating() -> Iterator[Callable[[Node], Future[Container]]]:
    """Starts to create a container in the background, in a pod that is there already."""
    with ThreadPoolExecutor() as pool:

        def create(node: Node) -> Future[Container]:
            pod = node.create_pod()
            return pool.submit(node.create_container, pod, seccomp=UNCONFINED)

        yield create


def started(container: Container) -> Container:
    """A container that was only created."""
    container.start()
    return container


def is_open(container: Container) -> bool:
    """Whether a door of a running container gives a socket."""
    return any(door.kind == "opened" for door in doors(container.output, AF_VSOCK))


def waiting_for(daemon: Daemon, node: Node, creating: Callable[[Node], Future[Container]]) -> Future[Container]:
    """A creation that waits for the daemon, which is stopped: it can have no answer to it yet."""
    daemon.process.send_signal(signal.SIGSTOP)
    future = creating(node)
    with pytest.raises(TimeoutError):
        future.result(0.5)
    return future


def goes_through_open(node: Node) -> bool:
    """Whether a container is created, and created without the floor."""
    try:
        return is_open(node.run(UNCONFINED))
    except CriError:
        return False


def test_without_the_daemon_containerd_lets_containers_through(node: Node) -> None:
    """Fail-open is containerd's default."""
    assert goes_through_open(node)


def test_killed_in_a_creation_that_one_fails_and_later_ones_go_through(
    node: Node, creating: Callable[[Node], Future[Container]]
) -> None:
    """The daemon is a validator, and containerd fails what a validator cannot judge: this creation, and perhaps the
    next, until it has noticed that the plugin is gone. From then on nothing asks for the daemon any more."""
    with node.daemon() as daemon:
        assert not is_open(node.run(UNCONFINED))
        future = waiting_for(daemon, node, creating)
        daemon.kill()
        with pytest.raises(CriError, match="validator"):
            future.result(30)
        assert any(goes_through_open(node) for _ in range(3))


def test_late_for_a_creation_that_one_fails_and_the_daemon_comes_back(
    node: Node, creating: Callable[[Node], Future[Container]]
) -> None:
    """containerd waits 2 s and drops the plugin; it registers anew as soon as it runs again."""
    with node.daemon() as daemon:
        future = waiting_for(daemon, node, creating)
        with pytest.raises(CriError, match="validator"):
            future.result(30)
        assert any(goes_through_open(node) for _ in range(3)), "while the daemon is stopped"
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for("registered", times=2)
        assert not is_open(node.run(UNCONFINED))


def test_failing_closed_nothing_is_created_without_the_daemon(closed_node: Node) -> None:
    """containerd's validator says which plugin is missing."""
    with pytest.raises(CriError, match='required plugin "seccomp-floor" not present'):
        closed_node.run(UNCONFINED)


def test_failing_closed_the_annotation_tolerates_absence(closed_node: Node) -> None:
    """For the daemon's own pod, and static pods; who may use it is a matter for admission control."""
    assert is_open(closed_node.run(UNCONFINED, annotations={FAIL_CLOSED.tolerate_annotation: "true"}))


def test_failing_closed_a_creation_fails_when_the_daemon_dies_in_it(
    closed_node: Node, creating: Callable[[Node], Future[Container]]
) -> None:
    """And every later one, until the daemon is back."""
    with closed_node.daemon() as daemon:
        future = waiting_for(daemon, closed_node, creating)
        daemon.kill()
        with pytest.raises(CriError, match="validator"):
            future.result(30)
    with pytest.raises(CriError, match=r"seccomp-floor|validator"):
        closed_node.run(UNCONFINED)
    with closed_node.daemon():
        assert not is_open(closed_node.run(UNCONFINED))


def test_failing_closed_a_creation_fails_when_the_daemon_is_late_for_it(
    closed_node: Node, creating: Callable[[Node], Future[Container]]
) -> None:
    """The daemon comes back by itself, and then containers are created again."""
    with closed_node.daemon() as daemon:
        future = waiting_for(daemon, closed_node, creating)
        with pytest.raises(CriError, match="validator"):
            future.result(30)
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for("registered", times=2)
        assert not is_open(closed_node.run(UNCONFINED))


def test_failing_closed_a_daemon_that_leaves_in_order_closes_as_well(closed_node: Node) -> None:
    """SIGTERM, as its service manager sends."""
    with closed_node.daemon() as daemon:
        assert daemon.stop() == 0
        with pytest.raises(CriError, match=r"seccomp-floor|validator"):
            closed_node.run(UNCONFINED)
