"""Is this node able to enforce? Each check looks at one thing and says what it found, and what to do where that is not right.

Nothing here connects to the NRI socket: the runtime lets plugins in one at a time, and one that does not register holds up the
others for five seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from seccomp_floor.errors import SeccompFloorError
from seccomp_floor.node.doctor.finding import Finding, Level, Node

__all__ = ["Finding", "Level", "Node", "examine"]


def examine(node: Node) -> Iterator[Finding]:
    """Make every check; one that fails to make sense of what it sees is a finding, too."""
    from seccomp_floor.node.doctor import containerd, daemon, machine

    for check in (*machine.CHECKS, *daemon.CHECKS, *containerd.CHECKS):
        try:
            yield from check(node)
        except SeccompFloorError as error:
            yield Finding(Level.ERROR, check.__name__.strip("_").replace("_", " "), str(error))
