"""What the floor adds to the creation of a container: CreateContainer with and without the daemon, in one run."""

from __future__ import annotations

import statistics
import time
from contextlib import suppress

import pytest
from rich.console import Console
from rich.table import Table

from testnode import RUNTIME_DEFAULT, UNCONFINED, CriError, Node, Pod, Seccomp

pytestmark = pytest.mark.node

ROUNDS = 5
CREATIONS = 20
"""In each round with the daemon and as many without, so that a slow minute of the machine hits both."""
PROFILES = {"RuntimeDefault": RUNTIME_DEFAULT, "Unconfined": UNCONFINED}


def creations(node: Node, pod: Pod, seccomp: Seccomp) -> list[float]:
    """Seconds that each CreateContainer took; the containers are never started."""
    seconds = []
    for _ in range(CREATIONS):
        started = time.perf_counter()
        container = node.create_container(pod, seccomp=seccomp)
        seconds.append(time.perf_counter() - started)
        container.remove()
    return seconds


def test_time_added_to_a_creation() -> None:
    """Prints medians, and the ratio of each pair."""
    without: dict[str, list[float]] = {name: [] for name in PROFILES}
    with_daemon: dict[str, list[float]] = {name: [] for name in PROFILES}
    cold: dict[str, list[float]] = {name: [] for name in PROFILES}
    with Node() as node:
        pod = node.create_pod()
        for seccomp in PROFILES.values():
            creations(node, pod, seccomp)  # containerd's own first times
        for _ in range(ROUNDS):
            for name, seccomp in PROFILES.items():
                without[name] += creations(node, pod, seccomp)
            with node.daemon():
                for name, seccomp in PROFILES.items():
                    first, *others = creations(node, pod, seccomp)
                    cold[name].append(first)
                    with_daemon[name] += others
            with suppress(CriError):  # containerd asks a validator that has gone once more, and then no longer
                node.create_container(pod).remove()
    view = Table(title=f"CreateContainer, median of {ROUNDS} x {CREATIONS}, milliseconds", title_justify="left")
    for column in ("profile", "without", "with the daemon", "ratio", "profile never seen before"):
        view.add_column(column, justify="left" if column == "profile" else "right")
    for name in PROFILES:
        base, warm, first = (statistics.median(times[name]) for times in (without, with_daemon, cold))
        figures = (f"{base * 1e3:.1f}", f"{warm * 1e3:.1f}", f"{warm / base:.2f}", f"{first * 1e3:.1f}")
        view.add_row(name, *figures)
        assert len(with_daemon[name]) == ROUNDS * (CREATIONS - 1)
    Console(width=110).print(view)
