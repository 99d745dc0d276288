"""Which container a process belongs to, by the paths of its cgroups as runtimes make them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seccomp_floor.node import processes
from seccomp_floor.node.processes import by_container, container_of, in_own_namespace, limits, threads
from seccomp_floor.node.ptrace import GoneError

ONE, OTHER = "1f" * 32, "2e" * 32

CGROUPS = {
    "version 2, cgroupfs": f"0::/kubepods/burstable/pod1234/{ONE}\n",
    "version 2, systemd": f"0::/kubepods.slice/kubepods-pod1234.slice/cri-containerd-{ONE}.scope\n",
    "seen from a cgroup namespace": f"0::/../../pod1234/{ONE}\n",
    "version 1": f"5:devices:/kubepods/pod1234/{ONE}\n1:name=systemd:/kubepods/pod1234/{ONE}\n0::/\n",
    "an init that makes cgroups of its own": f"0::/kubepods/pod1234/{ONE}/init.scope\n",
    "a container in the container": f"0::/kubepods/pod1234/{ONE}/docker/{OTHER}\n",
}
NOT = {
    "the host": "0::/system.slice/ssh.service\n",
    "another container": f"0::/kubepods/pod1234/{OTHER}\n",
    "a part of the id": f"0::/kubepods/pod1234/{ONE[:12]}\n",
    "the id within a name": f"0::/kubepods/pod1234/x{ONE}\n",
    "gone": "",
}


@pytest.mark.parametrize("text", CGROUPS.values(), ids=CGROUPS.keys())
def test_a_process_of_the_container(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the runtime and its cgroup driver."""
    monkeypatch.setattr(processes, "_cgroups", lambda _pid: text)
    assert container_of(1, [OTHER, ONE]) == ONE


@pytest.mark.parametrize("text", NOT.values(), ids=NOT.keys())
def test_a_process_of_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no id at all is nobody's."""
    monkeypatch.setattr(processes, "_cgroups", lambda _pid: text)
    assert container_of(1, [ONE]) is None
    assert container_of(1, [""]) is None


def test_all_processes_in_one_pass() -> None:
    """This process is in no container of that name."""
    assert by_container([ONE]) == {}


def test_threads() -> None:
    """Those of this process, the first one first; of none, if it has gone."""
    assert threads(os.getpid())[0] == os.getpid()
    with pytest.raises(GoneError):
        threads(1 << 22)
    assert limits(1 << 22) == ()


def test_a_process_cannot_choose_its_namespace_by_its_name() -> None:
    """Its name comes first in its status, and may have what looks like the end of a line."""
    program = (
        "import ctypes, os, time; ctypes.CDLL(None).prctl(15, b'\\x0cNSpid:\\t1'); print(flush=True); time.sleep(60)"
    )
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert "NSpid:" in Path(f"/proc/{child}/status").read_text().split("\n")[0]
        assert not in_own_namespace(f"/proc/{child}/ns/pid")
        assert in_own_namespace(f"/proc/{process.pid}/ns/pid")
        process.kill()
