"""The test node itself: that it leaves nothing behind, and that the probe can tell who shut a door."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testnode import RUNTIME_DEFAULT, UNCONFINED, Node, probe
from testnode.scratch import MARK, PREFIX, Scratch, cgroups, members

pytestmark = pytest.mark.node

OWNER = """
import sys, time
from testnode import UNCONFINED, Node
node = Node()
node.run(UNCONFINED)
print(node.scratch.path, flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["sys.exit()", "raise SystemError", "time.sleep(600)"])
def test_nothing_is_left_however_the_owner_ends(end: str) -> None:
    """It exits without closing, it crashes, it is killed: the container, containerd, mounts, cgroup and files go."""
    code = OWNER.format(end=end)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        path = Path(owner.stdout.readline().strip())
        assert path.name.startswith(PREFIX)
        if "sleep" in end:
            assert cgroups(path.name)
            assert len(members(path)) >= 4  # containerd, a shim, the pause container, the container
            owner.kill()
    deadline = time.monotonic() + 30
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()
    assert not members(path)
    assert not cgroups(path.name)
    assert str(path) not in Path("/proc/self/mountinfo").read_text()


def test_what_a_dead_keeper_left_is_swept_up_by_the_next() -> None:
    """Owner and keeper killed at once."""
    code = "from testnode import Scratch; import os; s = Scratch(); s.spawn(['sleep', '600'], s.path / 'log')\n"
    code += "print(s.path, flush=True); s._keeper.kill(); s._keeper.wait(); os._exit(0)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    path = Path(answer.stdout.strip())
    assert members(path)
    with Scratch() as scratch:
        assert scratch.path.exists()
        assert not path.exists()
        assert not members(path)


def test_only_what_carries_the_mark_is_a_member() -> None:
    """A process of somebody else that has the path among its arguments is left alone."""
    with Scratch() as scratch:
        command = ["sh", "-c", "sleep 600 & wait", str(scratch.path)]
        with subprocess.Popen(command, env={key: value for key, value in os.environ.items() if key != MARK}) as other:
            assert members(scratch.path) == set()
            assert other.poll() is None
            subprocess.run(["pkill", "-P", str(other.pid)], check=True)


def test_the_host_is_as_before(node: Node) -> None:
    """containerd's sockets and state are its own: nothing of the node shows where the host's containerd would be."""
    node.run(UNCONFINED)
    assert str(node.scratch.path) not in Path("/proc/self/mountinfo").read_text()
    run = Path("/run/containerd")
    assert not run.exists() or not any((run / name).exists() for name in ("s", "runc", "containerd.sock"))


def test_the_probe_tells_filter_from_kernel(node: Node) -> None:
    """The same errno is the filter's in one container and the kernel's in another."""
    unknown = 45  # AF_MCTP, a module that few kernels have loaded
    container = node.run(UNCONFINED)
    kinds = {door.name: door for door in probe.doors(container.output, unknown)}
    assert kinds["x86_64 socket"].kind == "not-in-kernel"
    assert kinds["x86_64 socket"].result == "EAFNOSUPPORT"
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 97,  # EAFNOSUPPORT
                "args": [{"index": 0, "value": unknown, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    container = node.run(node.write_profile("eafnosupport", section))
    kinds = {door.name: door for door in probe.doors(container.output, unknown)}
    assert kinds["x86_64 socket"].kind == "closed-by-filter"
    assert kinds["x86_64 socket"].result == "EAFNOSUPPORT"
    assert kinds["x86_64 socket, high half"].kind == "not-in-kernel"


def test_the_probe_survives_a_filter_that_kills(node: Node) -> None:
    """Each door is tried in a child; SIGSYS is a result."""
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],  # so that int 0x80 is killed
        "syscalls": [{"names": ["io_uring_setup"], "action": "SCMP_ACT_TRAP"}],
    }
    container = node.run(node.write_profile("kills", section))
    results = {door.name: (door.result, door.kind) for door in probe.doors(container.output, probe.AF_VSOCK)}
    assert results["i386 socket"] == ("SIGSYS", "closed-by-filter")
    assert results["x86_64 io_uring"] == ("SIGSYS", "closed-by-filter")
    assert results["x86_64 socket"] == ("ok", "opened")


def test_runtime_default_is_containerd_s_own(node: Node) -> None:
    """The profile that comes with containerd, not something that the test node made up."""
    section = node.run(RUNTIME_DEFAULT).section()
    assert section is not None
    assert section["defaultAction"] == "SCMP_ACT_ERRNO"
    assert sum(len(rule["names"]) for rule in section["syscalls"]) > 300
