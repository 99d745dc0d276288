"""What the daemon says of the node: status, health, metrics, modes, reloads, and the doctor's opinion of all that."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testnode import RUNTIME_DEFAULT, UNCONFINED, Container, CriError, Daemon, Handler, Node, Nri, programs
from testnode.daemon import COMMAND
from testnode.probe import AF_VSOCK, doors
from testnode.waiting import row, standing, status, until

pytestmark = pytest.mark.node

OPT_OUT = "opt-out.seccomp-floor.nri.io/pod"


def is_open(container: Container) -> bool:
    """Whether the plainest door gives a socket."""
    return doors(container.output, AF_VSOCK)[0].kind == "opened"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command of ours, to its end."""
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    """A daemon with a namespace whose pods may opt out."""
    with node.daemon("version: 1\noptOut: {namespaces: [lab]}\n") as daemon:
        yield daemon


def test_the_table_and_the_json(node: Node, daemon: Daemon) -> None:
    """Protected and exempt, and why; exit code 0, since everything is as it should be."""
    floored = node.run(UNCONFINED)
    exempt = node.run(UNCONFINED, namespace="lab", annotations={OPT_OUT: "true"})
    shown = run("status", "--control-socket", daemon.control_socket)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "protecting: containerd" in shown.stdout
    document = json.loads(run("status", "--control-socket", daemon.control_socket, "--json").stdout)
    rows = {container["id"]: container for container in document["containers"]}
    assert rows[floored.id]["protection"] == "protected"
    assert (rows[exempt.id]["protection"], rows[exempt.id]["reason"]) == ("exempt", "opted-out")
    assert document["node"]["ready"] is True
    assert document["node"]["mode"] == "enforce"
    assert document["node"]["breaches"] == 0
    for container in (floored, exempt):
        container.pod.remove()
    until(daemon, lambda status: not status.containers)


def test_the_socket_is_root_s_alone(daemon: Daemon) -> None:
    """By its mode; nobody else can connect."""
    until(daemon, lambda status: status.node.ready)
    assert stat.S_IMODE(daemon.control_socket.stat().st_mode) == 0o600


def test_health(new_node: Callable[..., Node]) -> None:
    """Ready: containers are protected. Alive: the loop turns, also without a runtime."""
    node = new_node()
    with node.daemon() as daemon:
        health: list[str | Path] = ["status", "--control-socket", daemon.control_socket, "--health"]
        until(daemon, lambda status: status.node.ready)
        assert (run(*health, "ready").returncode, run(*health, "alive").returncode) == (0, 0)
        node.containerd.stop()
        reason = until(daemon, lambda status: status.node.not_ready_because)
        assert reason
        assert (run(*health, "ready").returncode, run(*health, "alive").returncode) == (1, 0)
        shown = run("status", "--control-socket", daemon.control_socket)
        assert (shown.returncode, shown.stdout.startswith("not protecting")) == (1, True)
        node.containerd.start()
        until(daemon, lambda status: status.node.ready)
    gone = run(*health, "alive")
    assert gone.returncode == 1
    assert "Traceback" not in gone.stderr


def test_ready_is_told_to_the_service_manager(node: Node, tmp_path: Path) -> None:
    """sd_notify(3): once registered and proven, and at the end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(30)
        node.scratch.environment["NOTIFY_SOCKET"] = str(path)
        try:
            with node.daemon():
                assert listener.recv(100) == b"READY=1"
        finally:
            del node.scratch.environment["NOTIFY_SOCKET"]
        assert listener.recv(100) == b"STOPPING=1"


def test_metrics(node: Node) -> None:
    """On loopback, when asked for."""
    port = free_port()
    with node.daemon(arguments=["--metrics", str(port)]) as daemon:
        container = node.run(UNCONFINED)
        until(daemon, lambda status: status.node.ready)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        container.pod.remove()
    for line in (
        "seccomp_floor_ready 1.0",
        'seccomp_floor_decisions_total{protection="proven",reason="selected"} 1.0',
        'seccomp_floor_containers{protection="protected",reason="selected"}',
        'seccomp_floor_request_duration_seconds_count{method="CreateContainer"} 1.0',
        "seccomp_floor_breaches_total 0.0",
        "seccomp_floor_build_info{",
    ):
        assert line in text


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:0", "127.0.0.1:99999", ":"])
def test_a_metrics_address_that_is_none(address: str) -> None:
    """Exit code 2 and one line."""
    answer = run("run", "--metrics", address)
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr


def test_mode_log_shows_who_uses_the_doors(node: Node) -> None:
    """Nothing is denied, nothing is a breach; the kernel's records are counted for the pod whose process made the call."""
    with node.daemon("version: 1\nmode: log\nfloor: {socketFamilies: {deny: [AF_UNIX]}}\n") as daemon:
        pod = node.create_pod()
        command = ["/bin/busybox", "syslogd", "-n", "-O", "/tmp/log"]  # makes an AF_UNIX socket, and stays
        container = node.create_container(pod, seccomp=UNCONFINED, command=command)
        container.start()
        until(daemon, lambda status: (found := row(status, container.id)) is not None and found.uses)
        assert standing(daemon, container.id, "watched").uses == 1
        assert status(daemon).node.breaches == 0
        daemon.wait_for("uses a door pod=default")
        assert "watching, nothing is denied" in run("status", "--control-socket", daemon.control_socket).stdout
        pod.remove()


def test_mode_log_denies_nothing(node: Node) -> None:
    """Whoever used a door goes on using it."""
    with node.daemon("version: 1\nmode: log\n"):
        container = node.run(UNCONFINED)
        assert is_open(container)
        container.pod.remove()


@pytest.mark.parametrize("mode", ["log", "report"])
def test_the_first_steps_of_a_roll_out_refuse_nobody(node: Node, mode: str) -> None:
    """Not an annotation that makes no sense, and not a profile that nothing can be proven of; what would be refused is shown."""
    chain = [{"index": 0, "value": 0, "op": "SCMP_CMP_GE"}]
    rules = [
        [*chain, {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}],
        [*chain, {"index": 2, "value": 5, "op": "SCMP_CMP_EQ"}],
    ]
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": args} for args in rules],
    }
    hangs = node.write_profile("hangs", section)  # libseccomp never returns from adding the second rule
    with node.daemon(f"version: 1\nmode: {mode}\n") as daemon:
        container = node.run(UNCONFINED, annotations={OPT_OUT: "perhaps"})
        pod = node.create_pod()
        endless = node.create_container(pod, seccomp=hangs)  # runc would hang as well: it is not started
        shown = {row.id: row.protection for row in status(daemon).containers}
        assert shown[endless.id] == ("admitted" if mode == "log" else "reported")
        assert container.id in shown
        assert status(daemon).node.refusals == 0
        for each in (container.pod, pod):
            each.remove()


def test_mode_report_changes_nothing(node: Node) -> None:
    """And says what would change."""
    plain = node.run(RUNTIME_DEFAULT)
    with node.daemon("version: 1\nmode: report\n") as daemon:
        container = node.run(RUNTIME_DEFAULT)
        assert container.section() == plain.section()
        found = standing(daemon, container.id, "reported")
        assert "would change" in found.detail
        assert status(daemon).node.breaches == 0
        container.pod.remove()
    plain.pod.remove()


def test_a_new_policy_is_in_force_without_a_gap(node: Node) -> None:
    """By a file that a symlink is swapped to, as a kubelet does with a ConfigMap, and by SIGHUP."""
    with node.daemon() as daemon:
        first = daemon.config.with_suffix(".first")
        second = daemon.config.with_suffix(".second")
        first.write_text("version: 1\n")
        second.write_text("version: 1\nfloor: {socketFamilies: {deny: [AF_ALG, AF_VSOCK, AF_TIPC]}}\n")
        link = daemon.config.with_suffix(".link")
        link.symlink_to(first)
        link.rename(daemon.config)
        container = node.run(UNCONFINED)
        link.symlink_to(second)
        link.rename(daemon.config)
        until(daemon, lambda status: status.node.policy_generation == 2)
        found = standing(daemon, container.id, "outdated")
        assert "AF_TIPC" in found.detail
        assert status(daemon).node.breaches == 0, "what was right under the old policy is no breach"
        anew = node.run(UNCONFINED)
        standing(daemon, anew.id, "protected")
        link.symlink_to(first)
        link.rename(daemon.config)
        daemon.process.send_signal(signal.SIGHUP)
        until(daemon, lambda status: status.node.policy_generation == 3)
        standing(daemon, container.id, "protected")
        for each in (container, anew):
            each.pod.remove()


def test_an_annotation_that_replaces_the_section_is_refused(new_node: Callable[..., Node]) -> None:
    """crun would load a filter from it, and nothing that the daemon answers would count."""
    node = new_node(handlers=(Handler(annotations=("run.oci.*",)),))
    with node.daemon():
        with pytest.raises(CriError, match=r"run\.oci\.seccomp_bpf_data"):
            node.run(UNCONFINED, annotations={"run.oci.seccomp_bpf_data": "AAAA"})
        assert not is_open(node.run(UNCONFINED))


def test_the_doctor_on_a_node_that_fails_closed(new_node: Callable[..., Node]) -> None:
    """Everything in order: exit code 0, and the node's own kernel agrees."""
    node = new_node(nri=Nri(validator=True, required_plugins=("seccomp-floor",), tolerate_annotation="example.com/t"))
    with node.daemon() as daemon:
        until(daemon, lambda status: status.node.ready)
        answer = run("doctor", "--containerd-socket", node.containerd.socket, "--control-socket", daemon.control_socket)
        assert answer.returncode == 0, answer.stdout
        assert "all closed" in answer.stdout
        assert "nothing is created while the daemon is down" in answer.stdout
        assert daemon.log.count("registered") == 1, "the doctor must not come near the NRI socket"


def test_the_doctor_names_what_is_wrong(new_node: Callable[..., Node], tmp_path: Path) -> None:
    """No daemon, a policy that names a handler that there is not, no validator; and what would go past the floor unseen."""
    node = new_node()
    policy = tmp_path / "policy.yaml"
    policy.write_text('version: 1\napply: {runtimeHandlers: ["", gvisor]}\n')
    sockets: list[str | Path] = [
        "--containerd-socket",
        node.containerd.socket,
        "--control-socket",
        tmp_path / "control.sock",
    ]
    answer = run("doctor", *sockets, "--config", policy, "--json")
    assert answer.returncode == 1
    findings = {(finding["level"], finding["subject"]): finding for finding in json.loads(answer.stdout)}
    assert "runc" in findings["error", "handler gvisor"]["remedy"]
    assert findings["error", "daemon"]["remedy"]
    assert findings["warning", "fail closed"]["remedy"]
    assert ("warning", "handler runc") in findings, "selected by its alias only"
    assert all(finding["remedy"] for finding in findings.values() if finding["level"] in ("error", "warning"))


def test_the_doctor_before_containerd_2_3(new_node: Callable[..., Node], tmp_path: Path) -> None:
    """What cannot be mended here, and what to do instead."""
    node = new_node(version=programs.CONTAINERD_BEFORE)
    answer = run("doctor", "--containerd-socket", node.containerd.socket, "--control-socket", tmp_path / "none")
    assert answer.returncode == 1
    assert "Upgrade to containerd 2.3" in answer.stdout


def test_the_doctor_without_containerd(tmp_path: Path) -> None:
    """One line for each thing that is not there, and no traceback."""
    answer = run("doctor", "--containerd-socket", tmp_path / "none", "--control-socket", tmp_path / "none")
    assert answer.returncode == 1
    assert "Traceback" not in answer.stdout + answer.stderr
