"""What the floor does not stop (docs/threat-model.md), each shown: what works in spite of it, where it still holds, and what
`status` says of it. AF_VSOCK stands in for AF_ALG, which a kernel may lack."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from seccomp_floor.node.neighbours import WITH_HOST, WITH_PAUSE
from seccomp_floor.pb import cri_pb2 as cri
from testnode import RUNTIME_DEFAULT, UNCONFINED, Container, Daemon, Node, Pod
from testnode.daemon import COMMAND
from testnode.probe import AF_VSOCK, HIGH_HALF, Taken, ambush, doors, receive, take
from testnode.waiting import standing, until

pytestmark = pytest.mark.node

LAB = "lab"
FREE = {"opt-out.seccomp-floor.nri.io/container.free": "true"}
PAUSE = 1
"""The pause container's number in its PID namespace."""
TRIES, MOST_TRIES = 15, 200
"""How many commands enter a container that lies in wait and must not succeed; and where it must, the most. With CAP_SYS_PTRACE it
took one or two."""

NOT_FLOORED = "PID namespace shared with free: not under the floor"


@pytest.fixture(scope="module")
def daemon(node: Node) -> Iterator[Daemon]:
    """A daemon with a namespace whose pods may opt out."""
    with node.daemon(f"version: 1\noptOut: {{namespaces: [{LAB}]}}\n") as daemon:
        yield daemon


def in_namespace(pod: Pod, mode: cri.NamespaceMode, target: str = "") -> Pod:
    """The same pod, for containers that are to have another PID namespace: the pod's (``shareProcessNamespace``), or that of
    another container (``kubectl debug --target``)."""
    config = cri.PodSandboxConfig()
    config.CopyFrom(pod.config)
    options = config.linux.security_context.namespace_options
    options.pid, options.target_id = mode, target
    return Pod(pod.client, pod.id, config)


def started(pod: Pod, name: str, **options: object) -> Container:
    """A running container of the pod; `options` as of `Container.create`."""
    container = Container.create(pod, name=name, **{"seccomp": UNCONFINED, **options})  # type: ignore[arg-type]
    container.start()
    return container


def number_inside(container: Container) -> int:
    """What its first process is called in the innermost of its PID namespaces."""
    status = Path(f"/proc/{container.info()['pid']}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


def gives_a_socket(container: Container) -> bool:
    """Whether any of its own doors does."""
    return any(door.kind == "opened" for door in doors(container.output, AF_VSOCK))


def limits(daemon: Daemon, container: Container) -> list[str]:
    """What `status` says that the floor cannot keep from it."""
    return list(standing(daemon, container.id, "protected").limits)


TOOK = ("taken", AF_VSOCK)


def outcome(taken: Taken) -> tuple[str, int]:
    """How far it came, and what it got."""
    return taken.step, taken.domain


# Neighbours in one PID namespace


def test_an_unfloored_neighbour_in_the_pid_namespace_gives_its_socket(node: Node, daemon: Daemon) -> None:
    """A pod that shares its PID namespace, of which one container is opted out: the other has what that one has."""
    pod = in_namespace(node.create_pod(namespace=LAB, annotations=FREE), cri.POD)
    free, floored = started(pod, "free"), started(pod, "floored")
    assert not gives_a_socket(floored)
    assert outcome(take(floored.output, number_inside(free), AF_VSOCK)) == TOOK
    assert NOT_FLOORED in limits(daemon, floored)
    assert free.output(["/bin/true"]) == "", "whom it took it from has not been harmed"
    pod.remove()


def test_floored_neighbours_have_nothing_to_give(node: Node, daemon: Daemon) -> None:
    """The same between two that are under the floor: whoever is made to ask is refused by its own filter."""
    pod = in_namespace(node.create_pod(), cri.POD)
    one, other = started(pod, "one"), started(pod, "other")
    for family in (AF_VSOCK, AF_VSOCK | HIGH_HALF):
        found = take(one.output, number_inside(other), family)
        assert (found.step, found.result) == ("open", "EAFNOSUPPORT")
    for container in (one, other):
        assert limits(daemon, container) == [WITH_PAUSE]
    pod.remove()


def test_the_pause_container_is_such_a_neighbour(node: Node, daemon: Daemon) -> None:
    """NRI cannot adjust it. All containers of the pod are floored, and it has RuntimeDefault, with that one's open doors."""
    pod = in_namespace(node.create_pod(), cri.POD)
    floored = started(pod, "floored")
    assert take(floored.output, PAUSE, AF_VSOCK).result == "EPERM"
    assert outcome(take(floored.output, PAUSE, AF_VSOCK | HIGH_HALF)) == TOOK
    assert limits(daemon, floored) == [WITH_PAUSE]
    pod.remove()


def test_a_debug_container_that_is_opted_out_is_such_a_neighbour(node: Node, daemon: Daemon) -> None:
    """It enters the PID namespace of its target, which may trace it as it may trace its target."""
    pod = node.create_pod(namespace=LAB, annotations=FREE)
    target = started(pod, "target")
    assert limits(daemon, target) == []
    free = started(in_namespace(pod, cri.TARGET, target.id), "free")
    assert outcome(take(target.output, number_inside(free), AF_VSOCK)) == TOOK
    assert limits(daemon, target) == [NOT_FLOORED]
    free.remove()
    assert limits(daemon, target) == []
    pod.remove()


def test_the_node_s_processes_are_neighbours_with_host_pid(node: Node, daemon: Daemon) -> None:
    """Of those that run as the same user; one with capabilities that the container lacks cannot be traced."""
    pod = node.create_pod(host_pid=True)
    floored = started(pod, "floored")
    equal = node.scratch.spawn(["setpriv", "--bounding-set=-all", node.probe, "sleep"], node.containerd.log)
    mightier = node.scratch.spawn([node.probe, "sleep"], node.containerd.log)
    try:
        assert outcome(take(floored.output, equal.pid, AF_VSOCK)) == TOOK
        found = take(floored.output, mightier.pid, AF_VSOCK)
        assert (found.step, found.result) == ("attach", "EPERM")
    finally:
        for process in (equal, mightier):
            process.kill()
            process.wait()
    assert limits(daemon, floored) == [WITH_HOST]
    pod.remove()


def test_status_shows_people_what_they_have_let_in(node: Node, daemon: Daemon) -> None:
    """In the table: a pod in the host's PID namespace with a privileged container."""
    pod = node.create_pod(host_pid=True, privileged=True)
    container = started(pod, "mighty", privileged=True)
    standing(daemon, container.id, "protected")
    command: list[str | Path] = [COMMAND, "status", "--control-socket", daemon.control_socket]
    wide = {**os.environ, "COLUMNS": "400"}
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=wide).stdout
    [line] = [line for line in shown.splitlines() if " mighty " in line]
    for words in ("protected", "host PID namespace", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"):
        assert words in line
    pod.remove()


# While the runtime enters a container


def entered(daemon: Daemon, container: Container, times: int) -> Taken:
    """What an ambush inside the container gets while commands enter it, so many at most."""
    enough, found = f"/tmp/enough-{container.id[:12]}", list[Taken]()
    lying_in_wait = Thread(target=lambda: found.append(ambush(container.output, AF_VSOCK, enough)))
    lying_in_wait.start()
    until(daemon, lambda _: found or runs_with(enough))
    for _ in range(times):
        if not found:
            container.output(["/bin/true"])
    container.output(["/bin/busybox", "touch", enough])
    lying_in_wait.join()
    return found[0]


def runs_with(argument: str) -> bool:
    """Whether there is a process with this argument."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in process.read_bytes().split(b"\0"):
                return True
    return False


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"capabilities": ["SYS_PTRACE"]}, ["CAP_SYS_PTRACE"]),
        ({"privileged": True}, ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]),
    ],
    ids=["CAP_SYS_PTRACE", "privileged"],
)
def test_with_the_capability_the_runtime_s_init_can_be_taken_over(
    node: Node, daemon: Daemon, options: dict[str, object], shown: list[str]
) -> None:
    """It is there for a moment before its filter is, and has what the floor denies to everyone in the container."""
    pod = node.create_pod(privileged="privileged" in options)
    container = started(pod, "probe", **options)
    assert not gives_a_socket(container)
    taken = entered(daemon, container, MOST_TRIES)
    assert outcome(taken) == TOOK
    assert taken.unfiltered > 0
    said = [limit.partition(":")[0] for limit in limits(daemon, container)]
    assert sorted(said) == sorted(shown)
    pod.remove()


@pytest.mark.parametrize("seccomp", [UNCONFINED, RUNTIME_DEFAULT], ids=["unconfined", "runtime-default"])
def test_with_the_default_capabilities_it_cannot(node: Node, daemon: Daemon, seccomp: object) -> None:
    """Whoever can be taken hold of has its filter already."""
    pod = node.create_pod()
    container = started(pod, "probe", seccomp=seccomp)
    found = entered(daemon, container, TRIES)
    assert found.refused > 0, "somebody came in before his filter, and could not be taken hold of"
    assert (found.unfiltered, found.domain) == (0, -1)
    assert limits(daemon, container) == []
    pod.remove()


# Descriptors


def test_a_socket_that_is_passed_from_outside_works(node: Node, daemon: Daemon) -> None:
    """seccomp sees calls, and no call of the container's opens it."""
    container = node.run(UNCONFINED)
    assert not gives_a_socket(container)
    name = f"from-outside-{container.id[:12]}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(AF_VSOCK, socket.SOCK_STREAM) as passed:
        listener.bind(f"\0{name}")
        listener.listen()

        def hand_over() -> None:
            connection, _ = listener.accept()
            with connection:
                rights = array.array("i", [passed.fileno()]).tobytes()
                connection.sendmsg([b"+"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

        giver = Thread(target=hand_over, daemon=True)
        giver.start()
        received = receive(container.output, name)
        giver.join(10)
        assert received == {"domain": AF_VSOCK, "bind": "ok"}
        assert passed.getsockname()[1] > 0, "what the container has bound is our socket"
    standing(daemon, container.id, "protected")
    container.pod.remove()


# Pairs


def test_pairs_through_socketcall_give_nothing_and_are_named(node: Node, daemon: Daemon, tmp_path: Path) -> None:
    """The family is behind a pointer: the kernel makes both sockets and destroys them, as without the floor. Where the filter
    sees the family, it denies. `prove` says what remains."""
    container = node.run(UNCONFINED)
    found = {door.name: door for door in doors(container.output, AF_VSOCK) if "socketpair" in door.name}
    for half in ("", ", high half"):
        assert found[f"i386 socketcall socketpair{half}"].result == "EOPNOTSUPP"
        for abi in ("x86_64", "i386"):
            direct = found[f"{abi} socketpair{half}"]
            assert (direct.kind, direct.result) == ("closed-by-filter", "EAFNOSUPPORT")
    program = tmp_path / "config.json"
    program.write_text(json.dumps(container.info()["runtimeSpec"]))
    proof = subprocess.run([COMMAND, "prove", program], capture_output=True, text=True, check=False)
    assert proof.returncode == 0, proof.stdout
    [named] = [line for line in proof.stdout.splitlines() if "module load only" in line]
    assert "socketcall(SYS_SOCKETPAIR)" in named
    standing(daemon, container.id, "protected")
    container.pod.remove()
