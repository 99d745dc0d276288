"""How long an audit holds a container that runs: it can be noticed, so it has to be short.

Of a container that sleeps, as most do: one that computes has to be given a CPU before it can stop, and where others use them as
well that takes what it takes. `make bench` measures both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import pytest

from seccomp_floor.node.ptrace import read_filters
from testnode import RUNTIME_DEFAULT, Daemon, Node
from testnode.waiting import standing

pytestmark = pytest.mark.node

AUDITS = 50
LONGEST = 0.001
"""Seconds, of the median: one reading may have to wait as well, half of them do not."""


@pytest.fixture
def daemon(node: Node) -> Iterator[Daemon]:
    """What puts the container under the floor."""
    with node.daemon() as daemon:
        yield daemon


def test_half_of_all_readings_take_less_than_a_millisecond(node: Node, daemon: Daemon) -> None:
    """Of containerd's default profile with the floor, the longest filter that is usual."""
    container = node.run(RUNTIME_DEFAULT)
    standing(daemon, container.id, "protected")
    readings = [read_filters(container.info()["pid"]) for _ in range(AUDITS)]
    assert all(len(reading.programs) == 1 for reading in readings)
    assert statistics.median(reading.pause for reading in readings) < LONGEST
    container.pod.remove()
