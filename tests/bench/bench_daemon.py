"""What the daemon costs its node: start-up, memory, the answers to the runtime, and the pause of an audit."""

from __future__ import annotations

import re
import socket
import statistics
import time
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from seccomp_floor.node.ptrace import read_filters
from testnode import RUNTIME_DEFAULT, UNCONFINED, Container, Daemon, Node
from testnode.waiting import status, until

pytestmark = pytest.mark.node

STARTS = 5
CONTAINERS = 1000
STARTED = 30
AUDITS = 500
GROWTH = 4096
"""KiB; more between the first hundred containers and the last is a leak."""


def resident(pid: int) -> int:
    """KiB of memory that the process has."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1])


def share(pid: int) -> int:
    """KiB of memory that the process has, what it shares with others divided among them."""
    found = re.search(r"Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found is not None
    return int(found[1])


def family(pid: int) -> list[tuple[str, int]]:
    """The daemon and its children: their names, and their share of the memory that they have together."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    found = [("the daemon", share(pid))]
    for child in children:
        judges = "forkserver" in Path(f"/proc/{child}/cmdline").read_text()
        found.append(("what judges" if judges else "what reads filters", share(child)))
    return found


def seconds_to_register(node: Node) -> tuple[float, float]:
    """From the start of the process to its word that it is registered: in all, and of the processor's time."""
    begun = time.monotonic()
    with node.daemon(wait=False) as daemon:
        while "registered" not in daemon.log:
            assert daemon.process.poll() is None, daemon.log
            time.sleep(0.001)
        passed = time.monotonic() - begun
        computed, _, _ = Path(f"/proc/{daemon.process.pid}/schedstat").read_text().split()  # nanoseconds
        return passed, int(computed) / 1e9


def answers(port: int) -> dict[str, tuple[int, float, float]]:
    """For each method: how many answers, their mean in seconds, and the part of them that took at most a millisecond."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    name = "seccomp_floor_request_duration_seconds"
    found = {}
    for method, count in re.findall(rf'{name}_count{{method="(\w+)"}} ([\d.]+)', text):
        (total,) = re.findall(rf'{name}_sum{{method="{method}"}} ([\d.e-]+)', text)
        (quick,) = re.findall(rf'{name}_bucket{{le="0.001",method="{method}"}} ([\d.]+)', text)
        found[method] = int(float(count)), float(total) / float(count), float(quick) / float(count)
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def grow(node: Node, daemon: Daemon) -> list[int]:
    """Create and remove containers; memory after each hundred."""
    pod = node.create_pod()
    sizes = []
    for number in range(CONTAINERS):
        seccomp = UNCONFINED if number % 2 else RUNTIME_DEFAULT
        container = node.create_container(pod, seccomp=seccomp, name=f"c{number}")
        if number < STARTED:
            container.start()
        container.remove()
        if number % 100 == 99:
            sizes.append(resident(daemon.process.pid))
    return sizes


def pauses(container: Container) -> tuple[float, float, float]:
    """Of many audits of a running container, how many seconds it stood still: the median, of 99 in 100 the longest, the longest."""
    pid = container.info()["pid"]
    found = sorted(read_filters(pid).pause for _ in range(AUDITS))
    return statistics.median(found), found[AUDITS * 99 // 100], found[-1]


def test_how_long_audits_hold_what_runs() -> None:
    """Prints the pauses; later audits than the one at the start are made where asked for only, since a workload can notice them."""
    view = Table(
        "container", "median", "99 of 100 within", "longest", title="The pause of an audit", title_justify="left"
    )
    spin = ["/bin/sh", "-c", "while :; do :; done"]
    medians = []
    with Node() as node, node.daemon():
        pod = node.create_pod()
        for seccomp in (RUNTIME_DEFAULT, UNCONFINED):
            for what, command in (("sleeps", ["/probe", "sleep"]), ("computes", spin)):
                container = node.create_container(pod, seccomp=seccomp, name=f"{what}-{seccomp.kind}", command=command)
                container.start()
                found = pauses(container)
                medians.append(found[0])
                view.add_row(f"{seccomp.kind}, {what}", *(f"{pause * 1e6:.0f} us" for pause in found))
                container.remove()
    Console().print(view)
    assert max(medians) < 1e-3


def test_what_the_daemon_costs() -> None:
    """Prints start-up, memory over a thousand containers, and answers."""
    port = free_port()
    view = Table(title="The daemon", title_justify="left")
    view.add_column("figure")
    view.add_column("value", justify="right")
    with Node() as node:
        starts = [seconds_to_register(node) for _ in range(STARTS)]
        for what, times in zip(
            ("process start to registered", "of it, computing"), zip(*starts, strict=True), strict=True
        ):
            view.add_row(f"{what}, median", f"{statistics.median(times) * 1e3:.0f} ms")
        with node.daemon(arguments=["--metrics", str(port)]) as daemon:
            until(daemon, lambda status: status.node.runtimes)
            view.add_row("resident memory, at the start", f"{resident(daemon.process.pid) / 1024:.1f} MiB")
            for name, size in family(daemon.process.pid):
                view.add_row(f"of all that is shared and not, {name}", f"{size / 1024:.1f} MiB")
            kept = node.run(UNCONFINED)
            sizes = grow(node, daemon)
            view.add_row("after 100 containers", f"{sizes[0] / 1024:.1f} MiB")
            view.add_row(f"after {CONTAINERS} containers", f"{sizes[-1] / 1024:.1f} MiB")
            for method, (count, mean, quick) in answers(port).items():
                view.add_row(f"{method}, mean of {count}", f"{mean * 1e3:.2f} ms")
                view.add_row(f"{method}, part within 1 ms", f"{quick * 100:.0f} %")
            at_start = [row.pause for row in status(daemon).containers if row.id == kept.id]
            view.add_row("pause of the audit at the start", f"{at_start[0] * 1e6:.0f} us")
    Console().print(view)
    assert sizes[-1] - sizes[0] < GROWTH
