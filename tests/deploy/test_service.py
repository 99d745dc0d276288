"""The unit's command line with the unit's privileges, on a real node; systemd itself is not needed for that."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testnode import Node
from testnode.reading import Reading

pytestmark = pytest.mark.node

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "seccomp-floor.service"
PROGRAM = Path(sys.executable).parent / "seccomp-floor"
READY_SECONDS = 60


@dataclass(frozen=True)
class Service:
    """The daemon as the unit starts it, on a node."""

    node: Node
    process: subprocess.Popen[bytes]
    notified: list[str]
    control: Path


def setting(name: str) -> str:
    """The value of a setting of the unit."""
    [value] = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(value)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Started and ready, by its own word to the service manager."""
    capabilities = [name.lower().removeprefix("cap_") for name in setting("CapabilityBoundingSet").split()]
    with Node() as node, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(node.scratch.path / "notify.sock"))
        manager.settimeout(READY_SECONDS)
        control = node.scratch.path / "control.sock"
        program, *arguments = shlex.split(setting("ExecStart"))
        assert program.endswith("/seccomp-floor")
        sockets = ["--nri-socket", node.containerd.nri_socket, "--containerd-socket", node.containerd.socket]
        bounds = f"--bounding-set=-all,{','.join(f'+{name}' for name in capabilities)}"
        process = node.scratch.spawn(
            [
                "setpriv",
                bounds,
                "--no-new-privs",
                str(PROGRAM),
                *arguments,
                *map(str, sockets),
                "--control-socket",
                str(control),
            ],
            node.scratch.path / "daemon.log",
            {"NOTIFY_SOCKET": str(node.scratch.path / "notify.sock")},
        )
        notified = [manager.recv(4096).decode()]
        yield Service(node, process, notified, control)


def test_it_says_when_it_is_ready(service: Service) -> None:
    assert service.notified == ["READY=1"]


def test_it_has_the_privileges_of_the_unit_and_no_filter(service: Service) -> None:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "0")
    assert int(fields["CapEff"], 16).bit_count() == len(setting("CapabilityBoundingSet").split())


def test_they_are_enough_to_enforce_and_to_audit(service: Service) -> None:
    container = service.node.run()
    assert Reading.of(container).opened() == []
    command = [PROGRAM, "status", "--json", "--control-socket", service.control]
    status = json.loads(subprocess.run(list(map(str, command)), capture_output=True, check=True).stdout)
    assert [row["protection"] for row in status["containers"] if row["id"] == container.id] == ["protected"]
    assert status["node"]["cannot_audit_because"] == ""
    container.pod.remove()
