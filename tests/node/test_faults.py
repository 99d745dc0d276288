"""What can happen to a daemon while containers are being created, on a node that fails closed: a table at the end.

In all of it no container may run with a door open, and the node has to recover by itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from rich.console import Console
from rich.table import Table

from seccomp_floor.node.succession import MARK
from testnode import UNCONFINED, CriError, Handler, Node, Nri
from testnode.daemon import COMMAND, Daemon
from testnode.probe import AF_VSOCK, doors
from testnode.waiting import standing, status, until

pytestmark = pytest.mark.node

FAIL_CLOSED = Nri(validator=True, required_plugins=("seccomp-floor",), tolerate_annotation="example.com/tolerate")


@dataclass
class Load:
    """Containers created and started one after another, each looked at from inside."""

    node: Node
    protected: list[float] = field(default_factory=list)
    refused: list[tuple[float, str]] = field(default_factory=list)
    unprotected: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        """From the first success until one more after the end of the block."""
        worker = threading.Thread(target=self._run)
        worker.start()
        try:
            self._after(0)
            yield self
            self._after(time.monotonic())
        finally:
            self._stop.set()
            worker.join()
        assert self.unprotected == []

    def _after(self, moment: float) -> None:
        deadline = time.monotonic() + 60
        while not (self.protected and self.protected[-1] > moment):
            assert time.monotonic() < deadline, f"no container came into being; the last refusal: {self.refused[-1:]}"
            time.sleep(0.02)

    def _run(self) -> None:
        pod = self.node.create_pod()
        number = 0
        while not self._stop.is_set():
            number += 1
            try:
                container = self.node.create_container(pod, seccomp=UNCONFINED, name=f"c{number}")
                container.start()
                is_open = any(door.kind == "opened" for door in doors(container.output, AF_VSOCK))
                container.remove()
            except CriError as error:
                self.refused.append((time.monotonic(), str(error)))
                self._stop.wait(0.1)
                continue
            if is_open:
                self.unprotected.append(container.id)
            self.protected.append(time.monotonic())

    def recovery(self, since: float) -> float:
        """Seconds from a moment to the first container after the last refusal that came after it; 0 where there was none."""
        after = [moment for moment, _ in self.refused if moment >= since]
        return next(moment for moment in self.protected if moment > after[-1]) - since if after else 0.0


@dataclass(frozen=True)
class Outcome:
    """A row of the table."""

    fault: str
    happened: str
    load: Load
    recovery: float


OUTCOMES: list[Outcome] = []


@pytest.fixture(scope="module")
def node(new_node: Callable[..., Node]) -> Node:
    """A node that creates nothing without the daemon."""
    return new_node(nri=FAIL_CLOSED)


@pytest.fixture
def load(node: Node) -> Load:
    """The load of one test."""
    return Load(node)


def test_killed_under_load_and_started_anew(node: Node, load: Load) -> None:
    """As by the OOM killer, and a service manager that starts it again."""
    with ExitStack() as stack:
        first = stack.enter_context(node.daemon())
        with load.running():
            first.kill()
            begun = time.monotonic()
            time.sleep(1)
            stack.enter_context(node.daemon())
        assert load.refused
        OUTCOMES.append(
            Outcome("killed (SIGKILL), started anew after 1 s", "refused meanwhile", load, load.recovery(begun))
        )


def test_stopped_for_ten_seconds(node: Node, load: Load) -> None:
    """As by a debugger, or a cgroup that is frozen."""
    with node.daemon() as daemon, load.running():
        begun = time.monotonic()
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(10)
        daemon.process.send_signal(signal.SIGCONT)
        daemon.wait_for("registered", times=2)
    assert load.refused
    OUTCOMES.append(
        Outcome("stopped (SIGSTOP) for 10 s", "refused meanwhile, registered anew", load, load.recovery(begun))
    )


def test_containerd_restarts_under_load(node: Node, load: Load) -> None:
    """The daemon lives on, and is back before anything is created."""
    with node.daemon() as daemon, load.running():
        begun = time.monotonic()
        node.containerd.restart()
        daemon.wait_for("registered", times=2)
        assert daemon.process.poll() is None
    OUTCOMES.append(Outcome("containerd restarted", "the daemon reconnects", load, load.recovery(begun)))


def test_the_policy_becomes_invalid(node: Node, load: Load) -> None:
    """The old one stays in force, and that is said in the log and in the status, until the file is right again."""
    with node.daemon() as daemon:
        with load.running():
            daemon.config.write_text("floor: {socketFamilies: {deny: []}\n")
            told = until(daemon, lambda status: status.node.policy_error)
            assert str(daemon.config) in told
            daemon.wait_for("the old one stays in force")
            daemon.config.unlink()
            until(daemon, lambda status: "gone" in status.node.policy_error)
        assert load.refused == []
        daemon.config.write_text("version: 1\nmode: enforce\n")
        until(daemon, lambda status: not status.node.policy_error)
        OUTCOMES.append(Outcome("policy made invalid, then removed", "the old one stays in force", load, 0.0))


def test_nothing_can_be_written(node: Node, load: Load) -> None:
    """A full disk under the log: lines are lost, and nothing else."""
    control = node.scratch.path / "control-full.sock"
    command = [COMMAND, "run", "--nri-socket", node.containerd.nri_socket, "--control-socket", control]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        process = subprocess.Popen(
            [*map(str, command), "--containerd-socket", str(node.containerd.socket)],
            env=node.scratch.environment,
            stderr=full,
            stdout=full,
            start_new_session=True,
        )
    try:
        with load.running():
            pass
        assert process.poll() is None
        assert load.refused == [] or load.refused[-1][0] < load.protected[0]
    finally:
        process.terminate()
    assert process.wait(30) == 0
    OUTCOMES.append(Outcome("disk full", "log lines are lost", Load(node, load.protected), 0.0))


def test_the_nri_socket_is_removed(node: Node, load: Load) -> None:
    """What is connected stays connected; containerd makes the socket anew when it starts."""
    with node.daemon() as daemon, load.running():
        node.containerd.nri_socket.unlink()
        load._after(time.monotonic())
        assert load.refused == []
        begun = time.monotonic()
        node.containerd.restart()
        daemon.wait_for("registered", times=2)
    OUTCOMES.append(Outcome("NRI socket removed and made anew", "the daemon reconnects", load, load.recovery(begun)))


DEFAULT = "version: 1\n"
STRICTER = "floor: {syscalls: {mkdirat: EPERM, mkdir: EPERM}}\n"
WEAKER = "floor: {socketFamilies: {deny: [AF_VSOCK]}}\n"


def created_by(old: Daemon, new: Daemon, load: Load, fault: str) -> None:
    """The old one decides until it leaves; none is refused for their disagreement, and at most one for the leave."""
    with load.running():
        new.wait_for("another daemon serves")
        until(new, lambda status: status.node.standing_by)
        load._after(time.monotonic())
        assert load.refused == []  # however many sections the two would have wanted
        begun = time.monotonic()
        assert old.stop() == 0
        new.wait_for("the other daemon has left")
    assert len(load.refused) <= 1, load.refused
    node_status = status(new).node
    assert (node_status.ready, node_status.standing_by) == (True, False)
    OUTCOMES.append(Outcome(fault, "the older decides until it leaves", load, load.recovery(begun)))


def test_two_daemons_and_one_leaves(node: Node, load: Load) -> None:
    """An upgrade: the new one registers before the old one leaves."""
    with node.daemon() as old, node.daemon() as new:
        created_by(old, new, load, "two daemons, the older leaves")


@pytest.mark.parametrize("policies", [(DEFAULT, STRICTER), (STRICTER, DEFAULT), (DEFAULT, WEAKER), (WEAKER, DEFAULT)],
                         ids=["stricter", "laxer", "fewer families", "more families"])  # fmt: skip
def test_two_daemons_with_different_floors(node: Node, load: Load, policies: tuple[str, str]) -> None:
    """A new policy rolled out: each wants another section, and the runtime takes only one."""
    with node.daemon(policies[0]) as old, node.daemon(policies[1]) as new:
        created_by(old, new, load, "two daemons with different floors")


def test_what_was_created_under_the_older_floor_is_shown_as_such(node: Node) -> None:
    """The newer one does not refuse it, since the older has judged it, and does not say that it holds what it does not."""
    with node.daemon() as old, node.daemon(STRICTER + "onBreach: kill\n") as new:
        new.wait_for("another daemon serves")
        container = node.run(UNCONFINED)
        standing(old, container.id, "protected")
        found = standing(new, container.id, "outdated")
        assert "another policy" in found.detail
        assert status(new).node.breaches == 0
        same = node.run(node.write_profile("strict", json.loads(reconciled(STRICTER, node))), name="strict")
        standing(new, same.id, "protected")
        assert old.stop() == 0
        new.wait_for("the other daemon has left")
        later = node.run(UNCONFINED)
        standing(new, later.id, "protected")
        for each in (container, same, later):
            each.pod.remove()


def reconciled(policy: str, node: Node) -> str:
    """The section of a container without a profile under that policy."""
    path = node.scratch.path / "strict-policy.yaml"
    path.write_text(policy)
    return subprocess.run([COMMAND, "reconcile", "--config", path], capture_output=True, check=True, text=True).stdout


def test_the_older_one_stands_still(node: Node, load: Load) -> None:
    """It holds the lock, and the runtime has dropped it: the newer must neither wait for it nor believe that it has decided."""
    with node.daemon() as old, node.daemon(STRICTER) as new, load.running():
        new.wait_for("another daemon serves")
        load._after(time.monotonic())
        begun = time.monotonic()
        old.process.send_signal(signal.SIGSTOP)
        load._after(time.monotonic())
        refused = len(load.refused)
        assert refused <= 1, load.refused  # the one that waited for it
        until(new, lambda status: not status.node.standing_by)
        old.process.send_signal(signal.SIGCONT)
        old.wait_for("another daemon decides")
        load._after(time.monotonic())
        assert len(load.refused) == refused, load.refused
        until(old, lambda status: status.node.standing_by)
    OUTCOMES.append(Outcome("two daemons, the older is stopped", "the newer decides", load, load.recovery(begun)))


def test_three_daemons_and_the_first_stands_still(node: Node, load: Load) -> None:
    """Those that are left have another one as well, each other: that is nobody who has decided."""
    with ExitStack() as stack:
        first, *_ = daemons = [stack.enter_context(node.daemon(policy)) for policy in (DEFAULT, STRICTER, WEAKER)]
        with load.running():
            load._after(time.monotonic())
            begun = time.monotonic()
            first.process.send_signal(signal.SIGSTOP)
            for _ in range(3):
                load._after(time.monotonic())
            assert len(load.refused) <= 1, load.refused
            first.process.send_signal(signal.SIGCONT)
            first.wait_for("registered", times=2)
            daemons[1].kill()
            for _ in range(3):
                load._after(time.monotonic())
        OUTCOMES.append(
            Outcome("three, one stopped, one killed", "one of the others decides", load, load.recovery(begun))
        )


@pytest.mark.parametrize("policies", [(DEFAULT, DEFAULT), (STRICTER, WEAKER)], ids=["equal", "different"])
def test_a_stranger_holds_the_lock(node: Node, load: Load, policies: tuple[str, str]) -> None:
    """As any process can that sees the directory: nobody is taken in, and nobody waits."""
    stranger = os.open(node.containerd.nri_socket.parent, os.O_RDONLY)
    fcntl.flock(stranger, fcntl.LOCK_SH)
    try:
        with node.daemon(policies[0]) as one, node.daemon(policies[1]) as other, load.running():
            for daemon in (one, other):
                daemon.wait_for("another daemon serves")
            for _ in range(3):
                load._after(time.monotonic())
            assert load.refused == [] or load.refused[-1][0] < load.protected[0]
    finally:
        os.close(stranger)


def test_a_mark_that_a_pod_s_author_has_put_on_it(new_node: Callable[..., Node]) -> None:
    """Where the runtime passes annotations on: believed by nobody, and refused, whether there is another daemon or not."""
    node = new_node(nri=FAIL_CLOSED, handlers=(Handler(annotations=("*",)),))
    with node.daemon() as daemon:
        for _ in range(2):
            with pytest.raises(CriError, match=f"annotation {MARK} is for the daemon"):
                node.run(UNCONFINED, annotations={MARK: "000000000000"})
            node.daemon().wait_for("another daemon serves")
        assert daemon.process.poll() is None


def test_a_hostile_pod(node: Node, load: Load) -> None:
    """256 KiB of annotations, names that would break a log line or move a terminal."""
    annotations = {f"example.com/{number}": "\x1b[2J\n" + "x" * 8192 for number in range(32)}
    name = "pod\n2026-01-01T00:00:00.000Z INFO container under the floor\x1b[31m"
    with node.daemon(arguments=["--log-format", "json"]) as daemon, load.running():
        before = daemon.log.count("\n")
        pod = node.create_pod(name=name, namespace="name\x85space\u2028", annotations=annotations)
        container = node.create_container(pod, seccomp=UNCONFINED, name="con\ntainer")
        container.start()
        assert all(door.kind != "opened" for door in doors(container.output, AF_VSOCK))
        pod.remove()
        lines = daemon.log.splitlines()[before:]
        documents = [json.loads(line) for line in daemon.log.split("\n") if line]
        assert any("\\n" in str(document.get("pod")) for document in documents)
        assert not any("\x1b" in line for line in lines)
    OUTCOMES.append(Outcome("256 KiB of hostile annotations", "as any other pod", load, 0.0))


@pytest.mark.timeout(900)
def test_a_thousand_containers_are_known_at_the_start(node: Node, load: Load) -> None:
    """The runtime tells of them all before it lets the daemon in, within one deadline."""
    with node.daemon():
        pod = node.create_pod()
        for number in range(1000):
            node.create_container(pod, seccomp=UNCONFINED, name=f"known{number}")
    begun = time.monotonic()
    with node.daemon() as daemon:
        registered = time.monotonic() - begun
        assert len(status(daemon).containers) >= 1000
        with load.running():
            pass
        assert daemon.log.count("registered") == 1
    OUTCOMES.append(Outcome("1000 containers known at the start", "synchronised in one session", load, registered))


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """What happened, whether anything ran unprotected, and how long it took until containers were created again."""
    assert OUTCOMES
    table = Table(
        title="Faults, on a node that fails closed, with containers being created all the time", title_justify="left"
    )
    for title in ("fault", "what happened", "protected", "refused", "unprotected", "recovered after"):
        table.add_column(title)
    for outcome in OUTCOMES:
        counts = [len(outcome.load.protected), len(outcome.load.refused), len(outcome.load.unprotected)]
        table.add_row(outcome.fault, outcome.happened, *map(str, counts), f"{outcome.recovery:.1f} s")
    with capsys.disabled():
        console = Console(width=160)
        console.print()
        console.print(table)
