"""What the kernel enforces is read from it and judged: at the start, of what ran before, and by whoever asks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testnode import RUNTIME_DEFAULT, UNCONFINED, Container, CriError, Daemon, Handler, Node, programs
from testnode.daemon import COMMAND
from testnode.probe import AF_VSOCK, doors
from testnode.waiting import row, standing, status, until

pytestmark = pytest.mark.node

FORGETFUL_RUNC = """\
#!/bin/sh
# A runtime that leaves the section out: what was proven is not what runs.
for argument; do
    case $argument in create) create=1 ;; esac
    test "$previous" = --bundle && bundle=$argument
    previous=$argument
done
if test "$create"; then
    {python} - "$bundle/config.json" <<'END'
import json, sys
with open(sys.argv[1]) as file:
    config = json.load(file)
config["linux"].pop("seccomp", None)
with open(sys.argv[1], "w") as file:
    json.dump(config, file)
END
fi
exec {runc} "$@"
"""

FOREIGN = """\
version = 3
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.foreign]
runtime_type = "io.containerd.foreign.v2"
runtime_path = "{shim}"
"""
SHIM = """\
#!/bin/sh
PATH={runc}:$PATH exec {shim} "$@"
"""


def is_open(container: Container) -> bool:
    """Whether the plainest door gives a socket."""
    return doors(container.output, AF_VSOCK)[0].kind == "opened"


def audit(node: Node, daemon: Daemon | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`seccomp-floor audit` of everything on that node."""
    command: list[str | Path] = [COMMAND, "audit", "--containerd-socket", node.containerd.socket]
    if daemon is not None:
        command += ["--control-socket", daemon.control_socket]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def crowded(new_node: Callable[..., Node], tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with three handlers: runc, a runtime that forgets the section, and one of a shim that nobody knows."""
    directory = tmp_path_factory.mktemp("runtimes")
    forgetful = directory / "forgetful"
    forgetful.write_text(FORGETFUL_RUNC.format(python="/usr/bin/python3", runc=programs.runc()))
    forgetful.chmod(0o755)
    foreign = directory / "foreign.toml"
    shim = directory / "shim"
    real_shim = programs.containerd_directory() / "containerd-shim-runc-v2"
    shim.write_text(SHIM.format(runc=programs.runc().parent, shim=real_shim))
    shim.chmod(0o755)
    foreign.write_text(FOREIGN.format(shim=shim))
    return new_node(handlers=(Handler(), Handler(name="forgetful", binary=forgetful)), imports=[foreign])


@pytest.fixture
def daemon(crowded: Node) -> Iterator[Daemon]:
    """A daemon of this test's."""
    with crowded.daemon() as daemon:
        yield daemon


@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("seccomp", [UNCONFINED, RUNTIME_DEFAULT], ids=["unconfined", "runtime-default"])
def test_a_container_is_audited_before_its_code_runs(
    crowded: Node, daemon: Daemon, seccomp: object, no_new_privileges: bool
) -> None:
    """The filter is there in state *created*, with noNewPrivileges too; by the time that the start returns it was proven."""
    pod = crowded.create_pod()
    container = crowded.create_container(pod, seccomp=seccomp, no_new_privileges=no_new_privileges)
    found = row(status(daemon), container.id)
    assert found is not None
    assert (found.protection, found.HasField("audited_at")) == ("proven", False)
    container.start()
    found = row(status(daemon), container.id)
    assert found is not None
    assert found.protection == "protected"
    assert found.audited_at >= found.proven_at > 0
    assert 0 < found.pause < 1


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_what_the_runtime_has_not_loaded_is_not_started(crowded: Node, daemon: Daemon, no_new_privileges: bool) -> None:
    """The section was right, and the runtime dropped it: no code of the container's runs, and its owner is told why. Some runtimes
    load it late with noNewPrivileges; of one that has not shown that it does, nothing is believed."""
    pod = crowded.create_pod(handler="forgetful")
    container = crowded.create_container(pod, seccomp=UNCONFINED, no_new_privileges=no_new_privileges)
    with pytest.raises(CriError, match=r"seccomp-floor refuses .* not what was proven"):
        container.start()
    found = row(status(daemon), container.id)
    assert found is not None
    assert (found.protection, found.detail.startswith("breached: ")) == ("ended", True)
    assert status(daemon).node.breaches == 1
    pod.remove()


def test_admitted_where_the_owner_says_so_and_shown(crowded: Node) -> None:
    """`onUnprovable: admit`: it runs, and nobody calls it protected."""
    with crowded.daemon("version: 1\nonUnprovable: admit\n") as daemon:
        container = crowded.run(UNCONFINED, handler="forgetful")
        assert is_open(container)
        assert standing(daemon, container.id, "breached").detail
        container.pod.remove()


def test_what_ran_before_the_daemon_is_found_open(crowded: Node) -> None:
    """Once, and it goes on running: the default is to report."""
    before = crowded.run(UNCONFINED)
    with crowded.daemon() as daemon:
        found = standing(daemon, before.id, "breached")
        assert "x86_64 socket" in found.detail
        assert is_open(before)
        shown = audit(crowded, daemon, "--all")
        assert shown.returncode == 1
        assert "open" in shown.stdout
    before.pod.remove()


def test_what_an_earlier_daemon_has_floored_is_found_protected(crowded: Node) -> None:
    """A daemon that comes back knows nothing, and reads it from the kernel."""
    with crowded.daemon():
        container = crowded.run(UNCONFINED)
    with crowded.daemon() as daemon:
        assert standing(daemon, container.id, "protected").audited_at
    container.pod.remove()


def test_killed_where_the_owner_says_so(crowded: Node) -> None:
    """`onBreach: kill` ends what runs open, and only that."""
    with crowded.daemon():
        floored = crowded.run(UNCONFINED)
    open_one = crowded.run(UNCONFINED)
    with crowded.daemon("version: 1\nonBreach: kill\n") as daemon:
        assert standing(daemon, open_one.id, "ended").detail.startswith("breached: ")
        daemon.wait_for("was killed")
        standing(daemon, floored.id, "protected")
        assert not is_open(floored)
        with pytest.raises(CriError):
            open_one.output(["/bin/true"])
    floored.pod.remove()
    open_one.pod.remove()


def test_a_new_policy_clears_no_breach(crowded: Node) -> None:
    """Unless it asks nothing any more that the container lacks."""
    before = crowded.run(UNCONFINED)
    with crowded.daemon() as daemon:
        standing(daemon, before.id, "breached")
        daemon.config.write_text("version: 1\noptOut: {namespaces: [lab]}\n")
        until(daemon, lambda status: status.node.policy_generation == 2)
        assert standing(daemon, before.id, "breached").detail
        daemon.config.write_text("version: 1\napply: {runtimeHandlers: [forgetful]}\n")
        assert standing(daemon, before.id, "exempt").reason == "handler-not-selected"
    before.pod.remove()


def test_a_new_policy_decides_anew(crowded: Node) -> None:
    """Who comes under the floor by it is looked at once, and is no breach: it has what the earlier policy gave it."""
    with crowded.daemon("version: 1\napply: {runtimeHandlers: [forgetful]}\nonBreach: kill\n") as daemon:
        container = crowded.run(UNCONFINED)
        assert standing(daemon, container.id, "exempt").reason == "handler-not-selected"
        daemon.config.write_text("version: 1\nonBreach: kill\n")
        found = standing(daemon, container.id, "outdated")
        assert (found.floored, found.reason) == (True, "selected")
        assert "x86_64 socket" in found.detail
        assert is_open(container)
        assert status(daemon).node.breaches == 0
        container.pod.remove()


@pytest.mark.parametrize("mode", ["report", "log"])
def test_from_the_first_steps_to_enforcing(crowded: Node, mode: str) -> None:
    """What was created before is outdated; what was created and not yet started is refused, and created anew by the kubelet."""
    with crowded.daemon(f"version: 1\nmode: {mode}\n") as daemon:
        container = crowded.run(UNCONFINED)
        pod = crowded.create_pod()
        waiting = crowded.create_container(pod, seccomp=UNCONFINED)
        daemon.config.write_text("version: 1\nonBreach: kill\n")
        standing(daemon, container.id, "outdated")
        with pytest.raises(CriError, match="created under another policy"):
            waiting.start()
        anew = crowded.create_container(pod, seccomp=UNCONFINED, name="anew")
        anew.start()
        standing(daemon, anew.id, "protected")
        assert status(daemon).node.breaches == 0
        assert is_open(container)
        for each in (container.pod, pod):
            each.remove()


def test_what_runs_no_more_is_not_called_protected(crowded: Node, daemon: Daemon) -> None:
    """Its record stays as long as the runtime's does, and is not counted among the protected."""
    pod = crowded.create_pod()
    container = crowded.create_container(pod, seccomp=UNCONFINED, command=["/bin/true"])
    container.start()
    assert standing(daemon, container.id, "ended").detail == "it was protected"
    pod.remove()
    assert row(status(daemon), container.id) is None


def test_a_daemon_that_comes_back_with_a_stricter_policy_kills_nobody(crowded: Node) -> None:
    """What it finds says under which policy it was created: it is outdated, and no breach."""
    with crowded.daemon():
        container = crowded.run(UNCONFINED)
    stricter = "version: 1\nonBreach: kill\nfloor: {syscalls: {mkdir: EPERM, mkdirat: EPERM}}\n"
    with crowded.daemon(stricter) as daemon:
        assert "mkdir" in standing(daemon, container.id, "outdated").detail
        assert status(daemon).node.breaches == 0
        assert not is_open(container)
    container.pod.remove()


def test_a_runtime_that_is_not_known_to_load_sections_is_unsupported(crowded: Node) -> None:
    """Neither protected nor breached nor killed, whatever it does."""
    with crowded.daemon("version: 1\nonBreach: kill\n") as daemon:
        daemon.wait_for("some runtime handlers")
        container = crowded.run(UNCONFINED, handler="foreign")
        found = row(status(daemon), container.id)
        assert found is not None
        assert found.protection == "unsupported"
        assert container.output(["/bin/true"]) == ""
        container.pod.remove()


def test_the_limits_that_can_be_seen_are_shown(crowded: Node, daemon: Daemon) -> None:
    """All capabilities, CAP_SYS_PTRACE, and PID namespaces shared with what is not under the floor."""
    pod = crowded.create_pod(host_pid=True)
    tracer = crowded.create_container(pod, seccomp=UNCONFINED, capabilities=["SYS_PTRACE"])
    tracer.start()
    shown = " ".join(standing(daemon, tracer.id, "protected").limits)
    assert "host PID namespace" in shown
    assert "CAP_SYS_PTRACE" in shown
    assert "CAP_SYS_ADMIN" not in shown
    privileged = crowded.run(privileged=True)
    assert "CAP_SYS_ADMIN" in " ".join(standing(daemon, privileged.id, "protected").limits)
    plain = crowded.run()
    assert list(standing(daemon, plain.id, "protected").limits) == []


def test_the_command_reads_every_process_of_every_container(crowded: Node, daemon: Daemon) -> None:
    """An opted-out container is open, and that is no breach."""
    container = crowded.run(UNCONFINED)
    process = subprocess.Popen(
        [programs.containerd_directory() / "ctr", "--address", crowded.containerd.socket, "-n", "k8s.io", "tasks", "exec",
         "--exec-id", "second", container.id, "/bin/sleep", "60"]
    )  # fmt: skip
    until(daemon, lambda _: "sleep" in crowded.containerd.ctr("tasks", "ps", container.id).stdout or
          len(crowded.containerd.ctr("tasks", "ps", container.id).stdout.splitlines()) > 2)  # fmt: skip
    answers = json.loads(audit(crowded, daemon, "--all", "--json").stdout)
    process.terminate()
    process.wait(30)
    mine = [answer for answer in answers if answer["container"].endswith(f"{container.pod.config.metadata.name}/probe")]
    assert [answer["verdict"] for answer in mine] == ["closed", "closed"]
    assert all(answer["filters"] == 1 for answer in mine)


def test_the_command_on_a_process(crowded: Node, daemon: Daemon) -> None:
    """Closed: exit code 0. Open, gone, or nothing named: not."""
    container = crowded.run(RUNTIME_DEFAULT)
    pid = str(container.info()["pid"])
    closed = subprocess.run([COMMAND, "audit", "--pid", pid], capture_output=True, text=True, check=False)
    assert (closed.returncode, closed.stdout.split()[0]) == (0, "closed")
    with_own = subprocess.run([COMMAND, "audit", "--pid", "1"], capture_output=True, text=True, check=False)
    assert with_own.returncode == 1
    nothing = subprocess.run([COMMAND, "audit"], capture_output=True, text=True, check=False)
    assert nothing.returncode == 2
    assert "Traceback" not in closed.stderr + with_own.stderr + nothing.stderr
    assert daemon.process.poll() is None


def test_a_container_without_the_daemon_is_audited_open(crowded: Node) -> None:
    """RuntimeDefault leaves a door open (the high half of the family), and no daemon is there to say that it may."""
    container = crowded.run(RUNTIME_DEFAULT)
    shown = audit(crowded, None, "--all")
    assert shown.returncode == 1
    assert "x86_64 socket" in shown.stdout
    container.pod.remove()


def test_each_runtime_is_tried_when_the_daemon_registers(crowded: Node, daemon: Daemon) -> None:
    """A throw-away container shows what a runtime makes of a section, before anybody's container does."""
    daemon.wait_for("a runtime is not what was proven")
    shown = until(daemon, lambda status: status.node.runtimes)
    assert shown["runc"] == "as proven, read from the kernel"
    assert shown["forgetful"].startswith("does not load what was proven")
    assert "foreign" not in shown
    until(daemon, lambda _: crowded.containerd.ctr("namespaces", "list", "--quiet").stdout.split() == ["k8s.io"])
