"""How long an audit holds a container that runs: it can be noticed, so it has to be short."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import pytest

from seccomp_floor.node.ptrace import read_filters
from testnode import RUNTIME_DEFAULT, Container, Daemon, Node
from testnode.waiting import standing

pytestmark = pytest.mark.node

AUDITS = 50
LONGEST = 0.001
"""Seconds, of the median: one reading may have to wait for a CPU that others use, half of them do not."""


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    """What puts the containers under the floor."""
    with node.daemon() as daemon:
        yield daemon


@pytest.mark.parametrize(
    "command",
    [["/probe", "sleep"], ["/bin/sh", "-c", "while :; do :; done"]],
    ids=["sleeps", "computes"],
)
def test_half_of_all_readings_take_less_than_a_millisecond(node: Node, daemon: Daemon, command: Sequence[str]) -> None:
    """Of containerd's default profile with the floor, the longest filter that is usual."""
    pod = node.create_pod()
    container = Container.create(pod, seccomp=RUNTIME_DEFAULT, command=command)
    container.start()
    standing(daemon, container.id, "protected")
    readings = [read_filters(container.info()["pid"]) for _ in range(AUDITS)]
    assert all(len(reading.programs) == 1 for reading in readings)
    assert statistics.median(reading.pause for reading in readings) < LONGEST
    pod.remove()
