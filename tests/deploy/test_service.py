"""The units' command lines with the units' privileges and system calls, on a real node; systemd itself is not needed for that."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.unit_file import DAEMON, READER, allowed_calls, setting
from testnode import UNCONFINED, CriError, Node
from testnode.reading import Reading

pytestmark = pytest.mark.node

PROGRAM = Path(sys.executable).parent / "seccomp-floor"
READY_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """The daemon and its reader as the units start them, on a node."""

    node: Node
    daemon: subprocess.Popen[bytes]
    reader: subprocess.Popen[bytes]
    notified: list[str]
    control: Path


def started(
    node: Node, unit: Path, name: str, replaced: dict[str, Path], more: list[object]
) -> tuple[str, subprocess.Popen[bytes]]:
    """What a unit says of its start, and its process."""
    path = node.scratch.path / f"notify-{name}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(READY_SECONDS)
        program, *arguments = shlex.split(setting(unit, "ExecStart"))
        assert program.endswith("/seccomp-floor")
        arguments = [str(replaced.get(argument, argument)) for argument in arguments]
        capabilities = [
            f"+{each.lower().removeprefix('cap_')}" for each in setting(unit, "CapabilityBoundingSet").split()
        ]
        command = ["setpriv", f"--bounding-set=-all,{','.join(capabilities)}", "--no-new-privs", "--"]
        command += [sys.executable, "-m", "deploy.unit_file", str(unit), str(PROGRAM), *arguments, *map(str, more)]
        environment = {"NOTIFY_SOCKET": str(path), "PYTHONPATH": str(Path(__file__).parents[1])}
        process = node.scratch.spawn(command, node.scratch.path / f"{name}.log", environment)
        return manager.recv(4096).decode(), process


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Started and ready, by their own word to the service manager."""
    with Node() as node:
        control, listening = node.scratch.path / "control.sock", node.scratch.path / "reader.sock"
        first, reader = started(node, READER, "reader", {}, ["--socket", listening])
        sockets = ["--nri-socket", node.containerd.nri_socket, "--containerd-socket", node.containerd.socket]
        where = {"/run/seccomp-floor-reader/reader.sock": listening}
        second, daemon = started(node, DAEMON, "daemon", where, [*sockets, "--control-socket", control])
        yield Service(node, daemon, reader, [first, second], control)


def fields(process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Of /proc/PID/status."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in status.splitlines())


def test_they_say_when_they_are_ready(service: Service) -> None:
    assert service.notified == ["READY=1", "READY=1"]


def test_the_reader_has_what_reading_takes_and_no_filter(service: Service) -> None:
    found = fields(service.reader)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "0")
    assert int(found["CapEff"], 16) == 1 << 19 | 1 << 21  # SYS_PTRACE, SYS_ADMIN


def test_the_daemon_has_neither_and_is_under_a_filter(service: Service) -> None:
    assert len(allowed_calls(DAEMON)) > 200
    assert not allowed_calls(DAEMON) & {
        "ptrace",
        "mount",
        "bpf",
        "init_module",
        "setns",
        "unshare",
        "reboot",
        "io_uring_setup",
    }
    found = fields(service.daemon)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert int(found["CapEff"], 16) & (1 << 19 | 1 << 21) == 0
    assert int(found["CapEff"], 16).bit_count() == len(setting(DAEMON, "CapabilityBoundingSet").split())


def rows(service: Service) -> list[dict[str, object]]:
    """Of `status`; the node's own row is the last."""
    command = [PROGRAM, "status", "--json", "--control-socket", service.control]
    status = json.loads(subprocess.run(list(map(str, command)), capture_output=True, check=True).stdout)
    return [*status["containers"], status["node"]]


def test_that_is_enough_to_enforce_and_to_audit(service: Service) -> None:
    for seccomp in (None, UNCONFINED):
        container = service.node.run(seccomp) if seccomp else service.node.run()
        assert Reading.of(container).opened() == []
        *containers, node = rows(service)
        assert [row["protection"] for row in containers if row["id"] == container.id] == ["protected"]
        assert node["cannot_audit_because"] == ""
        container.pod.remove()


def test_runtimes_are_tried_as_well(service: Service) -> None:
    *_, node = rows(service)
    assert list(node["runtimes"].values()) == ["as proven, read from the kernel"]  # type: ignore[attr-defined]


def test_without_its_reader_the_daemon_starts_nothing(service: Service) -> None:
    """What nobody can look at is not started; with the reader back, all is well."""
    service.reader.terminate()
    assert service.reader.wait(10) == 0
    pod = service.node.create_pod()
    container = service.node.create_container(pod, seccomp=UNCONFINED)
    with pytest.raises(CriError, match="no reader of filters listens"):
        container.start()
    listening = service.node.scratch.path / "reader.sock"
    said, _ = started(service.node, READER, "reader-2", {}, ["--socket", listening])
    assert said == "READY=1"
    again = service.node.create_container(pod, seccomp=UNCONFINED, name="again")
    again.start()
    assert Reading.of(again).opened() == []
    pod.remove()
